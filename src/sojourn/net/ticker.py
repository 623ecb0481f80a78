"""The worker's clock hand: reads time once per tick, turns the wheel, knows when the loop stood still.

All deadlines are moments of :attr:`Ticker.now`, which is *served time*: it follows the monotonic clock, but not through
a stall. When the loop comes back late by more than a tick or two (a blocking call, a garbage collection, SIGSTOP, a
suspended laptop), served time has stood still as well. So every deadline is extended by the length of the stall, at no
cost, and whatever the peers sent meanwhile is read before any of them is judged.
"""

from __future__ import annotations

import heapq
from asyncio import AbstractEventLoop, TimerHandle
from collections.abc import Callable
from email.utils import formatdate
from typing import Final

from sojourn.clock import Clock

__all__ = ["TICK", "Call", "Ticker"]

#: Seconds between two looks. No deadline passes early, and none is noticed more than three looks late.
TICK: Final = 0.1
#: In ticks: a longer time between two of them is a stall, less is ordinary load and counts.
_STALL: Final = 2.5
_REPORTED_STALL: Final = 1.0


class Call:
    """A function called once at or after a moment. Cheap to cancel."""

    __slots__ = ("_due", "callback")

    def __init__(self, due: float, callback: Callable[[], None]) -> None:
        self._due = due
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """Do not call; nothing happens when it was called already."""
        self.callback = None

    def __lt__(self, other: Call) -> bool:
        return self._due < other._due


class Ticker:
    """One per worker.

    Args:
        clock: Where time comes from.
        stalled: Called with the length of a stall of a second or more, in seconds.
        tick: Seconds between two looks.
    """

    __slots__ = (
        "_calls",
        "_date_second",
        "_handle",
        "_last",
        "_late",
        "_loop",
        "_stall",
        "_stalled",
        "_tick",
        "_turn",
        "clock",
        "date",
        "now",
    )

    def __init__(self, clock: Clock, stalled: Callable[[float], None] | None = None, *, tick: float = TICK) -> None:
        self.clock = clock
        self._tick = tick
        self._stall = _STALL * tick
        #: Served time, in seconds. Read freely; written here only.
        self.now: float = clock.monotonic()
        #: The Date header line with its CRLF (RFC 9110 section 6.6.1), at most a tick old.
        self.date: bytes = b""
        self._last = self.now
        #: Whether the tick before this one was late.
        self._late = False
        self._date_second = -1
        self._calls: list[Call] = []
        self._turn: Callable[[float], None] | None = None
        self._stalled = stalled
        self._loop: AbstractEventLoop | None = None
        self._handle: TimerHandle | None = None
        self._set_date()

    def start(self, loop: AbstractEventLoop, turn: Callable[[float], None]) -> None:
        """Tick on ``loop``; ``turn(now)`` is called at each tick."""
        self._loop = loop
        self._turn = turn
        self._handle = loop.call_later(self._tick, self._ring)

    def stop(self) -> None:
        """Tick no more. Calls that are due later are forgotten."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        self._calls.clear()
        self._turn = None

    def call_later(self, delay: float, callback: Callable[[], None]) -> Call:
        """Call a function after ``delay`` seconds of served time, and up to two ticks more; for rare things."""
        call = Call(self.now + self._tick + delay, callback)  # the hand is up to a tick behind: never early
        heapq.heappush(self._calls, call)
        return call

    def tick(self) -> None:
        """Read the clock and do what is due. Called by the loop; tests call it after moving a ManualClock."""
        reading = self.clock.monotonic()
        elapsed = reading - self._last
        self._last = reading
        if elapsed <= self._stall:
            self.now += elapsed
            self._late = False
        else:
            # Not even one tick is counted at first: uvloop runs timers before it reads sockets, so what the peers sent
            # during the stall is seen after this tick. A loop that is late every time must not stop time for good.
            if self._late:
                self.now += self._tick
            self._late = True
            if elapsed >= _REPORTED_STALL and self._stalled is not None:
                self._stalled(elapsed)
        self._set_date()
        calls = self._calls
        while calls and calls[0]._due <= self.now:
            callback = heapq.heappop(calls).callback
            if callback is not None:
                try:
                    callback()
                except Exception as error:  # noqa: BLE001 - one caller's bug must not take the others' time away
                    self._report(error)
        if self._turn is not None:
            self._turn(self.now)

    def _report(self, error: Exception) -> None:
        if self._loop is None:
            raise error
        self._loop.call_exception_handler({"message": "a function called by the ticker raised", "exception": error})

    def _ring(self) -> None:
        try:
            self.tick()
        finally:
            # Re-armed even if a callback raised: without the next tick no wait would have a deadline any more.
            if self._loop is not None and self._handle is not None:
                self._handle = self._loop.call_later(self._tick, self._ring)

    def _set_date(self) -> None:
        wall = self.clock.wall()
        if (second := int(wall)) != self._date_second:
            self._date_second = second
            self.date = b"date: %b\r\n" % formatdate(second, usegmt=True).encode("ascii")
