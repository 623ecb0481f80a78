"""Counts endings by minute. No clock and no loop: the moment is an argument."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from typing import Final, NamedTuple

from sojourn.ending import Phase
from sojourn.events import ConnectionEnded

__all__ = ["AGES", "MINUTES", "Kind", "Tally"]

#: Minutes that are kept.
MINUTES: Final = 60


def _ages() -> tuple[float, ...]:
    """Whole seconds up to a minute, then steps of about 5 % to two hours; the classes of the report are among them."""
    ages = [float(age) for age in range(61)]
    while ages[-1] < 7200:
        ages.append(float(round(ages[-1] * 1.05)))
    return tuple(sorted({*ages, 120.0, 300.0, 900.0, 3600.0}))


#: Idle ages in seconds; an age counts under the greatest of these that it has reached.
AGES: Final = _ages()
#: The server's time moves in ticks of a tenth of a second, so an age of 60 s may be seen as a little less.
_SLACK: Final = 0.2
_PHASES: Final = {id(phase): phase.name.lower() for phase in Phase}


class Kind(NamedTuple):
    """What is counted together.

    Attributes:
        protocol: ``http``, ``websocket``, or "" when no request came.
        reason: Its reason word.
        phase: Where the connection was, as in the log.
        age: Seconds since the last byte either way, one of :data:`AGES`.
    """

    protocol: str
    reason: str
    phase: str
    age: float


class Tally:
    """Endings of the last hour.

    Args:
        now: The moment, in seconds since 1970.
    """

    __slots__ = ("_counts", "_minutes", "_turn", "since")

    def __init__(self, now: float) -> None:
        #: When counting began.
        self.since = now
        self._minutes: deque[tuple[int, dict[tuple[str, str, int, int], int]]] = deque(maxlen=MINUTES)
        self._counts: dict[tuple[str, str, int, int], int] = {}
        self._turn = 0.0
        self._begin(now)

    def add(self, event: ConnectionEnded, now: float) -> None:
        """Count one."""
        if now >= self._turn:
            self._begin(now)
        ending = event.ending
        # On Python 3.11 an Enum is hashed by a call of Python: its identity is cheaper.
        key = (event.protocol, ending.reason, id(ending.phase), bisect_right(AGES, event.idle + _SLACK))
        counts = self._counts
        counts[key] = counts.get(key, 0) + 1

    def minutes(self, now: float) -> list[tuple[int, dict[Kind, int]]]:
        """What was counted in each of the last sixty minutes in which anything ended, oldest first.

        Returns:
            The begin of each minute in seconds since 1970, and its counts.
        """
        oldest = int(now // 60 - MINUTES + 1) * 60
        return [
            (minute, {_kind(key): count for key, count in counts.items()})
            for minute, counts in self._minutes
            if minute >= oldest and counts
        ]

    def _begin(self, now: float) -> None:
        """A minute begins. When the wall clock was set back, this one goes on until it has caught up."""
        minute = int(now // 60) * 60
        self._turn = minute + 60.0
        self._counts = {}
        self._minutes.append((minute, self._counts))


def _kind(key: tuple[str, str, int, int]) -> Kind:
    protocol, reason, phase, age = key
    return Kind(protocol, reason, _PHASES[phase], AGES[max(0, age - 1)])
