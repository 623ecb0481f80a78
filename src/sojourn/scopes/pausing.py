"""Waits of the services' own: for a while, and for an answer that comes very often."""

from __future__ import annotations

import asyncio
from typing import Any, TypeVar

from sojourn.clock import NEVER
from sojourn.scopes.alarms import alarms

__all__ = ["pause", "within"]

T = TypeVar("T")


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
    """What a future comes to, in time: where a deadline would cost as much as the rest of the call.

    Deadlines that are around it count as everywhere.

    Args:
        seconds: Until it is given up: the future has the error then, for who would answer it. NEVER: it is not.
        answer: The future, of one caller.

    Raises:
        TimeoutError: It took too long.

    Cancel: safe; the future is cancelled.
    """
    hand, late = alarms(), _Late(answer)
    hand.add(hand.now() + seconds, late)
    try:
        return await answer
    finally:
        if not late.left:
            late.left, late.answer = True, None
            hand.leave()


class _Late:
    """The moment at which an answer is given up."""

    __slots__ = ("answer", "left")

    def __init__(self, answer: asyncio.Future[Any]) -> None:
        self.answer: asyncio.Future[Any] | None = answer
        self.left = False

    def ring(self, now: float) -> float:
        """See ``alarms.Ringing``."""
        answer, self.left = self.answer, True
        if answer is not None and not answer.done():
            answer.set_exception(TimeoutError())
            answer.exception()  # who waits may have been cancelled just now
        return NEVER
