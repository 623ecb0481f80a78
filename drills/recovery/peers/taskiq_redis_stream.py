"""taskiq with the stream broker of taskiq-redis."""

from __future__ import annotations

import asyncio

from taskiq_redis import RedisStreamBroker

from drills.recovery.work import LEASE, STORE, work

broker = RedisStreamBroker(STORE, idle_timeout=1000 * LEASE)


@broker.task(task_name="task")
async def task() -> None:
    await work()


async def submit() -> None:
    await broker.startup()
    await task.kiq()
    await broker.shutdown()


if __name__ == "__main__":
    asyncio.run(submit())
