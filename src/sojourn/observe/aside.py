"""A call in a thread of its own: not one of the executor's, all of which the application may keep busy."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

__all__ = ["aside"]

T = TypeVar("T")


async def aside(loop: asyncio.AbstractEventLoop, name: str, function: Callable[[], T]) -> T:
    """Call a function while the loop goes on.

    Args:
        loop: The running loop.
        name: Of the thread.
        function: What to call; what it raises is raised here.

    Cancel: safe; the thread ends by itself.
    """
    made: asyncio.Future[T] = loop.create_future()

    def run() -> None:
        try:
            settle, outcome = made.set_result, function()
        except Exception as error:  # noqa: BLE001 - it is raised where it was asked for
            settle, outcome = made.set_exception, error  # type: ignore[assignment]
        try:
            loop.call_soon_threadsafe(lambda: None if made.done() else settle(outcome))
        except RuntimeError:
            pass  # the loop has ended: nobody waits any more

    threading.Thread(target=run, name=name, daemon=True).start()
    return await made
