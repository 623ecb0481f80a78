"""The servers of the drills: ``sojourn serve`` as a process, and its family of processes as seen from outside."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.server.processes import COMMAND, Serving, environment, now

__all__ = ["ROOT", "alive", "descendants", "end_of", "now", "report_of", "serving", "until"]

ROOT = Path(__file__).resolve().parents[1]


@contextmanager
def serving(app: str = "drills.app:app", /, **settings: str) -> Iterator[Serving]:
    """Serve an application. Whatever it started and is left at the end is killed.

    Args:
        app: The application, as module:attribute.
        settings: Such as ``drain_delay="1"``; ``app_dir`` is the root of the checkout if it is not given.
    """
    served = Serving([COMMAND, "serve", app, "--port", "0"], environment(**{"app_dir": str(ROOT)} | settings))
    try:
        yield served
    finally:
        family = descendants(served.process.pid)
        served.process.kill()
        for pid in family:
            if alive(pid):
                os.kill(pid, signal.SIGKILL)
        served.close()


def descendants(pid: int) -> list[int]:
    """The processes that a process has started, and those that they have."""
    found = []
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except FileNotFoundError:
        return []
    for thread in threads:
        try:
            children = Path(f"/proc/{pid}/task/{thread}/children").read_text().split()
        except FileNotFoundError:
            continue  # the thread has ended meanwhile
        for child in map(int, children):
            found += [child, *descendants(child)]
    return found


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def report_of(path: Path) -> dict[str, Any]:
    """The drain report that was written to a file."""
    report: dict[str, Any] = json.loads(path.read_text())
    return report


async def end_of(served: Serving, seconds: float) -> tuple[int, float]:
    """Wait for the end of a server; its exit code, and the moment."""
    code = await asyncio.to_thread(served.ended, seconds)
    return code, now()


async def until(condition: Callable[[], object], seconds: float, what: str, served: Serving | None = None) -> None:
    """Wait for what another process is about to make true."""
    end = now() + seconds
    while not condition():
        log = served.stderr[-3000:] if served is not None else ""
        assert now() < end, f"{what}: not within {seconds} s; {log}"
        await asyncio.sleep(0.02)
