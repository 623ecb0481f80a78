"""How many requests may run at once, found by trying: what the event loop can take is not in any configuration.

The measure is how long something that is ready waits until the event loop runs it. A handler that computes makes
others wait, one that waits for a database does not, however long it takes and however many there are. So the limit
falls when the wait is above its target (down to what really ran, in proportion, at most by half), and rises when it is
below and the limit was in somebody's way: by half of itself while the wait is far below the target, else by one.

Answers are not timed: how long a request takes says nothing about whether one more would hurt. The median of an
interval counts, so that one blocking call, one collection or one busy neighbour changes nothing.
"""

from __future__ import annotations

from statistics import median
from typing import Final

__all__ = ["AdaptiveLimit"]

#: Waits that have to be known before they mean anything, and that are kept of one interval at most.
_FEW: Final = 3
_MOST: Final = 256
#: The limit falls by a tenth at least, and by half at most.
_GENTLE: Final = 0.9
_HARD: Final = 0.5


class AdaptiveLimit:
    """A limit on concurrency by additive and multiplicative increase, and decrease by gradient.

    Args:
        target: Wait for the event loop, in seconds, at which the limit falls.
        minimum: The limit does not fall below.
        maximum: Nor rise above; where it begins.
        interval: Seconds of which the waits are judged together.

    Attributes:
        limit: Requests that may run at once.
        wait: Median wait in the last interval that was judged.
    """

    __slots__ = ("_interval", "_peak", "_since", "_waits", "limit", "maximum", "minimum", "target", "wait")

    def __init__(self, target: float, *, minimum: int = 1, maximum: int = 10_000, interval: float = 0.1) -> None:
        self.target = target
        self.minimum = minimum
        self.maximum = max(minimum, maximum)
        self._interval = interval
        self.limit = self.maximum
        self.wait = 0.0
        self._since: float | None = None
        self._waits: list[float] = []
        self._peak = 0

    def sample(self, now: float, wait: float, running: int) -> bool:
        """Something has waited for the event loop.

        Args:
            now: Monotonic seconds.
            wait: How long, in seconds.
            running: Requests that run now.

        Returns:
            Whether the limit has changed.
        """
        if self._since is None:
            self._since = now
        if len(self._waits) < _MOST:
            self._waits.append(wait)
        if running > self._peak:
            self._peak = running
        if now - self._since < self._interval or len(self._waits) < _FEW:
            return False
        before, self.limit = self.limit, self._judged()
        self._since = now
        self._waits.clear()
        self._peak = 0
        return self.limit != before

    def bound(self, maximum: int) -> None:
        """The limit may rise up to here from now on; one that stood at the old maximum stands at the new one."""
        stood = self.limit == self.maximum
        self.maximum = max(self.minimum, maximum)
        self.limit = self.maximum if stood else min(self.limit, self.maximum)

    def _judged(self) -> int:
        self.wait = wait = median(self._waits)
        limit = self.limit
        if wait > self.target:
            factor = max(_HARD, min(_GENTLE, self.target / wait))
            return max(self.minimum, int(min(limit, self._peak) * factor))
        if 2 * self._peak < limit:
            return limit  # it is in nobody's way: there is no reason to believe in a higher one
        return min(self.maximum, limit + (limit // 2 or 1) if wait < self.target / 2 else limit + 1)
