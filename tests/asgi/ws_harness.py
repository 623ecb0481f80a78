"""A real server on a real socket with a clock that tests move, and a WebSocket client that sends what it is told to."""

from __future__ import annotations

import asyncio
import functools
import inspect
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, TypeVar

import msgspec
import pytest
import uvloop

from sojourn.bus import Bus
from sojourn.clock import Clock, ManualClock
from sojourn.config import Config, Drain
from sojourn.events import (
    ApplicationFailed,
    ConnectionEnded,
    ConnectionOpened,
    DeadlineMissed,
    RequestEnded,
    TaskSurvived,
    WebSocketOpened,
)
from sojourn.net.connection import Connection
from sojourn.server.server import Server
from tests.wire.websocket_client import client_frame

E = TypeVar("E")
App = Callable[..., Coroutine[Any, Any, None]]

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
#: A test that takes longer hangs.
BOUND = 20.0
STEP = 0.2

OBSERVED = (
    ApplicationFailed,
    ConnectionEnded,
    ConnectionOpened,
    DeadlineMissed,
    RequestEnded,
    TaskSurvived,
    WebSocketOpened,
)


def on_both_loops(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an async test on asyncio and on uvloop, each within a bound."""

    def run(**arguments: Any) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(BOUND):
                await test(**arguments)

        with asyncio.Runner(loop_factory=LOOPS[arguments.pop("loop")]) as runner:
            runner.run(bounded())

    functools.update_wrapper(run, test)
    del run.__wrapped__  # type: ignore[attr-defined]
    given = list(inspect.signature(test).parameters.values())
    loop = inspect.Parameter("loop", inspect.Parameter.KEYWORD_ONLY)
    run.__signature__ = inspect.Signature([*given, loop])  # type: ignore[attr-defined]
    return pytest.mark.parametrize("loop", LOOPS)(run)


async def until(condition: Callable[[], Any]) -> Any:
    """Wait until something is true; the bound of the test ends a wait that is in vain."""
    while not (value := condition()):  # noqa: ASYNC110 - what it waits for has no event
        await asyncio.sleep(0.002)
    return value


class Frame(NamedTuple):
    """One frame from the server."""

    opcode: int
    payload: bytes
    fin: bool
    rsv1: bool


class Client:
    """A WebSocket client without a mind of its own: it answers no ping and no close frame by itself."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.half_closed = False
        self.status = 0
        self.headers: dict[str, str] = {}

    def write(self, data: bytes) -> None:
        self.writer.write(data)

    def send(self, message: str | bytes) -> None:
        """Send a whole message."""
        if isinstance(message, str):
            self.write(client_frame(TEXT, message.encode()))
        else:
            self.write(client_frame(BINARY, message))

    def close_frame(self, code: int | None = 1000, reason: str = "") -> None:
        """Send a close frame."""
        self.write(client_frame(CLOSE, b"" if code is None else struct.pack("!H", code) + reason.encode()))

    async def read_head(self) -> None:
        """Read the head of the server's answer."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        line, *lines = head.rstrip("\r\n").split("\r\n")
        self.status = int(line.split(" ")[1])
        self.headers = {name.lower(): value.strip() for name, _, value in (text.partition(":") for text in lines)}

    async def frame(self) -> Frame:
        """The next frame."""
        first, second = await self.reader.readexactly(2)
        assert second < 128, "a server does not mask"
        length = second
        if second == 126:
            (length,) = struct.unpack("!H", await self.reader.readexactly(2))
        elif second == 127:
            (length,) = struct.unpack("!Q", await self.reader.readexactly(8))
        payload = await self.reader.readexactly(length)
        return Frame(first & 15, payload, first & 128 != 0, first & 64 != 0)

    async def text(self) -> str:
        """The next frame, which must be a text message."""
        frame = await self.frame()
        assert (frame.opcode, frame.fin, frame.rsv1) == (TEXT, True, False), frame
        return frame.payload.decode()

    async def closed(self) -> tuple[int | None, str]:
        """The next frame, which must be a close frame: its code and reason."""
        frame = await self.frame()
        assert frame.opcode == CLOSE, frame
        if not frame.payload:
            return None, ""
        return struct.unpack("!H", frame.payload[:2])[0], frame.payload[2:].decode()

    async def rest(self) -> bytes:
        """All that comes until the server closes."""
        return await self.reader.read()

    def eof(self) -> None:
        """Half-close."""
        self.half_closed = True
        self.writer.write_eof()

    def reset(self) -> None:
        """Close with a reset."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    def leave(self) -> None:
        """Close the socket without a word."""
        self.writer.close()


class Served:
    """A server, and everything that was observed of it."""

    def __init__(self, server: Server, clock: ManualClock, address: tuple[str, int]) -> None:
        self.server = server
        self.clock = clock
        self.address = address
        scheme = "ws" if server.config.tls.cert is None else "wss"
        self.url = f"{scheme}://{address[0]}:{address[1]}"
        self.events: list[Any] = []
        self.clients: list[Client] = []

    def seen(self, kind: type[E]) -> list[E]:
        """What was observed of a kind, in order."""
        return [event for event in self.events if type(event) is kind]

    async def next(self, kind: type[E], count: int = 1) -> E:
        """Wait for the event of a kind; no more than ``count`` may have come."""
        found: list[E] = await until(lambda: len(self.seen(kind)) >= count and self.seen(kind))
        assert len(found) == count, found
        return found[-1]

    async def ended(self, count: int = 1) -> ConnectionEnded:
        """Wait for the end of a connection."""
        return await self.next(ConnectionEnded, count)

    @property
    def connection(self) -> Connection:
        """The only open connection."""
        (connection,) = self.server.runtime.registry
        return connection

    async def pass_time(self, seconds: float) -> None:
        """Move the clock, with a tick at every step and time for what it causes."""
        while seconds > 1e-6:
            step = min(STEP, seconds)
            seconds -= step
            self.clock.advance(step)
            self.server.runtime.ticker.tick()
            for _ in range(3):
                await asyncio.sleep(0)

    async def connect(
        self,
        path: str = "/",
        headers: dict[str, str | None] | None = None,
        early: bytes = b"",
        receive_buffer: int | None = None,
    ) -> Client:
        """Send a handshake and read the head of the answer; None in ``headers`` leaves one out."""
        client = await self.dial(receive_buffer)
        lines: dict[str, str | None] = {
            "Host": "testserver",
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
            **(headers or {}),
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items() if value is not None)
        client.write(f"GET {path} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + early)
        await client.read_head()
        return client

    async def dial(self, receive_buffer: int | None = None) -> Client:
        """Connect and send nothing."""
        sock = socket.socket()
        sock.setblocking(False)
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        await asyncio.get_running_loop().sock_connect(sock, self.address)
        # A small limit: a client that does not read holds little itself.
        client = Client(*await asyncio.open_connection(sock=sock, limit=2**12))
        self.clients.append(client)
        return client


@asynccontextmanager
async def serving(
    app: App, config: Config | None = None, *, clock: Clock | None = None, send_buffer: int | None = None
) -> AsyncIterator[Served]:
    """Serve an application on a free port of the loopback; checks the books at the end.

    The clock stands still unless ``pass_time`` moves it or another one is given.
    """
    config = config or Config()
    if config.drain == Drain():  # time stands still: nobody may have to wait for his turn
        config = msgspec.structs.replace(config, drain=Drain(delay=0, close_rate=None))
    manual = ManualClock()
    broken: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: broken.append(context))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        if send_buffer is not None:  # accepted sockets inherit it
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
        bus = Bus()
        server = Server(app, config, bus=bus, clock=clock or manual, sockets=[listener])
        served = Served(server, manual, listener.getsockname())
        for kind in OBSERVED:
            bus.observe(kind, served.events.append)
        async with server:
            registry = server.runtime.registry
            try:
                yield served
                assert registry.accepted == len(registry) + registry.ended
            finally:
                for client in served.clients:
                    client.leave()
                server.drain(0.0)
                server.hurry()
                server.hurry()
        assert not broken, broken
        assert bus.failures == 0, bus.last_failure
        assert registry.accepted == registry.ended == len(served.seen(ConnectionEnded))
        assert not len(registry)
        endings = Counter(event.connection for event in served.seen(ConnectionEnded))
        assert set(endings.values()) <= {1}, "a connection ends once"
        requests = Counter(event.connection for event in served.seen(RequestEnded))
        assert set(requests.values()) <= {1}, "a WebSocket ends once"
        assert not len(server.runtime.wheel)


async def accept(receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]], **more: Any) -> None:
    """Take the connect event, and accept."""
    assert await receive() == {"type": "websocket.connect"}
    await send({"type": "websocket.accept", **more})


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Sends every message back."""
    if scope["type"] == "lifespan":
        return
    await accept(receive, send)
    while (message := await receive())["type"] == "websocket.receive":
        await send({**message, "type": "websocket.send"})


class Told:
    """An application that accepts and writes down what it is told."""

    def __init__(self) -> None:
        self.messages: list[Any] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return
        await accept(receive, send)
        while not self.messages or self.messages[-1]["type"] != "websocket.disconnect":
            self.messages.append(await receive())
