"""What the connections of a worker share."""

from __future__ import annotations

import asyncio
from contextvars import copy_context

from sojourn.bus import Bus
from sojourn.config import Config
from sojourn.events import LoopStalled
from sojourn.net.connection import Connection
from sojourn.net.registry import Registry
from sojourn.net.ticker import Ticker
from sojourn.policy.wheel import Wheel

__all__ = ["Runtime"]


class Runtime:
    """Ticker, wheel, registry and bus of one worker, and the configuration new connections get.

    Args:
        loop: The worker's event loop.
        config: Settings.
        bus: Where events go.
        ticker: The worker's time; None makes one on the machine's clock.
    """

    __slots__ = ("bus", "config", "context", "loop", "registry", "ticker", "wheel")

    def __init__(self, loop: asyncio.AbstractEventLoop, config: Config, bus: Bus, ticker: Ticker) -> None:
        self.loop = loop
        self.config = config
        self.bus = bus
        self.ticker = ticker
        #: What was set before the server started. Requests get copies of it, so what one sets no other sees.
        self.context = copy_context()
        self.registry = Registry(bus)
        self.wheel: Wheel[Connection] = Wheel(ticker.now)

    def start(self) -> None:
        """Begin to tick."""
        self.ticker.start(self.loop, self.turn)

    def turn(self, now: float) -> None:
        """Look at the connections whose deadline has passed. Called at each tick."""
        for connection in self.wheel.advance(now):
            connection.look(now)

    def stalled(self, seconds: float) -> None:
        """Report that the loop stood still."""
        self.bus.emit(LoopStalled(seconds))
