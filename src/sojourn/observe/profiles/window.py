"""For how long something is gathered, and the wait for its end."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from sojourn.errors import ErrandError

__all__ = ["passed", "seconds_of"]


def seconds_of(arguments: Mapping[str, Any], usual: float, shortest: float, longest: float) -> float:
    """The argument ``seconds``.

    Args:
        arguments: Of an errand.
        usual: What it is when nobody says, in seconds.
        shortest: Less is refused.
        longest: More is refused.

    Raises:
        ErrandError: It is no number between these.
    """
    given = arguments.get("seconds")
    try:
        seconds = usual if given is None or given == "" else float(given)
    except (TypeError, ValueError):
        seconds = -1.0
    if not shortest <= seconds <= longest:
        raise ErrandError(400, "bad_argument", f"seconds is {shortest:g} to {longest:g}; not {given!r}")
    return seconds


async def passed(loop: asyncio.AbstractEventLoop, seconds: float) -> None:
    """Wait. Not by the ticker, whose time stands still in a stall: whoever asked waits by the clock on the wall.

    Args:
        loop: The running loop.
        seconds: For how long.

    Cancel: safe.
    """
    try:
        async with asyncio.timeout(seconds):
            await loop.create_future()
    except TimeoutError:
        return  # what it was made for
