"""arq."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

from arq import create_pool
from arq.connections import RedisSettings

from drills.recovery.work import STORE, work


async def task(ctx: dict[str, Any]) -> None:
    await work()


class WorkerSettings:
    functions: ClassVar[list[Any]] = [task]
    redis_settings = RedisSettings.from_dsn(STORE or "redis://localhost")
    job_timeout = 10


async def submit() -> None:
    pool = await create_pool(WorkerSettings.redis_settings)
    await pool.enqueue_job("task")


if __name__ == "__main__":
    asyncio.run(submit())
