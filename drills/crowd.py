"""Many clients in one process: raw sockets that write down when what happened to them."""

from __future__ import annotations

import asyncio
import functools
import re
import struct
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, TypeVar

from drills.served import now
from tests.server.processes import Serving

__all__ = ["Client", "Crowd", "EventStream", "Load", "Request", "WebSocket", "all_ended", "play"]

C = TypeVar("C", bound="Client")

_HANDSHAKE: Final = (
    b"GET %b HTTP/1.1\r\nhost: drill\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
    b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
#: Connections opened at the same time.
_AT_ONCE: Final = 50


class Client(asyncio.Protocol):
    """One connection.

    Args:
        path: What it asks for.

    Attributes:
        received: All bytes.
        arrived: Resolved when it is where a drill wants it to be: in the middle of something.
        ended: Resolved with the moment of the end.
        failed: How it ended when it was no orderly end.
    """

    def __init__(self, path: str) -> None:
        loop = asyncio.get_running_loop()
        self.path = path.encode()
        self.received = bytearray()
        self.arrived: asyncio.Future[None] = loop.create_future()
        self.ended: asyncio.Future[float] = loop.create_future()
        self.failed: Exception | None = None
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(self.first_bytes())

    def data_received(self, data: bytes) -> None:
        self.received += data
        self.read()

    def connection_lost(self, error: Exception | None) -> None:
        self.failed = error
        self.ended.set_result(now())
        self.arrive()

    def arrive(self) -> None:
        if not self.arrived.done():
            self.arrived.set_result(None)

    def first_bytes(self) -> bytes:
        """What it sends once it is connected."""
        return b"GET %b HTTP/1.1\r\nhost: drill\r\n\r\n" % self.path

    def read(self) -> None:
        """Bytes have come."""


class Request(Client):
    """A request that takes its time; it has arrived as soon as it is sent."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.arrive()

    def read(self) -> None:
        if self.complete:
            self.transport.close()

    @property
    def status(self) -> int:
        """0 when no answer came."""
        return int(self.received[9:12]) if len(self.received) > 12 else 0

    @property
    def complete(self) -> bool:
        """Whether the whole answer is here."""
        head, end, body = self.received.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head)
        return bool(end) and length is not None and len(body) == int(length[1])


class EventStream(Client):
    """Reads server-sent events."""

    def read(self) -> None:
        if b"data: " in self.received:
            self.arrive()

    @property
    def complete(self) -> bool:
        """Whether the answer ended as a whole one does."""
        return self.received.endswith(b"0\r\n\r\n")

    @property
    def retry(self) -> int | None:
        """Milliseconds it was asked to wait; None when it was not."""
        found = re.search(rb"^retry: (\d+)$", self.received, re.MULTILINE)
        return int(found[1]) if found else None


class WebSocket(Client):
    """Opens a WebSocket, answers pings, and the close frame if it is polite.

    Attributes:
        closed: When the close frame came, and its code.
    """

    def __init__(self, path: str, *, polite: bool = True) -> None:
        super().__init__(path)
        self.polite = polite
        self.closed: tuple[float, int] | None = None
        self._open = False

    def first_bytes(self) -> bytes:
        return _HANDSHAKE % self.path

    def read(self) -> None:
        if not self._open:
            head, end, rest = self.received.partition(b"\r\n\r\n")
            if not end:
                return
            assert head.startswith(b"HTTP/1.1 101 "), head
            self._open = True
            self.received = rest
            self.arrive()
        while len(self.received) >= 2 and len(self.received) >= (size := 2 + self.received[1]):
            opcode, payload = self.received[0] & 15, bytes(self.received[2:size])
            del self.received[:size]
            if opcode == 8:
                self.closed = now(), struct.unpack(">H", payload[:2])[0]
                if self.polite:
                    self._send(8, payload[:2])
            elif opcode == 9:
                self._send(10, payload)

    def _send(self, opcode: int, payload: bytes) -> None:
        self.transport.write(bytes((0x80 | opcode, 0x80 | len(payload), 0, 0, 0, 0)) + payload)  # masked with zeros


class Crowd:
    """The clients of one drill; who is left at its end is disconnected.

    Args:
        port: Where they connect.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._everybody: list[Client] = []

    async def __aenter__(self) -> Crowd:
        return self

    async def __aexit__(self, *error: object) -> None:
        for client in self._everybody:
            client.transport.abort()
        await asyncio.sleep(0.05)  # until the transports are closed

    async def join(self, make: Callable[[], C], count: int) -> list[C]:
        """So many clients connect; all of them have arrived.

        Raises:
            OSError: One is refused or reset.
            TimeoutError: It takes more than a minute.
        """
        loop = asyncio.get_running_loop()
        clients = [make() for _ in range(count)]
        waiting = iter(clients)

        async def several() -> None:
            for client in waiting:
                await loop.create_connection(functools.partial(_this, client), "127.0.0.1", self._port)
                self._everybody.append(client)
                await client.arrived

        async with asyncio.timeout(60):
            await asyncio.gather(*(several() for _ in range(_AT_ONCE)))
        return clients


def _this(client: C) -> C:
    return client


def play(main: Callable[[Serving, Crowd], Awaitable[None]], served: Serving) -> None:
    """Run a drill on a server, with a crowd of its own."""

    async def playing() -> None:
        async with Crowd(served.port) as crowd:
            await main(served, crowd)

    asyncio.run(playing())


async def all_ended(clients: Iterable[Client], seconds: float) -> None:
    """Wait until the last of them has ended.

    Raises:
        TimeoutError: It takes longer.
    """
    async with asyncio.timeout(seconds):
        for client in clients:
            await client.ended


class Load:
    """Requests without a pause: some on new connections each time, some on connections that are kept.

    Args:
        port: Where.
        new: Clients that connect for every request.
        kept: Clients that keep their connection as long as the server does.

    Attributes:
        answers: How many answers had which body: the process that gave them.
        failures: What went wrong.
        retried: Requests on a kept connection that the server had closed just before, in an orderly way: RFC 9112
            section 9.3.1 asks clients to send those again.
    """

    def __init__(self, port: int, *, new: int = 4, kept: int = 4) -> None:
        self.answers: Counter[str] = Counter()
        self.failures: list[str] = []
        self.retried = 0
        self._port = port
        self._kinds = [True] * kept + [False] * new
        self._over = False
        self._running: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Load:
        self._running = [asyncio.create_task(self._client(keep)) for keep in self._kinds]
        return self

    async def __aexit__(self, *error: object) -> None:
        self._over = True
        await asyncio.gather(*self._running)

    async def _client(self, keep: bool) -> None:
        while not self._over:
            try:
                async with asyncio.timeout(20):
                    await self._connection(keep)
            except (OSError, TimeoutError, EOFError, ValueError) as error:
                self.failures.append(repr(error))
                await asyncio.sleep(0.05)

    async def _connection(self, keep: bool) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            for number in range(200 if keep else 1):
                writer.write(b"GET / HTTP/1.1\r\nhost: drill\r\n\r\n")
                try:
                    head = await reader.readuntil(b"\r\n\r\n")
                except asyncio.IncompleteReadError as error:
                    if number and not error.partial:
                        self.retried += 1
                        return
                    raise
                length = re.search(rb"content-length: (\d+)", head)
                if not head.startswith(b"HTTP/1.1 200 ") or length is None:
                    raise ValueError(head)
                self.answers[(await reader.readexactly(int(length[1]))).decode()] += 1
                if b"connection: close" in head or self._over:
                    return
                await asyncio.sleep(0.002)
        finally:
            writer.close()
