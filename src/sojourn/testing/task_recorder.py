"""A node for the tests of a journal: what it is called, what it asks, and what it has heard."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from itertools import count
from secrets import token_hex
from typing import Any, Final

from msgspec.structs import replace

from sojourn.clock import SystemClock
from sojourn.scopes.work import attend
from sojourn.tasks.journal import Journal, Want
from sojourn.tasks.record import Claim, NewTask, Outcome, Settlement, Task
from sojourn.testing.hub_recorder import BrokenPromise, expect

__all__ = ["PATIENCE", "BrokenPromise", "Ears", "TaskNode", "expect", "pause", "steady"]

#: Seconds for a hint that has to come.
PATIENCE: Final = 2.0
#: Seconds of a lease that is not to run out, and for which tests wait until it has.
LONG: Final = 30.0
SHORT: Final = 0.3


async def pause(seconds: float) -> None:
    """Let time pass.

    Args:
        seconds: How much.

    Cancel: safe.
    """
    await asyncio.wait([asyncio.get_running_loop().create_future()], timeout=seconds)


def steady(task: Task) -> Task:
    """A record without the end of its lease, which an engine may reckon anew each time that it is read."""
    return replace(task, lease_until=0.0)


class Ears:
    """A listener that keeps all it is told.

    Attributes:
        dues: How often something was due.
        changes: Tasks that have changed.
        cancels: Tasks that are to end.
        misses: How often something may have been missed.
        aways: How often it was cut off.
        claims: Whether it is one of a node that claims.
    """

    claims = True

    def __init__(self) -> None:
        self.dues = 0
        self.changes: list[str] = []
        self.cancels: list[str] = []
        self.misses = 0
        self.aways = 0

    def due(self) -> None:
        """See Listener."""
        self.dues += 1

    def changed(self, id: str) -> None:
        """See Listener."""
        self.changes.append(id)

    def cancelled(self, id: str) -> None:
        """See Listener."""
        self.cancels.append(id)

    def missed(self) -> None:
        """See Listener."""
        self.misses += 1

    def away(self) -> None:
        """See Listener."""
        self.aways += 1

    def clear(self) -> None:
        """Forget what was heard."""
        self.dues = self.misses = self.aways = 0
        self.changes.clear()
        self.cancels.clear()

    async def until(self, right: Callable[[Ears], bool], text: str) -> None:
        """Wait until it has heard something, or that it may have missed it.

        Raises:
            BrokenPromise: It was not so in time.
        """
        clock = SystemClock()
        limit = clock.monotonic() + PATIENCE
        while not right(self) and not self.misses:
            expect(clock.monotonic() < limit, text)
            await pause(0.005)


class TaskNode:
    """A journal, as one node uses it.

    Args:
        journal: It is opened.
        name: The node's.
        numbers: Where ids get their beginning from, so that later ones sort earlier: one for all nodes of a test.

    Attributes:
        journal: The journal.
        name: The node's.
    """

    def __init__(self, journal: Journal, name: str, numbers: Iterator[int]) -> None:
        self.journal = journal
        self.name = name
        self._numbers = numbers

    @staticmethod
    def all(journals: Sequence[Journal]) -> list[TaskNode]:
        """Nodes of one store, with names of their own."""
        numbers, some = count(1), token_hex(4)
        return [TaskNode(journal, f"{some}-{index}", numbers) for index, journal in enumerate(journals)]

    def new(self, kind: str = "k", **fields: Any) -> NewTask:
        """A task that is to be, with an id of its own."""
        return NewTask(id=f"{10**8 - next(self._numbers):08d}{token_hex(16)}", kind=kind, **fields)

    async def submit(self, kind: str = "k", **fields: Any) -> str:
        """Write one down. Returns its id."""
        task = self.new(kind, **fields)
        (done,) = await self.journal.submit([task])
        expect(done.new and done.id == task.id, f"a new task was not written down: {done}")
        return task.id

    async def claim(self, n: int = 10, *kinds: str, lease: float = LONG) -> list[Claim]:
        """Claim at most so many, of kind ``k`` if none is named."""
        return list((await self.journal.claim(self.name, [Want(kinds or ("k",), n)], lease)).claims)

    async def begin(self, kind: str = "k", lease: float = LONG, **fields: Any) -> Claim:
        """Write one down and claim it. Nothing else of its kind may be due."""
        ident = await self.submit(kind, **fields)
        claims = await self.claim(10, kind, lease=lease)
        expect([claim.id for claim in claims] == [ident], f"what is due is not claimed: {claims}")
        return claims[0]

    async def settle(self, claim: Claim, outcome: Outcome, **fields: Any) -> bool:
        """Say how one run has ended."""
        settlement = Settlement(id=claim.id, epoch=claim.epoch, outcome=outcome, **fields)
        (counted,) = await self.journal.settle([settlement])
        return counted

    async def task(self, ident: str) -> Task:
        """The record, which has to be there.

        Raises:
            BrokenPromise: It is not.
        """
        task = await self.journal.get(ident)
        if task is None:
            raise BrokenPromise(f"there is no task {ident}")
        return task

    @asynccontextmanager
    async def hearing(self) -> AsyncIterator[Ears]:
        """Somebody who listens, from when it is told of all."""
        ears = Ears()
        listening = attend(self.journal.listen(ears), "listen")
        try:
            await ears.until(lambda ears: listening.done() or ears.misses > 0, "who listens was not told that it does")
            expect(not listening.done(), "listening has ended by itself")
            ears.clear()
            yield ears
        finally:
            listening.cancel()
            await asyncio.wait((listening,), timeout=PATIENCE)
            expect(listening.done(), "listening does not end when it is cancelled")
