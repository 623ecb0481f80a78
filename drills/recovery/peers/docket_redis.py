"""pydocket: Redis streams. ``worker`` is what its own command runs."""

from __future__ import annotations

import asyncio
import sys
from datetime import timedelta

from docket import Docket, Worker

from drills.recovery.work import LEASE, STORE, work


async def task() -> None:
    await work()


tasks = [task]


async def submit() -> None:
    async with Docket(name="recovery", url=STORE) as docket:
        docket.register(task)
        await docket.add(task)()


async def worker() -> None:
    found = ["drills.recovery.peers.docket_redis:tasks"]
    await Worker.run("recovery", STORE, redelivery_timeout=timedelta(seconds=LEASE), tasks=found)


if __name__ == "__main__":
    asyncio.run(worker() if "worker" in sys.argv else submit())
