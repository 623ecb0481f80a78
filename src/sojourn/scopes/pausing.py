"""Waiting for a while: of the services' own loops, whose time is not that of a request."""

from __future__ import annotations

import asyncio

__all__ = ["pause"]


async def pause(seconds: float) -> None:
    """Wait for so many seconds. Cancel: safe; its timer goes with it."""
    loop = asyncio.get_running_loop()
    over = loop.create_future()
    timer = loop.call_later(seconds, over.cancel)
    try:
        await asyncio.wait((over,))
    finally:
        timer.cancel()
