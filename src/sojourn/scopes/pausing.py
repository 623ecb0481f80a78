"""Waits of the services' own: for a while, and for an answer that comes very often."""

from __future__ import annotations

import asyncio
from contextvars import Context
from typing import Any, Final, TypeVar

__all__ = ["pause", "within"]

T = TypeVar("T")

_DAY: Final = 86_400.0


async def pause(seconds: float) -> None:
    """Wait for so many seconds, which are not those of a request. Cancel: safe; its timer goes with it."""
    loop = asyncio.get_running_loop()
    over = loop.create_future()
    timer = loop.call_later(seconds, over.cancel)
    try:
        await asyncio.wait((over,))
    finally:
        timer.cancel()


async def within(seconds: float, answer: asyncio.Future[T]) -> T:
    """What a future comes to, in time: a timer where a deadline would cost as much as the rest of the call.

    Deadlines that are around it count as everywhere.

    Args:
        seconds: Until it is given up: the future has the error then, for who would answer it.
        answer: The future, of one caller.

    Raises:
        TimeoutError: It took too long.

    Cancel: safe; the future is cancelled.
    """
    timer = answer.get_loop().call_later(min(seconds, _DAY), _too_late, answer, context=Context())
    try:
        return await answer
    finally:
        timer.cancel()


def _too_late(answer: asyncio.Future[Any]) -> None:
    if not answer.done():
        answer.set_exception(TimeoutError())
        answer.exception()  # who waits may have been cancelled just now
