"""Time. All of Sojourn reads one clock; tests hold a ManualClock in its place."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import asyncio

__all__ = ["NEVER", "Clock", "ManualClock", "SystemClock", "turn_of"]

#: The deadline that is never reached: an unarmed slot.
NEVER = float("inf")


class Clock(Protocol):
    """Where moments come from."""

    def monotonic(self) -> float:
        """Seconds on a clock that never goes back; its zero means nothing."""

    def wall(self) -> float:
        """Seconds since 1970-01-01 UTC; for log lines and the Date header only, never for deadlines."""


class SystemClock:
    """The machine's clock."""

    __slots__ = ()

    monotonic = staticmethod(time.monotonic)
    wall = staticmethod(time.time)


def turn_of(loop: asyncio.AbstractEventLoop) -> Callable[[], float]:
    """What reads the machine's clock as an event loop does: uvloop once in each of its turns, asyncio each time."""
    return loop.time


class ManualClock:
    """A clock that moves only when told to.

    Args:
        start: First reading of ``monotonic()``, in seconds.
        wall: First reading of ``wall()``, in seconds since 1970.
    """

    __slots__ = ("_now", "_wall")

    def __init__(self, start: float = 1000.0, wall: float = 1_700_000_000.0) -> None:
        self._now = start
        self._wall = wall

    def monotonic(self) -> float:
        return self._now

    def wall(self) -> float:
        return self._wall

    def advance(self, seconds: float) -> None:
        """Move both readings forward by ``seconds``, which can't be negative."""
        if seconds < 0:
            raise ValueError(f"a clock can't go back: {seconds}")
        self._now += seconds
        self._wall += seconds
