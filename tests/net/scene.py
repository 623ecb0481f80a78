"""A connection without a socket: a runtime on a ManualClock, and a handler that writes down what it is told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import Context
from typing import Any, get_args

from sojourn.bus import Bus
from sojourn.clock import NEVER, ManualClock
from sojourn.config import Config
from sojourn.ending import Ending, How, Phase
from sojourn.events import ConnectionEnded, Event
from sojourn.net.connection import Connection, Handler
from sojourn.net.outbox import Outbox
from sojourn.net.runtime import Runtime
from sojourn.net.ticker import TICK, Ticker
from sojourn.testing import MemoryTransport


class Recorder(Handler):
    """Writes down what it is told."""

    protocol = "test"

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        self.log: list[Any] = []
        self.on_deadline: Callable[[str, float], None] = self.give_up
        self.fails_in: set[str] = set()

    def _note(self, *what: Any) -> None:
        self.log.append(what)
        if what[0] in self.fails_in:
            raise ValueError(f"a bug in {what[0]}")

    def opened(self) -> None:
        self._note("opened")

    def data_received(self, data: bytes) -> None:
        self.connection.bytes_in += len(data)
        self._note("data", data)

    def eof_received(self) -> bool:
        self._note("eof")
        return False

    def deadline_passed(self, slot: str, now: float) -> None:
        self._note("deadline", slot)
        self.on_deadline(slot, now)

    def give_up(self, slot: str, now: float) -> None:
        self.connection.end(Ending("keep_alive_idle", Phase.IDLE, How.TIMEOUT, slot))

    def forget(self, slot: str, now: float) -> None:
        setattr(self.connection.due, slot, NEVER)

    def ending(self, ending: Ending) -> None:
        self._note("ending", ending.reason)

    def ended(self, ending: Ending) -> None:
        self._note("ended", ending.reason)

    def behind(self, outbox: Outbox, now: float) -> None:
        self._note("behind", round(now - outbox.progress.started))


class Scene:
    """A runtime whose time the test moves."""

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or Config()
        self.clock = ManualClock()
        self.bus = Bus()
        self.events: list[Event] = []
        for kind in get_args(Event):
            self.bus.observe(kind, self.events.append)
        self.loop = asyncio.get_running_loop()
        self.reported: list[BaseException] = []
        self.loop.set_exception_handler(lambda _, context: self.reported.append(context["exception"]))
        self.runtime = Runtime(self.loop, self.config, self.bus, Ticker(self.clock))

    def accept(self, slot: str = "header", timeout: float | None = 10.0, *, handler: bool = True) -> Connection:
        """A connection that has no transport yet."""
        connection = Connection(self.runtime, ("192.0.2.1", 5000), ("192.0.2.2", 80), "memory", False, slot, timeout)
        if handler:
            connection.handler = Recorder(connection)
        return connection

    def connect(self, *, half_close: bool = True) -> tuple[Connection, MemoryTransport, Recorder]:
        """A connection with its transport and nothing armed."""
        connection = self.accept()
        handler = connection.handler
        assert isinstance(handler, Recorder)
        transport = MemoryTransport(self.loop, handler, context=Context(), half_close=half_close)
        transport.open()
        connection.due.disarm()
        return connection, transport, handler

    async def turns(self, number: int = 10) -> None:
        for _ in range(number):
            await asyncio.sleep(0)

    async def advance(self, seconds: float) -> None:
        await self.turns()
        for _ in range(round(seconds / TICK)):
            self.clock.advance(TICK)
            self.runtime.ticker.tick()
            self.runtime.turn(self.runtime.ticker.now)
            await self.turns(4)
            assert len(self.runtime.wheel) == len(self.runtime.registry), "lost from the wheel, or twice in it"

    @property
    def end(self) -> ConnectionEnded:
        """The one ConnectionEnded there is."""
        (ended,) = (event for event in self.events if isinstance(event, ConnectionEnded))
        return ended


def play(scene: Callable[[Scene], Awaitable[None]], config: Config | None = None) -> Scene:
    """Run a scene to its end; nothing may be left over."""

    async def main() -> Scene:
        stage = Scene(config)
        await scene(stage)
        for connection in stage.runtime.registry:
            connection.end(Ending("completed", Phase.IDLE), abort=True)
        await stage.turns()
        assert len(stage.runtime.registry) == len(stage.runtime.wheel) == 0
        return stage

    return asyncio.run(main())


Test = Callable[[Scene], Coroutine[Any, Any, None]]
