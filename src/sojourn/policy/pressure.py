"""What a server does when it gets too much: one measure after the other, each taken back when there is less.

    level   measure                                   against too little of
      1     idle connections are kept for less long   space
      2     no connection is kept after its answer    space
      3     no new streams and WebSockets             space, processor
      4     low priority is sent away                 space, processor
      5     the slowest readers are closed            space

*Space* is memory, bytes that wait for slow readers, and file descriptors; *processor* is the event loop, that comes
late, and the line of requests, that stands. Closing connections helps against the one and makes the other worse: a
client that has to connect again costs more than one that asks again. So each has a ladder of its own.

A ladder goes up by one level for each second in which its signal is above what is allowed, and down by one after five
in which it was clearly below: slower down than up, with a gap between, so that it does not swing.

Source: the overload manager of Envoy, for the actions; DAGOR (Zhou and others, SoCC 2018), for the wait as the signal.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Final

__all__ = ["MEASURES", "Ladder", "Measure"]


class Measure(Enum):
    """What is done."""

    SHORT_IDLE = "short_idle"
    NO_KEEP_ALIVE = "no_keep_alive"
    NO_STREAMS = "no_streams"
    SHED_LOW = "shed_low"
    CLOSE_SLOWEST = "close_slowest"


#: What is done against too little of something, and from which level on.
MEASURES: Final[Mapping[str, Mapping[Measure, int]]] = {
    "space": {measure: level for level, measure in enumerate(Measure, 1)},
    "processor": {Measure.NO_STREAMS: 3, Measure.SHED_LOW: 4},
}

#: Seconds above before the next measure, and clearly below before one is taken back.
_RISE: Final = 1.0
_FALL: Final = 5.0
#: Share of what is allowed that is clearly below.
_CALM: Final = 0.8


class Ladder:
    """The level for one cause.

    Args:
        cause: A key of :data:`MEASURES`.

    Attributes:
        cause: The same.
        level: 0 to that of the last measure; 0 is no pressure.
        why: The signal that raised it last; "" on level 0.
    """

    __slots__ = ("_above", "_below", "_highest", "_looked", "cause", "level", "why")

    def __init__(self, cause: str) -> None:
        self.cause = cause
        self.level = 0
        self._highest = max(MEASURES[cause].values())
        self.why = ""
        self._looked: float | None = None
        #: Seconds for which the signal has been above, and for which it has been clearly below.
        self._above = self._below = 0.0

    @property
    def measures(self) -> frozenset[Measure]:
        """What is done now."""
        return frozenset(measure for measure, level in MEASURES[self.cause].items() if level <= self.level)

    def look(self, now: float, signals: Mapping[str, float]) -> bool:
        """Judge anew.

        Args:
            now: Monotonic seconds.
            signals: How much there is of each, as a share of what is allowed: 1.0 is all of it.

        Returns:
            Whether the level has changed.
        """
        passed, self._looked = now - (now if self._looked is None else self._looked), now
        why = max(signals, key=lambda name: signals[name], default="")
        most = signals.get(why, 0.0)
        self._above = self._above + passed if most >= 1.0 else 0.0
        self._below = self._below + passed if most < _CALM else 0.0
        if self._above >= _RISE and self.level < self._highest:
            self._above = 0.0
            self.level += 1
            self.why = why
            return True
        if self._below >= _FALL and self.level:
            self._below = 0.0
            self.level -= 1
            self.why = self.why if self.level else ""
            return True
        return False
