"""What tests of clients have in common: budgets, a limit for each test, and how long something took."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

from sojourn.scopes.budget import BUDGETS, Budgets

__all__ = ["Took", "budgets", "cancelled_everywhere", "run", "took"]


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run a test; one that hangs fails."""

    async def bounded() -> None:
        async with asyncio.timeout(20):
            await main

    asyncio.run(bounded())


def budgets(**seconds: float) -> None:
    """The budgets of the operator's configuration, in the present context."""
    BUDGETS.set(Budgets(seconds))


class Took:
    """How long a block took, in seconds."""

    seconds = 0.0


@contextmanager
def took(least: float, most: float) -> Iterator[Took]:
    """A block takes so long, and no longer; but for what a busy machine does, which is less than to wait in vain."""
    result, began = Took(), time.monotonic()
    yield result
    result.seconds = time.monotonic() - began
    assert least <= result.seconds <= most + 1.0, f"{result.seconds:.3f} s"


async def cancelled_everywhere(use: Callable[[], Awaitable[Any]], turns: range) -> None:
    """Cancel something after each number of turns of the loop, and wait for its end."""
    for number in turns:
        task = asyncio.ensure_future(use())
        for _ in range(number):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
