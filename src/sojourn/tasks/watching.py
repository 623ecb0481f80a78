"""Who watches tasks in this process: each is told of what is written down, in its order, from any place on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Final

from sojourn.errors import JournalUnavailable
from sojourn.tasks.base import Base
from sojourn.tasks.journal import Journal
from sojourn.tasks.record import ENDED, Event, Reading, Task

__all__ = ["Watchers"]

#: Seconds after which it looks though nobody has told it of anything, and at least between two looks.
_POLL: Final = 5.0
_PACE: Final = 0.02
#: Events that are read at once.
_PAGE: Final = 200


class Watchers:
    """All of one node.

    Args:
        journal: Where tasks are.
        base: Its time and its pauses.
    """

    __slots__ = ("_base", "_journal", "_reading", "_waiting")

    def __init__(self, journal: Journal, base: Base) -> None:
        self._journal = journal
        self._base = base
        #: Those who wait for something to change, by task.
        self._waiting: dict[str, set[asyncio.Future[None]]] = {}
        #: What is being read, by task and place: who asks for the same meanwhile gets the same.
        self._reading: dict[tuple[str, int], asyncio.Future[Reading | None]] = {}

    def changed(self, id: str) -> None:
        """A task has said something or changed its state."""
        for waiter in self._waiting.pop(id, ()):
            if not waiter.done():
                waiter.set_result(None)

    def missed(self) -> None:
        """Any may have."""
        for each in list(self._waiting):
            self.changed(each)

    def stop(self) -> None:
        """Nobody watches any more."""
        for waiters in self._waiting.values():
            for waiter in waiters:
                waiter.cancel()
        self._waiting.clear()

    async def watch(self, id: str, after: int = 0) -> AsyncGenerator[Event | Task, None]:
        """What a task says after a number, and its record: first, and each time that its state has changed.

        Ends when the task has ended, or is no more; or never. While the journal is away it waits.

        Args:
            id: The task.
            after: Number of the last event that is known.

        Cancel: safe.
        """
        known: tuple[str, int, int] | None = None
        while True:
            # Before it is read: what changes meanwhile must not be missed.
            waiter = self._waiter(id)
            try:
                try:
                    reading = await self._read(id, after)
                except JournalUnavailable as error:
                    await self._base.pause(error.retry_after)
                    continue
                if reading is None:
                    return
                task = reading.task
                for event in reading.events:
                    after = event.seq
                    yield event
                if len(reading.events) >= _PAGE:
                    continue
                if (state := (task.state, task.failures, task.interruptions)) != known:
                    known = state
                    yield task
                if task.state in ENDED:
                    return
                await asyncio.wait((waiter,), timeout=_POLL)
            finally:
                self._forget(id, waiter)
            await self._base.pause(_PACE)

    async def ended(self, id: str, seconds: float | None) -> Task | None:
        """A task when it has ended, or after so many seconds as it is then; None when there is none.

        Cancel: safe.
        """
        now = self._base.now
        ends = None if seconds is None else now() + seconds
        while True:
            waiter = self._waiter(id)
            try:
                task = await self._journal.get(id)
                left = None if ends is None else ends - now()
                if task is None or task.state in ENDED or (left is not None and left <= 0.0):
                    return task
                await asyncio.wait((waiter,), timeout=_POLL if left is None else min(_POLL, left))
            finally:
                self._forget(id, waiter)

    def _waiter(self, id: str) -> asyncio.Future[None]:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(id, set()).add(waiter)
        return waiter

    def _forget(self, id: str, waiter: asyncio.Future[None]) -> None:
        waiters = self._waiting.get(id)
        if waiters is not None:
            waiters.discard(waiter)
            if not waiters:
                del self._waiting[id]

    async def _read(self, id: str, after: int) -> Reading | None:
        """Many who watch one task read it once."""
        key = (id, after)
        reading = self._reading.get(key)
        if reading is not None:
            await asyncio.wait((reading,))
            if not reading.cancelled() and reading.exception() is None:
                return reading.result()
        mine: asyncio.Future[Reading | None] = asyncio.get_running_loop().create_future()
        self._reading[key] = mine
        try:
            found = await self._journal.read(id, after, _PAGE)
        except BaseException:
            mine.cancel()
            raise
        else:
            mine.set_result(found)
            return found
        finally:
            if self._reading.get(key) is mine:
                del self._reading[key]
