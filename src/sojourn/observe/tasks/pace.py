"""Long looks in short slices."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from sojourn.observe.turn import turn

__all__ = ["Pace"]

#: Seconds of one slice.
_SLICE: Final = 0.0007
#: Steps after which the clock is read; eight tasks take a seventh of a slice.
_STRIDE: Final = 8


class Pace:
    """Says when it is time to let others run.

    Args:
        loop: The running loop.
        monotonic: The monotonic clock.

    Example:
        >>> async def look(things, loop, monotonic):
        ...     pace = Pace(loop, monotonic)
        ...     for thing in things:
        ...         if pace.over():
        ...             await pace.rest()
    """

    __slots__ = ("_began", "_loop", "_monotonic", "_steps")

    def __init__(self, loop: asyncio.AbstractEventLoop, monotonic: Callable[[], float]) -> None:
        self._loop = loop
        self._monotonic = monotonic
        self._began = monotonic()
        self._steps = 0

    def over(self) -> bool:
        """Whether the slice is over; called before each step."""
        self._steps += 1
        return self._steps % _STRIDE == 0 and self._monotonic() - self._began > _SLICE

    async def rest(self) -> None:
        """Let everybody else run.

        Cancel: safe.
        """
        await turn(self._loop)
        self._began = self._monotonic()
