"""A server with everything that looks for leaks, in memory or on a socket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sojourn.bus import Bus
from sojourn.clock import ManualClock
from sojourn.config import Bind, Config, Diagnostics, Log
from sojourn.events import Event, LeakFound
from sojourn.net.ticker import Ticker
from sojourn.observe.leaks.detector import Leaks, LeaksReport
from sojourn.observe.leaks.leases import Leases
from sojourn.observe.leaks.ledger import Ledger
from sojourn.observe.tasks.census import Tasks
from sojourn.testing.server import MemoryServer
from tests.server.serving import Served, serving

__all__ = ["Bench", "Watched", "answer", "memory", "real"]


async def answer(send: Any, body: bytes = b"ok") -> None:
    """A complete answer."""
    head = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]}
    await send(head)
    await send({"type": "http.response.body", "body": body})


def requests_only(app: Any) -> Any:
    """An application without lifespan."""

    async def served(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        await app(scope, receive, send)

    return served


class Bench:
    """What the smaller parts need: a clock that a test moves, a bus, a ledger."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.ticker = Ticker(self.clock)
        self.bus = Bus()
        self.events: list[Any] = []
        for kind in Event.__args__:  # type: ignore[attr-defined]
            self.bus.observe(kind, self.events.append)
        self.ledger = Ledger(self.bus, self.clock)
        self.leases = Leases(self.bus, self.ticker, self.ledger, 10.0)

    def advance(self, seconds: float) -> None:
        """Let time pass, tick by tick."""
        for _ in range(round(seconds * 10)):
            self.clock.advance(0.1)
            self.ticker.tick()

    def seen(self, kind: type[Any]) -> list[Any]:
        """The events of one type, oldest first."""
        return [event for event in self.events if type(event) is kind]


class Watched:
    """What was found in a server."""

    def __init__(self, leaks: Leaks, events: list[Any]) -> None:
        self.leaks = leaks
        self._events = events

    @property
    def found(self) -> list[LeakFound]:
        """The leaks that were told, oldest first."""
        return [event for event in self._events if type(event) is LeakFound]

    async def report(self) -> LeaksReport:
        return await self.leaks.report({})


@asynccontextmanager
async def memory(app: Any, **diagnostics: Any) -> AsyncIterator[tuple[MemoryServer, Watched]]:
    """A server in memory, on a clock that the test moves."""
    async with MemoryServer(requests_only(app), Config(diagnostics=Diagnostics(**diagnostics))) as server:
        tasks = Tasks(server.site)
        leaks = Leaks(server.site, tasks)
        try:
            yield server, Watched(leaks, server.events)
        finally:
            leaks.close()
            tasks.close()


@asynccontextmanager
async def real(app: Any, **diagnostics: Any) -> AsyncIterator[tuple[Served, Watched]]:
    """A server on a socket."""
    config = Config(bind=Bind(port=0), log=Log(access="off"), diagnostics=Diagnostics(**diagnostics))
    async with serving(requests_only(app), config) as served:
        leaks: Any = getattr(served.server.diagnosis.answers["leaks"], "__self__")  # noqa: B009 - of a bound method
        yield served, Watched(leaks, served.events)
