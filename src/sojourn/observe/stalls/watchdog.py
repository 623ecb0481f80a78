"""A thread that looks at the event loop when it stands still, and names the function that keeps it.

The loop does nothing for it: its ticker rings anyway, and leaves a note of the moment. The thread wakes up three times
a second, and sleeps on until a tick is overdue by ``patience``. When one is, it takes the stack of the loop's thread,
again after twice the time, four times, and so on. When the loop goes on, the tick that came late has the processor time
and the collections at both ends, and :mod:`sojourn.policy.stall` judges.

A function that keeps the interpreter keeps the watchdog out as well. It is seen all the same: the interpreter goes to
the watchdog, which waits for it, before the function's caller runs its next line.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from types import CodeType
from typing import Any, Final, NamedTuple

from sojourn.clock import Clock
from sojourn.net import ticker as ticking
from sojourn.net.ticker import TICK, Ticker
from sojourn.observe.stalls.limit import HardLimit
from sojourn.observe.stalls.stack import Spot, depth_of, guilty, spots, text, without_callbacks
from sojourn.observe.stalls.threads import processor_times, waits_so_far
from sojourn.policy.stall import LATE, Facts, cause_of

__all__ = ["Stall", "Watchdog"]

#: Looks at one stall: the last is at 512 times the patience.
_LOOKS: Final = 10
#: Seconds for the thread to end.
_JOIN: Final = 1.0


class Stall(NamedTuple):
    """A stall that is over.

    Attributes:
        seconds: How late the loop was.
        cause: One of :data:`sojourn.policy.stall.CAUSES`.
        stack: Where the thread was seen that is to blame, innermost first; empty when it was not seen.
        blamed: Which place of the stack is to blame; None when none is.
        thread: Name of the thread when it is not the event loop's; "" when it is.
        processor: Seconds of processor time that the loop's thread used.
        collector: Seconds in the garbage collector.
        text: The stack as Python prints it, innermost call last; or, when nobody is to blame, what faulthandler wrote
            of all threads in the middle of it; "" when there is neither.
    """

    seconds: float
    cause: str
    stack: tuple[Spot, ...]
    blamed: int | None
    thread: str
    processor: float
    collector: float
    text: str


class _Beat(NamedTuple):
    """What a tick leaves: moment, processor time of the loop's thread and of the process, time in the collector."""

    moment: float
    processor: float
    process: float
    collector: float


class _Over(NamedTuple):
    """The loop goes on: the ticks before and after, when the second should have come, and how late it was."""

    before: _Beat
    after: _Beat
    expected: float
    seconds: float


class _Wake(NamedTuple):
    """The watchdog woke.

    Attributes:
        target: When it wanted to.
        moment: When it did.
        waits: How often it gave the processor away meanwhile; None where nobody counts.
    """

    target: float
    moment: float
    waits: int | None


class _Sight(NamedTuple):
    """What one look at a stall has seen.

    Attributes:
        moment: When.
        own: The stack of the loop's thread.
        others: When that ran nothing: the stacks of all other threads.
        used: Then also the processor time of each, in seconds.
        names: And its name, of this moment: the number of a thread that ends is given to the next that starts.
    """

    moment: float
    own: tuple[Spot, ...]
    others: dict[int, tuple[Spot, ...]]
    used: dict[int, float]
    names: dict[int, str]


class Watchdog:
    """Watches the event loop of the thread that makes it. Made on the loop.

    Args:
        loop: The loop.
        ticker: Its ticker.
        patience: Seconds that a tick may be late.
        stalled: Called on the loop, when it goes on, with each stall.
        clock: Measures time; the ticker's.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        ticker: Ticker,
        patience: float,
        stalled: Callable[[Stall], None],
        clock: Clock,
    ) -> None:
        self._loop = loop
        self._ticker = ticker
        self._patience = patience
        self._stalled = stalled
        self._monotonic = clock.monotonic
        self._ident = threading.get_ident()
        #: So many of the outermost frames of the thread run the loop; None until a tick has counted them.
        self._base: int | None = None
        self._collector = self._collecting = 0.0
        self._beat = self._now_beat()
        self._over: _Over | None = None
        #: Held, unless the loop has something to say: the thread's sleep is the wait for it.
        self._bell = threading.Lock()
        self._bell.acquire()
        self._closed = False
        self._limit: HardLimit | None = None
        self._before = ticker.lagged
        self._hook = self._ticked  # one object, so that it can be recognised
        ticker.lagged = self._hook
        gc.callbacks.append(self._collected)
        self._thread = threading.Thread(target=self._watch, name="sojourn-watchdog", daemon=True)
        self._thread.start()

    def limit(self, limit: HardLimit) -> None:
        """Have all stacks written by a thread that needs no interpreter when a stall lasts for very long."""
        if self._closed:
            limit.close()
        else:
            self._limit = limit

    def close(self) -> None:
        """End the thread, and undo the hooks. Calling it twice does nothing."""
        if self._closed:
            return
        self._closed = True
        if self._ticker.lagged is self._hook:
            self._ticker.lagged = self._before
        gc.callbacks.remove(self._collected)
        self._ring()
        self._thread.join(_JOIN)  # it waits for nothing but the bell
        if self._limit is not None:
            self._limit.close()

    # -- On the loop

    def _now_beat(self) -> _Beat:
        return _Beat(self._monotonic(), time.thread_time(), time.process_time(), self._collector)

    def _ticked(self, late: float) -> None:
        """A tick came, so many seconds late. A microsecond, ten times a second."""
        if self._before is not None:
            self._before(late)
        if self._closed:
            return  # somebody else has chained this hook
        if self._base is None:
            self._base = _depth_of_loop()
        before, self._beat = self._beat, self._now_beat()
        if late >= self._patience:
            self._over = _Over(before, self._beat, self._beat.moment - late, late)
            self._ring()

    def _ring(self) -> None:
        if self._bell.locked():
            self._bell.release()

    def _collected(self, phase: str, info: dict[str, Any]) -> None:
        # In whichever thread it happens: all others wait.
        if phase == "start":
            self._collecting = self._monotonic()
        elif self._collecting:
            self._collector += self._monotonic() - self._collecting
            self._collecting = 0.0

    # -- On the thread

    def _watch(self) -> None:
        own = threading.get_ident()
        used, waits, late = processor_times(), waits_so_far(), 0.0
        while not self._closed:
            expected = self._ticker.expected
            due = expected + self._patience
            # After a wake-up that came late the wait began before: in a stall that had begun after the tick before.
            if late < LATE:
                used, waits = processor_times(), waits_so_far()
            start = self._monotonic()
            if self._limit is not None and start < due:
                self._limit.arm(start)
            # A ticker that dozes expects its next tick late, and an earlier one when a request wakes it.
            target = min(due, start + TICK + self._patience)
            rung = self._bell.acquire(timeout=max(0.0, target - start))
            moment, waited = self._monotonic(), waits_so_far()
            late = moment - target
            sights: list[_Sight] = []
            if not rung and self._over is None and moment >= due and self._ticker.expected == expected:
                sights.append(self._look(own))
                self._look_on(sights, due, own)
            over, self._over = self._over, None
            if over is not None and not self._closed:
                count = None if waits is None or waited is None else waited - waits
                self._tell(over, _Wake(target, moment, count), sights, used)

    def _look_on(self, sights: list[_Sight], due: float, own: int) -> None:
        """Until the loop goes on."""
        patience = self._patience
        while not self._closed and self._over is None:
            patience *= 2
            if len(sights) < _LOOKS:
                left = due + patience - self._patience - self._monotonic()
                rung = self._bell.acquire(timeout=max(0.0, left))
            else:
                rung = self._bell.acquire()
            if not rung:
                sights.append(self._look(own))

    def _look(self, own: int) -> _Sight:
        current = sys._current_frames()
        stack = without_callbacks(spots(current.get(self._ident), self._base or 0))
        if guilty(stack) is not None:
            return _Sight(self._monotonic(), stack, {}, {}, {})
        names = {thread.ident: thread.name for thread in threading.enumerate() if thread.ident is not None}
        others = {ident: spots(frame) for ident, frame in current.items() if ident not in (own, self._ident)}
        return _Sight(self._monotonic(), stack, others, processor_times(), names)

    def _tell(self, over: _Over, wake: _Wake, sights: list[_Sight], used: dict[int, float]) -> None:
        before, after, expected, seconds = over
        processor = after.processor - before.processor
        collector = after.collector - before.collector
        seen = [sight.own for sight in sights]
        # From here on the watchdog should have been awake.
        due = max(wake.target, expected + self._patience)
        facts = Facts(
            seconds=seconds,
            watched=max(0.0, after.moment - due),
            late=max(0.0, wake.moment - due),
            waits=wake.waits,
            processor=processor,
            process=after.process - before.process,
            collector=collector,
            idle=bool(seen) and self._base is not None and all(guilty(stack) is None for stack in seen),
        )
        cause, thread = cause_of(facts), ""
        # What was seen as a stopped process went on is not what stopped it.
        stack = _usual(sights, expected) if cause != "machine" else ()
        index = guilty(stack)
        dump = self._limit.read() if self._limit is not None else ""
        if index is None and cause != "machine" and processor < 0.5 * seconds:
            # The loop's thread could not get the interpreter. Who had it?
            thread, stack = _busiest(sights, used)
            index = guilty(stack)
        # Here, not on the loop: source files are read for it.
        told = "" if cause == "machine" else text(stack) if stack and (index is not None or not dump) else dump
        stall = Stall(seconds, cause, stack, index, thread, processor, collector, told)
        try:
            self._loop.call_soon_threadsafe(self._stalled, stall)
        except RuntimeError:
            pass  # the loop is closed: nobody is there to hear of it


def _depth_of_loop() -> int:
    """How many frames run the loop, below the ticker that a timer of the loop has called."""
    frame = sys._getframe()
    below = frame.f_back
    found = 0
    while below is not None:
        if frame.f_code.co_filename == ticking.__file__ != below.f_code.co_filename:
            found = depth_of(below)
        frame, below = below, below.f_back
    return found


def _usual(sights: list[_Sight], begun: float) -> tuple[Spot, ...]:
    """The stack with the function, and in it the line, that was seen for longest.

    A look stands for the time since the one before: who keeps the interpreter makes it late, and is seen at last.
    """
    functions: defaultdict[CodeType, float] = defaultdict(float)
    lines: defaultdict[tuple[CodeType, int], float] = defaultdict(float)
    stacks: dict[tuple[CodeType, int], tuple[Spot, ...]] = {}
    for sight in sights:
        if (index := guilty(sight.own)) is not None:
            place = sight.own[index].code, sight.own[index].line
            functions[place[0]] += sight.moment - begun
            lines[place] += sight.moment - begun
            stacks.setdefault(place, sight.own)
        begun = sight.moment
    if not stacks:
        return sights[0].own if sights else ()
    code = max(functions, key=functions.__getitem__)
    return stacks[max((place for place in stacks if place[0] is code), key=lines.__getitem__)]


def _busiest(sights: list[_Sight], used: dict[int, float]) -> tuple[str, tuple[Spot, ...]]:
    """Name and stack of the other thread that used most of the processor; "" and nothing when none used any."""
    most = 0.0
    found: tuple[str, tuple[Spot, ...]] = ("", ())
    for sight in sights:
        for ident, stack in sight.others.items():
            spent = sight.used.get(ident, 0.0) - used.get(ident, 0.0)
            if spent > most and guilty(stack) is not None:
                most, found = spent, (sight.names.get(ident, "that has ended"), stack)
    return found
