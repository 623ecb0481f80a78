"""What belongs to the whole process and is set only when Sojourn owns it: the event loop and the garbage collector."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from typing import Final, Literal

from sojourn.errors import ConfigError

__all__ = ["event_loop_factory", "tune_collector"]

#: A server makes and drops thousands of small objects a second; looking at the young ones every 700 costs throughput and
#: finds nothing, because requests leave no cycles.
_THRESHOLDS: Final = (20_000, 20, 50)


def event_loop_factory(kind: Literal["auto", "uvloop", "asyncio"]) -> Callable[[], asyncio.AbstractEventLoop]:
    """How to make the event loop.

    Raises:
        ConfigError: uvloop is asked for and not there.
    """
    if kind == "asyncio":
        return asyncio.new_event_loop
    try:
        import uvloop
    except ImportError:
        if kind == "uvloop":
            raise ConfigError("uvloop is not installed; write auto or asyncio", key="app.loop") from None
        return asyncio.new_event_loop
    return uvloop.new_event_loop


def tune_collector() -> None:
    """Take everything made so far out of the collector's sight, and let it look less often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
