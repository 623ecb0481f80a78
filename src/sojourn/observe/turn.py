"""One turn of the event loop, for work that is done in slices."""

from __future__ import annotations

import asyncio

__all__ = ["turn"]


async def turn(loop: asyncio.AbstractEventLoop) -> None:
    """Let everybody else run once.

    Cancel: safe.
    """
    passed = loop.create_future()
    loop.call_soon(_pass, passed)
    await passed


def _pass(passed: asyncio.Future[None]) -> None:
    if not passed.done():
        passed.set_result(None)
