"""A real server on a real port inside a test's loop, with the accounting checked when it has ended."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
import uvloop

from sojourn.bus import Bus
from sojourn.config import Bind, Config, Drain, Log
from sojourn.events import ConnectionEnded, ConnectionOpened, Event
from sojourn.net.connection import Connection
from sojourn.server.server import Server

__all__ = ["Client", "Run", "Served", "both_loops", "hello", "open_sockets", "serving", "until"]

Run = Callable[[Coroutine[Any, Any, Any]], Any]
both_loops = pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])


async def hello(scope: Any, receive: Any, send: Any) -> None:
    """An application without lifespan that answers everything with ``hello``."""
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": b"hello"})


class Served:
    """A server that runs, and what it said."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.events: list[Any] = []
        self.clients: list[Client] = []

    @property
    def port(self) -> int:
        return int(self.server.addresses[0].rpartition(":")[2])

    @property
    def connections(self) -> list[Connection]:
        """Those that are open."""
        return list(self.server.runtime.registry)

    @property
    def ended_by(self) -> Counter[str]:
        """How many connections ended by each reason."""
        return self.server.runtime.registry.ended_by

    def of(self, kind: type[Event]) -> list[Any]:
        """The events of a kind."""
        return [event for event in self.events if type(event) is kind]

    async def connect(self, tls: ssl.SSLContext | None = None, **options: Any) -> Client:
        name = "a.example" if tls is not None else None
        async with asyncio.timeout(10):
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", self.port, ssl=tls, server_hostname=name, **options
            )
        self.clients.append(Client(reader, writer))
        return self.clients[-1]

    async def get(self, path: str = "/", *, tls: ssl.SSLContext | None = None, before: bytes = b"") -> bytes:
        """What comes back for one request, until the end of the connection."""
        client = await self.connect(tls)
        client.send(before + b"GET %b HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" % path.encode())
        return await client.rest()


class Client:
    """One connection to the server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    def get(self, path: str = "/", *headers: str) -> None:
        """Ask for something, and keep the connection."""
        lines = "".join(f"{header}\r\n" for header in headers)
        self.send(f"GET {path} HTTP/1.1\r\nHost: a\r\n{lines}\r\n".encode())

    async def head(self) -> bytes:
        """A response head."""
        async with asyncio.timeout(10):
            return await self.reader.readuntil(b"\r\n\r\n")

    async def read(self, size: int) -> bytes:
        async with asyncio.timeout(10):
            return await self.reader.readexactly(size)

    async def chunks(self) -> int:
        """Read a body that comes in chunks; its size."""
        total = 0
        while size := int(await self.reader.readuntil(b"\r\n"), 16):
            await self.read(size + 2)
            total += size
        await self.read(2)
        return total

    async def rest(self) -> bytes:
        """All that comes until the end; a reset counts as one."""
        data = b""
        with suppress(ConnectionError, ssl.SSLError):
            async with asyncio.timeout(10):
                while piece := await self.reader.read(65536):
                    data += piece
        await self.close()
        return data

    async def close(self) -> None:
        self.writer.close()
        with suppress(ConnectionError, ssl.SSLError, TimeoutError):
            async with asyncio.timeout(2):
                await self.writer.wait_closed()

    def abort(self) -> None:
        self.writer.transport.abort()


@asynccontextmanager
async def serving(app: Any = hello, config: Config | None = None, **groups: Any) -> AsyncIterator[Served]:
    """Serve an application on a free port of 127.0.0.1; at the end nothing may be left of it.

    Args:
        app: The application.
        config: All settings; None makes them of ``groups``.
        groups: Groups of the configuration, such as ``timeouts=Timeouts(header=1)``, and ``sockets``.
    """
    sockets = groups.pop("sockets", None)
    if config is None:
        config = Config(**{"bind": Bind(port=0), "log": Log(access="off"), **groups})
    if config.drain.delay == Drain().delay:  # nothing here waits for a balancer
        config = msgspec.structs.replace(config, drain=msgspec.structs.replace(config.drain, delay=0.0))
    bus = Bus()
    server = Server(app, config, bus=bus, sockets=sockets)
    served = Served(server)
    for kind in Event.__args__:  # type: ignore[attr-defined]
        bus.observe(kind, served.events.append)
    before = asyncio.all_tasks()
    sockets_before = open_sockets()
    await server.start()
    registry = server.runtime.registry
    try:
        yield served
    finally:
        for client in served.clients:
            await client.close()
        server.drain(0.0)
        async with asyncio.timeout(30):
            await server.wait_stopped()
    assert len(registry) == 0
    assert registry.accepted == registry.ended
    assert len(served.of(ConnectionOpened)) == len(served.of(ConnectionEnded)) == registry.ended
    assert not server.work.running
    assert bus.failures == 0, bus.last_failure
    await until(lambda: asyncio.all_tasks() <= before)  # what was cancelled last
    await until(lambda: open_sockets() <= sockets_before)


async def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Wait for something that is about to become true."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - the condition is somebody else's state
            await asyncio.sleep(0.002)


def open_sockets() -> int:
    """How many sockets this process has."""
    count = 0
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            count += os.readlink(entry).startswith("socket:")
    return count
