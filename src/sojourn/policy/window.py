"""How the calls of the last seconds went, in a memory that does not grow with their number."""

from __future__ import annotations

__all__ = ["Window"]


class Window:
    """Counts calls over a time that slides: a ring of buckets, of which the oldest is emptied as time goes on.

    So the numbers are of the last ``seconds``, to one bucket: between ``seconds * (1 - 1 / buckets)`` and ``seconds``.

    Args:
        seconds: How far it looks back; above zero.
        buckets: Parts it is made of; at least two.

    Attributes:
        calls: Calls that ended in the window.
        failures: Those that failed.
        slow: Those that took long, failed ones included.
    """

    __slots__ = ("_bucket", "_buckets", "_end", "_number", "_width", "calls", "failures", "slow")

    def __init__(self, seconds: float, buckets: int) -> None:
        if not seconds > 0 or buckets < 2:
            raise ValueError(f"a window of {seconds!r} s in {buckets!r} buckets: above zero, and two or more")
        self._width = seconds / buckets
        #: Of each bucket: calls, failures, slow ones.
        self._buckets = [[0, 0, 0] for _ in range(buckets)]
        #: The how-manieth bucket since the zero of the clock is filled now, which it is, and until when.
        self._number = 0
        self._bucket = self._buckets[0]
        self._end = self._width
        self.calls = self.failures = self.slow = 0

    def add(self, now: float, failed: bool, slow: bool) -> None:
        """A call has ended at ``now``, in seconds."""
        if now >= self._end:
            self.turn(now)
        bucket = self._bucket
        bucket[0] += 1
        self.calls += 1
        if failed:
            bucket[1] += 1
            self.failures += 1
        if slow:
            bucket[2] += 1
            self.slow += 1

    def turn(self, now: float) -> None:
        """Forget what is older than the window at ``now``."""
        number, buckets = int(now / self._width), self._buckets
        if number <= self._number:
            return
        if number - self._number >= len(buckets):
            self.clear()
        else:
            for passed in range(self._number + 1, number + 1):
                bucket = buckets[passed % len(buckets)]
                self.calls -= bucket[0]
                self.failures -= bucket[1]
                self.slow -= bucket[2]
                bucket[:] = 0, 0, 0
        self._number = number
        self._bucket = buckets[number % len(buckets)]
        self._end = (number + 1) * self._width

    def __str__(self) -> str:
        seconds = self._width * len(self._buckets)
        return f"of {self.calls} calls in {seconds:g} s {self.failures} failed and {self.slow} were slow"

    def clear(self) -> None:
        """Forget everything."""
        for bucket in self._buckets:
            bucket[:] = 0, 0, 0
        self.calls = self.failures = self.slow = 0
