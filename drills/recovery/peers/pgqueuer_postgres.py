"""pgqueuer. Its command ``run`` ends with an AttributeError in 1.6.0; ``worker`` calls what it would."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import asyncpg
from pgqueuer import AsyncpgDriver, Job, PgQueuer, Queries, run

from drills.recovery.work import LEASE, STORE, work


@asynccontextmanager
async def manager() -> AsyncIterator[PgQueuer]:
    connection = await asyncpg.connect(STORE)
    try:
        found = PgQueuer(AsyncpgDriver(connection))

        @found.entrypoint("task")
        async def task(job: Job) -> None:
            await work()

        yield found
    finally:
        await connection.close()


async def submit() -> None:
    connection = await asyncpg.connect(STORE)
    queries = Queries(AsyncpgDriver(connection))
    await queries.install()
    await queries.enqueue("task", b"")
    await connection.close()


async def worker() -> None:
    lease = timedelta(seconds=LEASE)
    await run(manager, heartbeat_timeout=lease, dequeue_timeout=lease)


if __name__ == "__main__":
    asyncio.run(worker() if "worker" in sys.argv else submit())
