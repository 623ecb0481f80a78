"""The process in numbers: memory, processor time, file descriptors, and the pauses of the garbage collector."""

from __future__ import annotations

import gc
import os
from bisect import bisect_left
from collections.abc import Callable
from itertools import islice
from typing import Any, Final

from sojourn.observe.metrics.families import PREFIX, TABLE
from sojourn.observe.metrics.meter import Meter

__all__ = ["Collections", "Descriptors"]

_PAUSE: Final = TABLE[PREFIX + "gc_pause_seconds"].buckets
_NAMES: Final = ("gc_pause_seconds", "gc_collected_total", "gc_uncollectable_total")
#: Directory entries read in one go: under a millisecond.
_ENTRIES: Final = 500


class Descriptors:
    """Counts open file descriptors, in slices where the kernel does not say how many there are.

    Args:
        path: Where the kernel lists them.
        ask: Whether it may be asked for the number alone.
    """

    def __init__(self, path: str = "/proc/self/fd", *, ask: bool = True) -> None:
        self._path = path
        self._ask = ask
        self._entries: Any = None  # an iterator of os.scandir
        self._count = 0

    def count(self) -> int | None:
        """How many there are; None when it was not all of them yet: ask again soon.

        Raises:
            OSError: The system does not list them.
        """
        if self._entries is None:
            known = os.stat(self._path).st_size if self._ask else 0
            if known:  # since Linux 6.2; 0 before
                return known
            self._entries, self._count = os.scandir(self._path), -1  # the one that reads is not counted
        found = sum(1 for _ in islice(self._entries, _ENTRIES))
        self._count += found
        if found == _ENTRIES:
            return None
        self.close()
        return self._count

    def close(self) -> None:
        """Give a count up that is not complete."""
        entries, self._entries = self._entries, None
        if entries is not None:
            entries.close()


class Collections:
    """Measures the pauses of the garbage collector.

    Args:
        meter: Where they are counted.
        monotonic: Reads the clock.
    """

    def __init__(self, meter: Meter, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._began = 0.0
        self._process = os.getpid()
        self._values = meter.values
        self._places = [
            tuple(meter.place(name, str(generation)) for name in _NAMES) for generation in range(len(gc.get_count()))
        ]
        gc.callbacks.append(self._collected)

    def close(self) -> None:
        """Measure no more; calling it twice does nothing."""
        if self._collected in gc.callbacks:
            gc.callbacks.remove(self._collected)

    def _collected(self, phase: str, info: dict[str, int]) -> None:
        # Collections do not nest, so no two threads count at the same time. A forked child counts for nobody.
        if phase == "start":
            self._began = self._monotonic()
        elif self._began and os.getpid() == self._process:
            seconds, self._began = self._monotonic() - self._began, 0.0
            pause, collected, uncollectable = self._places[info["generation"]]
            values = self._values
            values[pause + bisect_left(_PAUSE, seconds)] += 1.0
            values[pause + len(_PAUSE) + 1] += seconds
            values[collected] += info["collected"]
            values[uncollectable] += info["uncollectable"]
