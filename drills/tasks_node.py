"""A node of durable tasks, for ``sojourn work``: its runs keep a diary, and each end that counts leaves a witness.

A witness is a task that nobody can do. It is submitted in the same step as the end of a run (``Settlement.then``), and
its id says which: whatever kills the process, there is one for each end that the journal has taken, and no other.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Sequence
from random import Random
from typing import Any, cast

import msgspec

from sojourn.clock import SystemClock
from sojourn.errors import JournalUnavailable
from sojourn.policy.retry import Backoff
from sojourn.tasks.current import current_task
from sojourn.tasks.journal import Journal
from sojourn.tasks.opening import journal_of
from sojourn.tasks.record import NewTask, Settlement
from sojourn.tasks.tasks import Tasks

__all__ = ["KINDS", "WITNESS", "begin", "made", "service"]

#: What nodes do; and the kind of witnesses.
KINDS = ("hold", "flaky", "spread", "tick")
WITNESS = "witness"
#: How often a task may be lost with its node: the drills are what kills it.
CRASHES = 10_000


class Witnessed:
    """A journal that is told of each end together with its witness."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def __getattr__(self, name: str) -> Any:
        return getattr(self._journal, name)

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[bool]:
        return await self._journal.settle([_witnessed(each) for each in settlements])


def _witnessed(end: Settlement) -> Settlement:
    witness = NewTask(id=f"{end.outcome}.{end.epoch}.{end.id}", kind=WITNESS, delay=86_400.0)
    return msgspec.structs.replace(end, then=(*end.then, witness))


def note(what: str) -> None:
    """Write down what happens here, in one write, so that lines of two processes do not mix."""
    path = os.environ.get("DRILL_DIARY")
    if path is not None:
        line = f"{what} {current_task().id} {os.getpid()} {SystemClock.monotonic():.4f}\n"
        diary = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(diary, line.encode())
        os.close(diary)


async def begin(tasks: Tasks, number: int) -> str:
    """Start a task of nothing up to 0.2 s; one in twenty fails once, one in twenty is delayed.

    Again and again until it is known to be written, such as when a node was frozen in the middle of a transaction: by
    its number it is one task.
    """
    rng = Random(number)
    arguments: dict[str, Any] = {"seconds": rng.choice((0.0, 0.01, 0.1, 0.2))}
    if number % 20:
        arguments["quiet"] = True
    delay = rng.uniform(0.0, 10.0) if number % 20 == 1 else 0.0
    wish = {"key": f"{number}", "delay": delay, "priority": rng.randrange(3)}
    while True:
        try:
            return (await tasks.start("hold" if number % 20 else "flaky", **arguments, **wish)).id
        except JournalUnavailable:
            pass


def service(url: str, **settings: Any) -> Tasks:
    """The service, for who starts tasks as well.

    Args:
        url: Of its journal.
        settings: Of ``Tasks``.
    """
    tasks = Tasks(cast(Journal, Witnessed(journal_of(url))), keep=3600.0, **settings)

    @tasks.define(deadline=None, retries=0, crashes=CRASHES)
    async def hold(seconds: float, quiet: bool = False) -> dict[str, Any]:
        """Take so long; of an interrupted run, what is left."""
        task, run = current_task(), secrets.token_hex(4)
        began = SystemClock.monotonic()
        before: float = task.checkpoint or 0.0
        if not quiet:
            note("begun")
        try:
            await asyncio.sleep(seconds - before)
        except asyncio.CancelledError:
            if not quiet:
                note("cut")
                await task.save(before + SystemClock.monotonic() - began)
            raise
        if not quiet:
            note("done")
        return {"pid": os.getpid(), "run": run, "checkpoint": before}

    @tasks.define(deadline=None, retries=3, backoff=Backoff(0.2, 0.5), crashes=CRASHES)
    async def flaky(seconds: float) -> int:
        """Fail once, then take so long."""
        if current_task().attempt == 1:
            raise ValueError("the first attempt fails")
        await asyncio.sleep(seconds)
        return current_task().attempt

    @tasks.define(deadline=None, retries=0, crashes=CRASHES, priority=-1)
    async def spread(first: int, count: int) -> list[str]:
        """Start others, one after the other; most of them begin where they are started."""
        task = current_task()
        ids: list[str] = task.checkpoint or []
        for number in range(first + len(ids), first + count):
            ids.append(await begin(tasks, number))
            if len(ids) % 10 == 0:
                await task.save(ids)
        return ids

    if os.environ.get("DRILL_EVERY"):

        @tasks.define(every=float(os.environ["DRILL_EVERY"]), retries=0, crashes=CRASHES)
        async def tick() -> float | None:
            """Stand for a slot."""
            note("begun")
            await asyncio.sleep(0.3)
            note("done")
            return current_task().slot

    return tasks


def made() -> Tasks:
    """That of a node, as the environment says."""
    lease, concurrency = os.environ["DRILL_LEASE"], os.environ["DRILL_CONCURRENCY"]
    return service(os.environ["DRILL_JOURNAL"], lease=float(lease), concurrency=int(concurrency))
