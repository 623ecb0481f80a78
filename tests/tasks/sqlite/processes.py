"""Other processes that use the same file."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["other", "until"]

_BEGIN = """
import asyncio, os, sys
from sojourn.tasks.journal import Want
from sojourn.tasks.record import NewTask, Settlement
from sojourn.tasks.sqlite import SqliteJournal

async def main(path, name):
    journal = SqliteJournal(path)
    await journal.open(name)
    {act}

asyncio.run(main(sys.argv[1], sys.argv[2]))
"""


@contextmanager
def other(path: Path, name: str, act: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that opens the file as a node, and does something with ``journal`` and ``name``."""
    act = act.strip().replace("\n", "\n    ")
    process = subprocess.Popen(
        [sys.executable, "-c", _BEGIN.format(act=act), str(path), name],
        stdout=subprocess.PIPE,
        stdin=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


async def until(condition: Callable[[], object], seconds: float = 5.0) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what it waits for has no event
            await asyncio.sleep(0.005)
