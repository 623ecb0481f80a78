"""A bounded ring between the event loop and the one thread that formats and writes lines.

The loop appends a tuple and goes on. It takes no lock, makes no system call and never waits, except that the first
append after silence wakes the thread. The thread then looks once per interval while lines keep coming and sleeps
without a timer as soon as an interval brought none: an idle server has no wakeup from here.

The alarm is how an append knows that it must do more. It is the length above which the thread wants to be told::

    asleep             0        the first line wakes it
    between two looks  half     a burst wakes it before its interval is over
    at work            never

When the ring is full the *newest* line is dropped. A line once accepted is then never lost to a burst, what led to the
flood stays readable, and the gap is one stretch whose place is known: its length is reported right behind it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

__all__ = ["Destination", "Item", "Ring"]

_NEVER = 1 << 62
#: Lines formatted before the interpreter lock is given away: about a quarter of a millisecond of work.
_SLICE = 128
#: Seconds the lock is given away for; long enough that the event loop, if it waits, is the next to take it.
_YIELD = 0.0001
#: Bytes gathered for one destination before they are written.
_BATCH = 256 * 1024


class Destination(Protocol):
    """Where lines go. The ring counts ``dropped``; everything else happens in the writer thread and never raises."""

    dropped: int

    def render(self, when: float, payload: Any) -> bytes:
        """The finished line with its line feed; ``b""`` writes nothing."""

    def gap(self, when: float, dropped: int) -> bytes:
        """A line about what was dropped, up to that value of ``dropped``; ``b""`` when that is told already."""

    def write(self, data: bytes) -> None:
        """Write whole lines. May wait for the reader."""


#: A line to be: where it goes, its moment on the wall clock, what it tells.
Item = tuple[Destination, float, Any]


class Ring:
    """Holds lines until the writer thread has written them.

    ``append`` is for the event loop's thread; ``urgent`` and ``order`` are for any thread.

    Args:
        capacity: Lines held for ``append``. A line waits here for about an interval, so this is a stall of the reader
            that is survived without a loss: 0.8 s at 20 000 lines per second.
        reserve: Further places that only ``urgent`` may take: a flood of requests can't hide the error that explains
            it.
        interval: Seconds between two looks of the thread while lines keep coming.

    Attributes:
        dropped: Lines dropped because the ring was full or closed.
        wakeups: How often the thread looked.
    """

    __slots__ = (
        "_alarm", "_capacity", "_closing", "_doze", "_half", "_interval", "_lossy", "_queue", "_reserve", "_stuck",
        "_thread", "_wake", "_when", "dropped", "wakeups",
    )  # fmt: skip

    def __init__(self, capacity: int = 16_384, *, reserve: int = 1024, interval: float = 0.05) -> None:
        self._queue: deque[Item | Callable[[], None]] = deque()
        self._capacity = capacity
        self._half = capacity // 2
        self._reserve = reserve
        self._interval = interval
        self._alarm = _NEVER
        self._wake = threading.Event()
        self._doze = threading.Lock()
        self._doze.acquire()
        self._closing = False
        self._stuck = False
        self.dropped = 0
        self.wakeups = 0
        self._lossy: set[Destination] = set()
        self._when = 0.0
        self._thread = threading.Thread(target=self._run, name="sojourn-log", daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        """Lines that wait."""
        return len(self._queue)

    def append(self, item: Item) -> None:
        """Take a line, or drop it when the ring is full."""
        queue = self._queue
        if len(queue) >= self._capacity:
            self._drop(item)
            return
        queue.append(item)
        if len(queue) > self._alarm:
            self._rouse()

    def urgent(self, item: Item) -> None:
        """Take a line that may use the reserve."""
        if len(self._queue) >= self._capacity + self._reserve:
            self._drop(item)
            return
        self._queue.append(item)
        if len(self._queue) > self._alarm:
            self._rouse()

    def order(self, action: Callable[[], None]) -> None:
        """Run ``action`` in the writer thread once every line taken before is written; at once when that has ended.

        It needs no place in the ring.
        """
        if self._thread.is_alive():
            self._queue.append(action)
            self._rouse()
        else:
            action()

    def flush(self, timeout: float = 2.0) -> bool:
        """Wait until every line taken before is written.

        Args:
            timeout: Seconds after which to give up, because the reader may be stuck. Once that happened, later calls
                don't wait again until the thread got on.

        Returns:
            Whether all of them were handed on.
        """
        if not self._thread.is_alive():
            return not self._queue
        done = threading.Event()
        self.order(done.set)
        self._stuck = not done.wait(0 if self._stuck else timeout)
        return not self._stuck

    def close(self, timeout: float = 2.0) -> int:
        """Write what waits and end the thread; lines that come later are dropped. Calling it twice does nothing more.

        Args:
            timeout: Seconds after which a thread that is stuck in a write is left behind; it can't hold up the exit.

        Returns:
            Lines that were not written in time.
        """
        self._closing = True
        self._capacity = self._reserve = 0
        self._wake.set()
        self._thread.join(0 if self._stuck else timeout)
        self._stuck = self._thread.is_alive()
        return len(self._queue)

    def _drop(self, item: Item) -> None:
        self.dropped += 1
        item[0].dropped += 1
        self._lossy.add(item[0])

    def _rouse(self) -> None:
        self._alarm = _NEVER
        self._wake.set()

    def _run(self) -> None:
        wake = self._wake
        while True:
            worked = self._work()
            if self._closing and not self._queue:
                return
            if worked:
                self._alarm = self._half
                wake.wait(self._interval)
            else:
                # Announce the sleep, then look again: a line that came in between saw the old alarm and woke nobody.
                self._alarm = 0
                if not self._queue:
                    wake.wait()
            wake.clear()
            self._alarm = _NEVER

    def _work(self) -> bool:
        """Write what waits now, and then what was dropped until now: all of it had found the ring full of these lines.

        Returns:
            Whether there was anything.
        """
        self.wakeups += 1
        queue = self._queue
        count = len(queue)
        marks = [(destination, destination.dropped) for destination in list(self._lossy)]
        batches: dict[Destination, bytearray] = {}
        take = queue.popleft
        for start in range(0, count, _SLICE):
            if start:
                self._doze.acquire(timeout=_YIELD)
            for _ in range(min(_SLICE, count - start)):
                item = take()
                if type(item) is not tuple:
                    self._settle(batches, marks)
                    item()  # type: ignore[operator]  # mypy does not narrow by `type() is not`
                    continue
                destination, when, payload = item
                self._when = when
                batch = batches.get(destination)
                if batch is None:
                    batch = batches[destination] = bytearray()
                batch += destination.render(when, payload)
                if len(batch) >= _BATCH:
                    destination.write(bytes(batch))
                    batch.clear()
        told = self._settle(batches, marks)
        self._stuck = False
        return count > 0 or told

    def _settle(self, batches: dict[Destination, bytearray], marks: list[tuple[Destination, int]]) -> bool:
        """Write the batches, each with its gap behind it; True when that was anything."""
        for destination, dropped in marks:
            if gap := destination.gap(self._when, dropped):
                batches.setdefault(destination, bytearray()).extend(gap)
        written = False
        for destination, batch in batches.items():
            if batch:
                destination.write(bytes(batch))
                written = True
        batches.clear()
        return written
