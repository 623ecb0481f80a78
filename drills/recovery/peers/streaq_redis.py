"""streaq: Redis streams."""

from __future__ import annotations

import asyncio

from streaq import Worker

from drills.recovery.work import LEASE, STORE, work

worker = Worker(redis_url=STORE, idle_timeout=LEASE)


@worker.task()
async def task() -> None:
    await work()


async def submit() -> None:
    async with worker:
        await task.enqueue()


if __name__ == "__main__":
    asyncio.run(submit())
