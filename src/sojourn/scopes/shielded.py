"""A clean-up that nothing interrupts, and that ends all the same."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from sojourn.clock import SystemClock
from sojourn.scopes.deadline import deadline, free
from sojourn.scopes.work import LADDER, attend

__all__ = ["shielded"]

T = TypeVar("T")


async def shielded(coroutine: Coroutine[Any, Any, T], seconds: float, name: str = "clean-up") -> T:
    """Run a clean-up to its end, whatever happens to the task that calls: its own deadline is the only one it has.

    For what must not be left half done, such as a rollback or the return of a connection to its pool. Unlike
    ``asyncio.shield`` it leaves nothing behind: the caller waits, and is cancelled when the clean-up has ended.

    Args:
        coroutine: What to run, in a task of its own, with a copy of the context.
        seconds: How long it may take; above zero.
        name: What errors and reports call it.

    Returns:
        What the coroutine returns.

    Raises:
        DeadlineExceeded: It took too long, and was cancelled.
        ValueError: ``seconds`` is not above zero.

    Cancel: safe; the cancellation is raised when the clean-up has ended, or did not end although it was cancelled.

    Example:
        >>> import asyncio
        >>> async def give_back(connection):
        ...     await asyncio.sleep(0)
        >>> asyncio.run(shielded(give_back(None), 2.0))
    """
    if not seconds > 0:
        coroutine.close()
        raise ValueError(f"a clean-up of {seconds!r} s: it needs a length above zero")

    async def bounded() -> T:
        free()
        async with deadline(seconds, name):
            return await coroutine

    task = attend(bounded(), name)
    monotonic = SystemClock.monotonic
    last = monotonic() + seconds + LADDER[-1]
    cancelled: asyncio.CancelledError | None = None
    while not task.done() and (wait := last - monotonic()) > 0.0:
        try:
            await asyncio.wait((task,), timeout=wait)
        except asyncio.CancelledError as error:
            cancelled = cancelled or error
    if cancelled is not None:
        failed = task.done() and not task.cancelled() and task.exception()
        raise cancelled from (failed or None)
    if not task.done():
        task.cancel()
    return await task
