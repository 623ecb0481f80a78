"""Sojourn, on whichever journal the address names."""

from __future__ import annotations

import asyncio
import signal
import sys

from drills.recovery.work import LEASE, STORE, work
from sojourn import Tasks

tasks = Tasks(STORE, lease=LEASE)


@tasks.define(deadline=60)
async def task() -> None:
    await work()


async def submit() -> None:
    async with tasks:
        await tasks.start(task)


async def worker() -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with tasks:
        await stop.wait()


if __name__ == "__main__":
    asyncio.run(worker() if "worker" in sys.argv else submit())
