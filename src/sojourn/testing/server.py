"""A server without sockets and without time: requests and deadlines happen when a test says so."""

from __future__ import annotations

import asyncio
import ssl
import types
from collections.abc import Awaitable, Generator
from contextvars import Context
from functools import partial
from typing import TypeVar, get_args

from sojourn.asgi.http import HttpHandler
from sojourn.asgi.lifespan import Lifespan
from sojourn.asgi.site import Site
from sojourn.bus import Bus
from sojourn.clock import ManualClock
from sojourn.config import Config
from sojourn.events import Event, LoopStalled
from sojourn.net.connection import Connection
from sojourn.net.runtime import Runtime
from sojourn.net.ticker import TICK, Ticker
from sojourn.scopes.work import Work
from sojourn.server.lifecycle import Shutdown
from sojourn.testing.http import Outcome, Response, parse_response
from sojourn.testing.memory import Ended, MemoryPeer, MemoryTransport
from sojourn.typing import ASGIApp

__all__ = ["MemoryClient", "MemoryServer"]

E = TypeVar("E", bound=Event)
#: Turns of the loop after which an application that never rests is left alone.
_MOST_TURNS = 1000
_OUTCOMES = {Ended.OPEN: Outcome.UNFINISHED, Ended.FIN: Outcome.TRUNCATED, Ended.RESET: Outcome.RESET}


class _PretendedTls:
    """What a transport gives as its ``ssl_object``, without a byte encrypted."""

    def __init__(self) -> None:
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)

    def version(self) -> str:
        return "TLSv1.3"

    def cipher(self) -> None:
        return None

    def getpeercert(self) -> None:
        return None


class MemoryClient:
    """A client of a :class:`MemoryServer`. Use ``peer`` for what is below HTTP: half-close, reset, slow reading.

    Attributes:
        peer: Its end of the transport.
        connection: What the server knows of it.
    """

    def __init__(self, server: MemoryServer, connection: Connection, transport: MemoryTransport) -> None:
        self._server = server
        self._transport = transport
        self.connection = connection
        self.peer: MemoryPeer = transport.peer

    def send(self, data: bytes) -> None:
        """Send bytes; the server reads them in the next turn of the loop, in one piece."""
        self.peer.send(data)

    def get(self, path: str = "/", *headers: str, method: str = "GET", body: bytes = b"") -> None:
        """Send a request."""
        lines = [f"{method} {path} HTTP/1.1", "host: test", *headers]
        if body:
            lines.append(f"content-length: {len(body)}")
        self.send("\r\n".join([*lines, "", ""]).encode("latin-1") + body)

    def finish_handshake(self) -> None:
        """Go on where ``connect(handshake=False)`` stopped: the server's transport is there now."""
        self.connection.abandon = None
        self._transport.open()

    @property
    def received(self) -> bytes:
        """What has arrived and was not taken out by :meth:`response`."""
        return bytes(self.peer.received)

    def response(self, *, method: str = "GET") -> Response:
        """The next answer, as far as it has arrived; a complete one is taken out."""
        data = bytes(self.peer.received)
        answer, rest = parse_response(data, method=method, ended=_OUTCOMES[self.peer.ended])
        if answer.complete:
            self.peer.received[:] = rest
        return answer


class MemoryServer:
    """Serves an application to clients in memory, on a :class:`ManualClock`.

    Args:
        app: The ASGI application.
        config: Settings; ``bind``, ``tls``, ``proxy.protocol`` and the limits on connections are not used.

    Attributes:
        clock: The time. Move it with :meth:`advance`, so that the deadlines on the way are acted on.
        bus: Where events go.
        events: All events, oldest first.

    Example:
        >>> import asyncio
        >>> async def app(scope, receive, send):
        ...     await send({"type": "http.response.start", "status": 200, "headers": []})
        ...     await send({"type": "http.response.body", "body": b"hello"})
        >>> async def main():
        ...     async with MemoryServer(app) as server:
        ...         client = server.connect()
        ...         client.get("/")
        ...         await server.settle()
        ...         print(client.response().body)
        ...         await server.advance(76)  # timeouts.keep_alive is 75 s
        ...         print(client.connection.ending.reason)
        >>> asyncio.run(main())
        b'hello'
        keep_alive_idle
    """

    runtime: Runtime
    site: Site
    work: Work
    shutdown: Shutdown

    def __init__(self, app: ASGIApp, config: Config | None = None) -> None:
        self.app = app
        self.config = config or Config()
        self.clock = ManualClock()
        self.bus = Bus()
        self.events: list[Event] = []
        for kind in get_args(Event):
            self.bus.observe(kind, self.events.append)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tls = _PretendedTls()

    async def start(self) -> None:
        """Begin to serve in the running loop; ``async with`` does it.

        Raises:
            StartupError: The application's startup failed.
        """
        self._loop = loop = asyncio.get_running_loop()
        ticker = Ticker(self.clock, lambda seconds: self.bus.emit(LoopStalled(seconds)))
        self.runtime = Runtime(loop, self.config, self.bus, ticker)
        self.work = Work(loop, ticker, self.bus, self.runtime.context)
        self.site = Site(self.app, self.runtime, self.work, self.config)
        self._lifespan = Lifespan(self.app, self.work, self.bus, self.config.app.lifespan)
        self.shutdown = Shutdown(self.site, [], last=False, notice=self._lifespan.notice)
        await self._lifespan.startup(self.config.timeouts.lifespan_startup)
        self.site.state = self._lifespan.state

    async def stop(self) -> None:
        """Cut what is open, and let the application stop."""
        self.shutdown.begin(0.0)
        self.shutdown.hurry()
        self.shutdown.hurry()
        self.shutdown.hurry()  # nobody waits for participants either
        await self.settle()
        await self._lifespan.shutdown(self.config.timeouts.lifespan_shutdown)
        await self.settle()

    async def __aenter__(self) -> MemoryServer:
        await self.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.stop()

    def connect(self, *, secure: bool = False, handshake: bool = True) -> MemoryClient:
        """A new connection, as if a listener had accepted it.

        Args:
            secure: As under TLS: the scheme is https, and there is no half-close. No byte is encrypted.
            handshake: False leaves it inside the TLS handshake, until ``finish_handshake`` is called.
        """
        assert self._loop is not None
        timeouts = self.config.timeouts
        number = self.runtime.registry.accepted
        slot, timeout = ("header", timeouts.header) if handshake else ("tls", timeouts.tls)
        secure = secure or not handshake
        peer, local = ("192.0.2.1", 1024 + number % 60000), ("192.0.2.2", 443 if secure else 80)
        connection = Connection(self.runtime, peer, local, "memory", secure, slot, timeout)
        handler = HttpHandler(connection, self.site)
        connection.handler = handler
        extra = {"ssl_object": self._tls} if secure else None
        transport = MemoryTransport(self._loop, handler, context=Context(), half_close=not secure, extra=extra)
        client = MemoryClient(self, connection, transport)
        if handshake:
            transport.open()
        else:
            connection.abandon = transport.abort
        return client

    async def settle(self) -> None:
        """Let the loop turn until nothing is left to do but to wait."""
        ready = getattr(self._loop, "_ready", None)  # asyncio's queue of callbacks; other loops have none to show
        for turn in range(_MOST_TURNS):
            if turn and (not ready if ready is not None else turn > 50):
                return
            await _turn()

    async def advance(self, seconds: float) -> None:
        """Let time pass, tick by tick, and everything happen that happens meanwhile."""
        await self.settle()
        ticks, rest = divmod(seconds, TICK)
        for step in [TICK] * int(ticks) + [rest]:
            self.clock.advance(step)
            self._tick()
            await self.settle()

    async def stall(self, seconds: float) -> None:
        """Let the loop stand still for so long: time passes, and nothing happens meanwhile."""
        self.clock.advance(seconds)
        self._tick()
        await self.settle()

    def _tick(self) -> None:
        self.runtime.ticker.tick()
        self.runtime.turn(self.runtime.ticker.now)

    def sleep(self, seconds: float) -> Awaitable[None]:
        """For applications under test: wait so many seconds of the server's time."""
        assert self._loop is not None
        waiter: asyncio.Future[None] = self._loop.create_future()
        self.runtime.ticker.call_later(seconds, partial(_wake, waiter))
        return waiter

    def drain(self, delay: float | None = None) -> None:
        """Begin to stop, as the first signal does, after so many seconds of notice; None takes ``drain.delay``."""
        self.shutdown.begin(delay)

    def seen(self, kind: type[E]) -> list[E]:
        """The events of one type, oldest first."""
        return [event for event in self.events if type(event) is kind]

    @property
    def open(self) -> int:
        """Connections in the registry."""
        return len(self.runtime.registry)


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


@types.coroutine
def _turn() -> Generator[None, None, None]:
    yield
