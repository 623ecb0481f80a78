"""Who watches tasks in this process: each is told of what is written down, in its order, from any place on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from sojourn.errors import JournalUnavailable
from sojourn.scopes.pausing import pause
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

    __slots__ = ("_base", "_journal", "_reading", "_stopped", "_waiting")

    def __init__(self, journal: Journal, base: Base) -> None:
        self._journal = journal
        self._base = base
        #: Those who wait for something to change, by task.
        self._waiting: dict[str, set[asyncio.Future[None]]] = {}
        #: What is being read, by task and place: who asks for the same meanwhile gets the same, unless it has changed.
        self._reading: dict[str, dict[int, asyncio.Future[Reading | None]]] = {}
        self._stopped = False

    def changed(self, id: str) -> None:
        """A task has said something or changed its state."""
        self._reading.pop(id, None)
        for waiter in self._waiting.pop(id, ()):
            if not waiter.done():
                waiter.set_result(None)

    def missed(self) -> None:
        """Any may have."""
        self._reading.clear()
        for each in list(self._waiting):
            self.changed(each)

    def stop(self) -> None:
        """Nothing is told here any more: who watches, now or later, gets ``JournalUnavailable``."""
        self._stopped = True
        self.missed()

    async def watch(self, id: str, after: int = 0) -> AsyncGenerator[Event | Task, None]:
        """What a task says after a number, and its record: first, and each time that its state has changed.

        Ends when the task has ended, or is no more; or never. While the journal is away it waits.

        Args:
            id: The task.
            after: Number of the last event that is known.

        Raises:
            JournalUnavailable: The service ends here; another node can be asked.

        Cancel: safe.
        """
        known: tuple[object, ...] | None = None
        async with self._following(id):
            while True:
                # Before it is read: what changes meanwhile must not be missed.
                waiter = self._waiter(id)
                try:
                    try:
                        reading = await self._read(id, after)
                    except JournalUnavailable as error:
                        self._check()
                        await pause(error.retry_after)
                        continue
                    if reading is None:
                        return
                    task = reading.task
                    for event in reading.events:
                        after = event.seq
                        yield event
                    if len(reading.events) >= _PAGE:
                        continue
                    if (state := (task.state, task.epoch, task.failures, task.interruptions, task.cancelling)) != known:
                        known = state
                        yield task
                    if task.state in ENDED:
                        return
                    self._check()
                    await asyncio.wait((waiter,), timeout=_POLL)
                finally:
                    self._forget(id, waiter)
                await pause(_PACE)

    async def ended(self, id: str, seconds: float | None) -> Task | None:
        """A task when it has ended, or after so many seconds as it is then; None when there is none.

        Raises:
            JournalUnavailable: The journal can't be reached, or the service ends here.

        Cancel: safe.
        """
        now = self._base.now
        ends = None if seconds is None else now() + seconds
        task = await self._journal.get(id)
        if task is None or task.state in ENDED or (seconds is not None and seconds <= 0.0):
            return task
        paced = False
        async with self._following(id):
            while True:
                waiter = self._waiter(id)
                try:
                    task = await self._journal.get(id)
                    left = None if ends is None else ends - now()
                    if task is None or task.state in ENDED or (left is not None and left <= 0.0):
                        return task
                    self._check()
                    await asyncio.wait((waiter,), timeout=_POLL if left is None else min(_POLL, left))
                finally:
                    self._forget(id, waiter)
                if paced:  # it says much; the first change is mostly the end
                    await pause(_PACE if left is None else min(_PACE, max(0.0, left)))
                paced = True

    def _check(self) -> None:
        if self._stopped:
            raise JournalUnavailable("the service ends here")

    @asynccontextmanager
    async def _following(self, id: str) -> AsyncIterator[None]:
        """The journal tells of this task."""
        await self._journal.follow(id)
        try:
            yield
        finally:
            self._journal.unfollow(id)

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
        reading = self._reading.get(id, {}).get(after)
        if reading is not None:
            await asyncio.wait((reading,))
            if not reading.cancelled():
                return reading.result()
        mine: asyncio.Future[Reading | None] = asyncio.get_running_loop().create_future()
        places = self._reading.setdefault(id, {})
        places[after] = mine
        try:
            found = await self._journal.read(id, after, _PAGE)
        except BaseException:
            mine.cancel()
            raise
        else:
            mine.set_result(found)
            return found
        finally:
            if places.get(after) is mine:
                del places[after]
            if not places and self._reading.get(id) is places:
                del self._reading[id]
