"""All deadlines of an event loop behind one of its timers.

A timer of the loop's own for each deadline costs a microsecond on asyncio, five on uvloop, and asyncio clears away
cancelled ones in one go, during which it does nothing else. Here setting one is a push on a heap, and leaving in time
costs nothing: who has left is skipped when its moment comes, or swept when there are more of them than of the others.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from contextvars import Context
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Any, Final, Protocol

from sojourn.clock import NEVER, Clock, SystemClock, turn_of
from sojourn.events import TaskSurvived
from sojourn.scopes.work import LADDER

__all__ = ["AGAIN", "Alarms", "Ringing", "alarms"]

#: Seconds by which a moment may be early, and the first of those that come next: loops keep time in milliseconds.
_EARLY: Final = 0.0005
_FIRST: Final = 0.001
#: Seconds late: the loop stood still. What arrived meanwhile is read first, for so long, before anything is judged.
_STALL: Final = 0.25
_READING: Final = 0.01
#: So many who have left are not worth a sweep.
_FEW: Final = 64

#: Ring again after the first gap of the ladder. Nearly all have left by then, and need not tell.
AGAIN: Final = -1.0

Report = Callable[[TaskSurvived], None]


class Ringing(Protocol):
    """Something with a moment."""

    left: bool

    def ring(self, now: float) -> float:
        """The moment has come. Returns the next one, or NEVER; or AGAIN."""


class Alarms:
    """The deadlines of one event loop.

    Args:
        loop: Whose thread calls everything here.
        clock: Where time comes from.
    """

    __slots__ = (
        "_again",
        "_context",
        "_due",
        "_gone",
        "_heap",
        "_numbers",
        "_patient",
        "_timer",
        "_turn",
        "clock",
        "loop",
        "report",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Clock | None = None) -> None:
        self.loop = loop
        self._turn = turn_of(loop)
        #: Of the timer: not that of whoever was first, which would be kept from then on.
        self._context = Context()
        self.clock: Clock = clock or SystemClock()
        self._heap: list[tuple[float, int, Ringing]] = []
        self._numbers = count()
        #: Those that ring again, with their moments, in order.
        self._again: deque[tuple[float, Ringing]] = deque()
        #: How many of the heap have left.
        self._gone = 0
        self._timer: asyncio.TimerHandle | None = None
        #: When the timer rings.
        self._due = NEVER
        self._patient = True
        #: Told of tasks that outlive a deadline; None: the loop's exception handler is.
        self.report: Report | None = None

    def __len__(self) -> int:
        return len(self._heap) - self._gone + sum(not ringing.left for _, ringing in self._again)

    def now(self) -> float:
        """Now, or the beginning of the loop's present turn if that was just now: what is begun in one turn ends in one.

        No more than a millisecond ago: a turn may have taken long.
        """
        now, turn = self.clock.monotonic(), self._turn()
        return turn if now - _FIRST < turn < now else now - _FIRST if turn < now else now

    def add(self, moment: float, ringing: Ringing) -> None:
        """Ring at a moment of the clock, in seconds, and again whenever :meth:`Ringing.ring` says."""
        heappush(self._heap, (moment, next(self._numbers), ringing))
        if moment < self._due:
            self._set(moment)

    def replace(self, moment: float, ringing: Ringing) -> None:
        """Ring at another moment than before."""
        self._heap = [entry for entry in self._heap if entry[2] is not ringing]
        heapify(self._heap)
        self.add(moment, ringing)

    def leave(self) -> None:
        """One of those that were added has ``left`` before its moment."""
        self._gone = gone = self._gone + 1
        if gone > _FEW and gone * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if not entry[2].left]
            heapify(self._heap)
            self._gone = 0

    def tell(self, event: TaskSurvived) -> None:
        """A task outlives its deadline, or has ended after it was told of."""
        if self.report is not None:
            self.report(event)
            return
        state = "ended at last" if event.ended else "does not end"
        message = f"task {event.name!r} {state} {event.seconds:.1f} s after it was cancelled: {event.cause}"
        self.loop.call_exception_handler({"message": f"{message}\n{event.stack}" if event.stack else message})

    def _set(self, moment: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._due = moment
        self._timer = self.loop.call_later(
            max(0.0, moment - _EARLY - self.clock.monotonic()), self.ring, context=self._context
        )

    def ring(self) -> None:
        """Called by the loop; tests call it after moving a ManualClock."""
        now = self.clock.monotonic()
        if now - self._due > _STALL and self._patient:
            self._patient = False
            self._timer = self.loop.call_later(_READING, self.ring, context=self._context)
            return
        self._patient = True
        self._timer, self._due = None, NEVER
        # No more together than must be: who is rung together stays together, and the last of many is late.
        until = now + _EARLY
        if self._heap and until < self._heap[0][0] <= now + _FIRST:
            until = self._heap[0][0]
        again = self._again
        while again and (again[0][1].left or again[0][0] <= until):
            ringing = again.popleft()[1]
            if not ringing.left and (following := ringing.ring(now)) < NEVER:
                heappush(self._heap, (following, next(self._numbers), ringing))
        while self._heap and self._heap[0][0] <= until:
            ringing = heappop(self._heap)[2]
            if ringing.left:
                self._gone -= 1
            elif (following := ringing.ring(now)) == AGAIN:  # nearly always
                again.append((now + LADDER[0], ringing))
            elif following < NEVER:
                heappush(self._heap, (following, next(self._numbers), ringing))
        moment = self._heap[0][0] if self._heap else NEVER
        if again and again[0][0] < moment:
            moment = again[0][0]
        if moment < self._due:
            self._set(moment)


class _Thread(threading.local):
    """What a thread's event loop has."""

    alarms: Any = None


#: Not a registry: it forgets one loop's when another runs in the same thread; those that are set ring all the same.
_THREAD: Final = _Thread()


def alarms() -> Alarms:
    """Those of the running event loop.

    Raises:
        RuntimeError: No loop runs in this thread.
    """
    loop = asyncio.get_running_loop()
    found: Alarms | None = _THREAD.alarms
    if found is None or found.loop is not loop:
        found = _THREAD.alarms = Alarms(loop)
    return found
