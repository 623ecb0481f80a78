"""When something that is done again and again is due: moments that all who ask agree on.

A slot is such a moment, in seconds since 1970. It depends on the schedule alone, and not on who asks, when it was asked
first, or how long the last run took: so two processes that know nothing of each other name the same one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

__all__ = ["Every", "Schedule", "stands"]


class Schedule(Protocol):
    """Slots without end."""

    def next(self, after: float) -> float:
        """The first slot that is later than a moment; both in seconds since 1970."""


@dataclass(frozen=True, slots=True)
class Every:
    """Slots at the same distance.

    Args:
        seconds: From each to the next; above zero.
        anchor: One of them, in seconds since 1970.

    Example:
        >>> Every(60.0).next(90.0), Every(60.0).next(120.0), Every(60.0, anchor=15.0).next(90.0)
        (120.0, 180.0, 135.0)
    """

    seconds: float
    anchor: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.seconds < math.inf:
            raise ValueError(f"every {self.seconds!r} s: it is above zero")

    def next(self, after: float) -> float:
        """The first slot that is later than a moment."""
        count = math.floor((after - self.anchor) / self.seconds)
        # The division may be off by one in either direction where the moment is a slot itself.
        return next(slot for more in (0, 1, 2) if (slot := self.anchor + (count + more) * self.seconds) > after)


def stands(schedule: Schedule, slot: float, now: float) -> bool:
    """Whether what waits for a slot waits for the right one: it is due already, or it is the next there is.

    Args:
        schedule: As it is now; the slot may be of an older one.
        slot: What is waited for.
        now: The time.
    """
    return slot <= now or slot == schedule.next(now)
