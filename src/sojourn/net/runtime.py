"""What the connections of a worker share."""

from __future__ import annotations

import asyncio
from contextvars import copy_context

from sojourn.bus import Bus
from sojourn.clock import NEVER
from sojourn.config import Config
from sojourn.ending import Ending, How
from sojourn.net.connection import Connection
from sojourn.net.registry import Registry
from sojourn.net.ticker import TICK, Ticker
from sojourn.policy.wheel import Wheel

__all__ = ["Runtime"]

#: Shortest and longest lap of the wheel, in seconds. In between it is write_idle: bytes below the high watermark that a
#: peer does not take are noticed within a lap, so it is ended after once to twice write_idle. A shorter lap would be
#: more exact, and cost every idle connection a look of two microseconds the more often.
_SHORTEST_LAP, _LONGEST_LAP = 1.0, 30.0


class Runtime:
    """Ticker, wheel, registry and bus of one worker, and the configuration new connections get.

    Args:
        loop: The worker's event loop.
        config: Settings.
        bus: Where events go.
        ticker: The worker's time.
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
        self.wheel: Wheel[Connection] = Wheel(ticker.now, TICK, _slots(config))

    def start(self) -> None:
        """Begin to tick."""
        self.ticker.start(self.loop, self.turn, self._ahead)

    def adopt(self, config: Config) -> None:
        """Give new connections, and the next waits of old ones, other settings. No connection ends by it.

        Args:
            config: The settings from now on. Another lap of the wheel costs a microsecond or two for each connection.
        """
        before, self.config = _slots(self.config), config
        if _slots(config) != before:
            wheel: Wheel[Connection] = Wheel(self.ticker.now, TICK, _slots(config))
            self.wheel = wheel
            for connection in self.registry:
                connection.looked_at = NEVER  # it stands nowhere in this one
                wheel.add(connection, connection.due.soonest())

    def turn(self, now: float) -> None:
        """Look at the connections whose deadline has passed. Called at each tick."""
        # Deadlines are set by a hand that is behind. Judged by one that is behind by as much as it can have been (less
        # a microsecond, for the arithmetic of floats), none of them passes early.
        judged = now - self.ticker.behind + 1e-6
        for connection in self.wheel.advance(judged):
            try:
                connection.look(judged)
            except Exception as error:  # noqa: BLE001 - the others' deadlines must not depend on this one
                self._failed(connection, error)

    def _ahead(self, until: float) -> float:
        """Up to which moment no deadline can pass."""
        behind = self.ticker.behind
        return self.wheel.next(until - behind) + behind

    def _failed(self, connection: Connection, error: Exception) -> None:
        """A bug was met while a deadline was acted on: it ends this connection, and is told."""
        self.loop.call_exception_handler({"message": "a deadline could not be acted on", "exception": error})
        self.wheel.add(connection, self.ticker.now + 1.0)
        connection.end(Ending("internal_error", connection.phase, How.LOCAL_ABORT, repr(error)), abort=True)


def _slots(config: Config) -> int:
    """Ticks in a lap of the wheel."""
    return round(max(_SHORTEST_LAP, min(config.timeouts.write_idle or _LONGEST_LAP, _LONGEST_LAP)) / TICK)
