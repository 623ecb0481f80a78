"""The one task of the experiment, and its diary. It runs in the peers' environments: standard library only."""

from __future__ import annotations

import asyncio
import os
import time

__all__ = ["LEASE", "SECONDS", "STORE", "WHO", "note", "work", "work_blocking"]

#: How long the task takes.
SECONDS = 6.0
#: What leases are set to where a peer lets one, in seconds.
LEASE = 5
STORE = os.environ.get("RECOVERY_STORE", "")
WHO = os.environ.get("RECOVERY_WHO", "")
_DIARY = os.environ.get("RECOVERY_DIARY", "/dev/null")


def note(what: str) -> None:
    """Write down what happens here, and when; one write, so that lines of two processes do not mix."""
    diary = os.open(_DIARY, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(diary, f"{what} {WHO} {time.monotonic():.3f}\n".encode())
    os.close(diary)


async def work() -> None:
    """Take six seconds."""
    note("begun")
    try:
        await asyncio.sleep(SECONDS)
    except asyncio.CancelledError:
        note("cancelled")
        raise
    note("done")


def work_blocking() -> None:
    """Take six seconds, of a thread or a process."""
    note("begun")
    time.sleep(SECONDS)
    note("done")
