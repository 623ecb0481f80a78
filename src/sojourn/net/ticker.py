"""The worker's clock hand: reads time once per tick, turns the wheel, knows when the loop stood still.

All deadlines are moments of :attr:`Ticker.now`, which is *served time*: it follows the monotonic clock, but not through
a stall. When the loop comes back late by more than a tick or two (a blocking call, a garbage collection, SIGSTOP, a
suspended laptop), served time has stood still as well. So every deadline is extended by the length of the stall, at no
cost, and whatever the peers sent meanwhile is read before any of them is judged.

When nothing is due for a while the hand dozes: the next tick comes when something is due, a second later at most. It
wakes when somebody reads the time. So an idle server looks at the clock once or twice a second, not ten times.
"""

from __future__ import annotations

import heapq
import threading
from asyncio import AbstractEventLoop, TimerHandle
from collections.abc import Callable
from contextvars import Context, copy_context
from email.utils import formatdate
from math import ceil
from typing import Any, Final

from sojourn.clock import Clock

__all__ = ["TICK", "Call", "Ticker"]

#: Seconds between two looks. No deadline passes early, and none is noticed more than three looks late, and as much more
#: as looks have lately been late.
TICK: Final = 0.1
#: In ticks: for so long at least it is remembered how late one was.
_REMEMBERED: Final = 300
#: In ticks: a longer time between two of them is a stall, less is ordinary load and counts.
_STALL: Final = 2.5
_REPORTED_STALL: Final = 1.0
#: Seconds without a tick at most: the Date header is never older.
_DOZE: Final = 1.0


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
        "_ahead",
        "_calls",
        "_context",
        "_date_second",
        "_earlier",
        "_forget",
        "_handle",
        "_last",
        "_late",
        "_loop",
        "_planned",
        "_recent",
        "_slack",
        "_stalled",
        "_thread",
        "_tick",
        "_turn",
        "clock",
        "date",
        "held",
        "lagged",
        "now",
    )

    def __init__(self, clock: Clock, stalled: Callable[[float], None] | None = None, *, tick: float = TICK) -> None:
        self.clock = clock
        self._tick = tick
        #: Seconds by which a tick may be late before that counts as a stall.
        self._slack = (_STALL - 1.0) * tick
        #: Seconds from the last tick to the next, as planned.
        self._planned = tick
        #: Served time, in seconds. Read freely; written here only.
        self.now: float = clock.monotonic()
        #: The Date header line with its CRLF (RFC 9110 section 6.6.1), at most a second old.
        self.date: bytes = b""
        self._last = self.now
        #: Whether the tick before this one was late.
        self._late = False
        #: How late ticks were that were not taken for a stall, at most, in seconds: in the span of ticks under way, and
        #: in the one before; and how many ticks are left of this one.
        self._recent = self._earlier = 0.0
        self._forget = _REMEMBERED
        #: Called with how late a tick came, in seconds; None when nobody asks.
        self.lagged: Callable[[float], None] | None = None
        self._date_second = -1
        self._calls: list[Call] = []
        self._turn: Callable[[float], None] | None = None
        self._ahead: Callable[[float], float] | None = None
        self._thread = 0
        self._stalled = stalled
        self._loop: AbstractEventLoop | None = None
        self._handle: TimerHandle | None = None
        #: In which it ticks: that of who has started it, and never that of who has woken it.
        self._context: Context | None = None
        #: What runs and is to be watched closely, such as requests: while there is any, the ticker does not doze.
        self.held = 0
        self._set_date()

    @property
    def expected(self) -> float:
        """When the next tick is to come, in seconds of the monotonic clock; for a thread that watches the loop."""
        return self._last + self._planned

    @property
    def lag(self) -> float:
        """How late ticks were lately, at most, in seconds; those that count as a stall left out."""
        return max(self._recent, self._earlier)

    @property
    def behind(self) -> float:
        """By how much :attr:`now` may have been behind when somebody set a deadline by it, in seconds.

        What is judged by a hand that is so much behind does not pass early.
        """
        return self._tick + self.lag

    def start(
        self,
        loop: AbstractEventLoop,
        turn: Callable[[float], None],
        ahead: Callable[[float], float] | None = None,
    ) -> None:
        """Tick.

        Args:
            loop: Where; it runs in the thread that calls.
            turn: Called at each tick with the time.
            ahead: Says until when ``turn`` has nothing to do, given how far to look; None: never doze.
        """
        self._loop = loop
        self._turn = turn
        self._ahead = ahead
        self._thread = threading.get_ident()
        self._context = copy_context()
        self._handle = loop.call_later(self._tick, self._ring, context=self._context)

    def stop(self) -> None:
        """Tick no more. Calls that are due later are forgotten."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        self._calls.clear()
        self._turn = None
        self.__class__ = Ticker

    def left(self, moment: float) -> float:
        """Seconds until a moment of served time, if nothing stalls until then; to the clock, not to the last tick."""
        return moment - self.now - (self.clock.monotonic() - self._last)

    def call_later(self, delay: float, callback: Callable[[], None]) -> Call:
        """Call a function after ``delay`` seconds of served time, and up to two ticks more; for rare things."""
        call = Call(self.now + self._tick + delay, callback)  # judged with the lag: never early
        heapq.heappush(self._calls, call)
        return call

    def call_together(self, interval: float, callback: Callable[[], None]) -> Call:
        """Call a function after about ``interval`` seconds, at a moment that others share; for what is done regularly.

        The moments are whole multiples of the interval, so that an idle server wakes once for all of them.
        """
        due = (ceil(self.now / interval + 0.5) * interval) + self._tick
        call = Call(due, callback)
        heapq.heappush(self._calls, call)
        return call

    def tick(self) -> None:
        """Read the clock and do what is due. Called by the loop; tests call it after moving a ManualClock."""
        self.__class__ = Ticker
        reading = self.clock.monotonic()
        elapsed = reading - self._last
        self._last = reading
        late = elapsed - self._planned
        self._planned = self._tick
        if late <= self._slack:
            self.now += elapsed
            self._late = False
            if late > self._recent:
                self._recent = late
        else:
            # Not even one tick is counted at first: uvloop runs timers before it reads sockets, so what the peers sent
            # during the stall is seen after this tick. A loop that is late every time must not stop time for good.
            if self._late:
                self.now += self._tick
            self._late = True
            if elapsed >= _REPORTED_STALL and self._stalled is not None:
                self._stalled(elapsed)
        if self.lagged is not None:
            self.lagged(late)
        self._forget -= 1
        if not self._forget:
            self._earlier, self._recent, self._forget = self._recent, 0.0, _REMEMBERED
        self._set_date()
        calls, over = self._calls, self.now - self.lag
        while calls and calls[0]._due <= over:
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
                self._planned = wait = self._quiet()
                self._handle = self._loop.call_later(wait, self._ring, context=self._context)
                if wait > self._tick:
                    self.__class__ = _Dozing

    def _quiet(self) -> float:
        """Seconds until the next tick is needed."""
        if self._ahead is None or self.held > 0:
            return self._tick
        now = self.now
        until = min(now + _DOZE, self._ahead(now + _DOZE))
        if self._calls:
            until = min(until, self._calls[0]._due + self.lag)
        # A little more than a tick is not worth it.
        return until - now if until - now >= 2.0 * self._tick else self._tick

    def _set_date(self) -> None:
        wall = self.clock.wall()
        if (second := int(wall)) != self._date_second:
            self._date_second = second
            self.date = b"date: %b\r\n" % formatdate(second, usegmt=True).encode("ascii")


#: The descriptor of the slot.
_NOW: Final[Any] = vars(Ticker)["now"]


class _Dozing(Ticker):
    """A ticker while it dozes: the same object, of this class. Whoever reads the time wakes it.

    Awake, ``now`` is a plain attribute; hot paths read it several times for each request, so it must cost nothing.
    """

    __slots__ = ()

    @property
    def now(self) -> float:  # type: ignore[override]
        """Served time, in seconds."""
        if threading.get_ident() != self._thread:
            return float(_NOW.__get__(self))
        self.__class__ = Ticker  # type: ignore[assignment]  # the same slots
        reading = self.clock.monotonic()
        elapsed = reading - self._last
        if elapsed - self._planned > self._slack or self._loop is None or self._handle is None:
            return self.now  # it stood still: the tick, which is overdue, deals with that
        # Nothing was due until the end of the doze, so all that has to be done is to set the hand.
        self._last = reading
        _NOW.__set__(self, _NOW.__get__(self) + elapsed)
        self._planned = self._tick
        self._handle.cancel()
        self._handle = self._loop.call_later(self._tick, self._ring, context=self._context)
        self._set_date()
        return self.now
