"""Whether something grows while the load does not: the second line behind leaks that have a name."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import Final, NamedTuple

__all__ = ["Growth", "Verdict", "slope_of", "trend_of"]

#: Samples of a window, of which the lowest counts, and windows that are judged together.
_SAMPLES: Final = 12
_WINDOWS: Final = 12
#: What a trend must exceed: by chance it does so in one of 740 judgements (one-sided).
_TREND: Final = 3.0
#: And the growth, as a share of the median, from window to window.
_SLOPE: Final = 0.01


class Verdict(NamedTuple):
    """Something has grown for two rows of windows, one after the other, and so has its share of each connection.

    Attributes:
        slope: Growth from window to window, as a share of what there is.
        before: The lowest value of the first window.
        now: The lowest value of the last.
    """

    slope: float
    before: float
    now: float


class Growth:
    """Watches one number beside the load it should depend on.

    The lowest of each window counts, because what is freed again is no leak. Both the number and its share of each
    connection must have a trend (Mann-Kendall) and a slope (Sen) in two rows of windows that don't overlap: a daily
    swing of the load fails the one or the other, and a cache that fills up the second row.

    Args:
        spare: Added to the load: what there is without any.
    """

    __slots__ = ("_ratio", "_ratios", "_spare", "_value", "_values", "_window", "samples")

    def __init__(self, spare: float = 1.0) -> None:
        self._spare = spare
        self._window = 0
        self._value = self._ratio = math.inf
        self._values: deque[float] = deque(maxlen=2 * _WINDOWS)
        self._ratios: deque[float] = deque(maxlen=2 * _WINDOWS)
        #: Samples taken so far.
        self.samples = 0

    def add(self, value: float, load: float) -> None:
        """A sample.

        Args:
            value: What may grow: bytes, tasks, descriptors.
            load: Open connections at that moment.
        """
        self.samples += 1
        self._window += 1
        self._value = min(self._value, value)
        self._ratio = min(self._ratio, value / (load + self._spare))
        if self._window == _SAMPLES:
            self._values.append(self._value)
            self._ratios.append(self._ratio)
            self._window, self._value, self._ratio = 0, math.inf, math.inf

    def verdict(self) -> Verdict | None:
        """What two full rows of windows say; None as long as there is no reason to worry."""
        if len(self._values) < 2 * _WINDOWS:
            return None
        values, ratios = list(self._values), list(self._ratios)
        rows = (values[:_WINDOWS], values[_WINDOWS:], ratios[:_WINDOWS], ratios[_WINDOWS:])
        if not all(trend_of(row) > _TREND and slope_of(row) > _SLOPE for row in rows):
            return None
        return Verdict(slope_of(values[_WINDOWS:]), values[0], values[-1])


def trend_of(values: Sequence[float]) -> float:
    """The z-score of a monotonic trend: Mann-Kendall, with the correction for continuity."""
    n = len(values)
    s = sum((later > sooner) - (later < sooner) for at, sooner in enumerate(values) for later in values[at + 1 :])
    if s == 0:
        return 0.0
    return (s - math.copysign(1.0, s)) / math.sqrt(n * (n - 1) * (2 * n + 5) / 18)


def slope_of(values: Sequence[float]) -> float:
    """The median slope between two of the values (Sen), as a share of their median; 0 when that is 0."""
    slopes = sorted((values[b] - values[a]) / (b - a) for a in range(len(values)) for b in range(a + 1, len(values)))
    middle = sorted(values)[len(values) // 2]
    return slopes[len(slopes) // 2] / middle if middle else 0.0
