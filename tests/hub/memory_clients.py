"""Clients of a hub that Sojourn serves without sockets: each takes as much as its test says."""

from __future__ import annotations

import json
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sojourn.config import Config, Limits
from sojourn.hub.hub import Hub
from sojourn.hub.member import Member
from sojourn.hub.memory import MemoryEngine
from sojourn.hub.rules import Channel, History
from sojourn.testing.raw import RawWebSocket
from sojourn.testing.server import MemoryClient, MemoryServer
from tests.hub.stand_ins import Engine, gone

__all__ = ["ROOM", "Client", "Site", "serving"]

#: Bytes that a transport takes before it says that it has all it takes.
ROOM = 4096
_TEXT, _BINARY, _CLOSE = 1, 2, 8


class Client:
    """A WebSocket, or an event stream, of a memory server.

    Attributes:
        peer: Its end of the transport: stops taking, takes some, takes all.
        texts: Text messages that have come, in order.
        code: Close code; None while it was not closed.
    """

    def __init__(self, hub: Hub, client: MemoryClient) -> None:
        self._hub = hub
        self._client = client
        self.peer = client.peer
        self.connection = client.connection
        self.texts: list[str] = []
        self.code: int | None = None
        self._frames = True

    @property
    def member(self) -> Member:
        """What the hub knows of it."""
        members = self._hub.node.members.values()
        (found,) = [each for each in members if getattr(each, "connection", None) is self.connection]
        return found

    def say(self, **command: Any) -> None:
        """Send a command of ``sojourn.v1``."""
        self._client.send(RawWebSocket.encode(_TEXT, json.dumps(command).encode()))

    def answer(self) -> None:
        """Answer a ping."""
        self._client.send(RawWebSocket.encode(_TEXT, b"{}"))

    def close(self, code: int = 1000) -> None:
        """Send a close frame."""
        self._client.send(RawWebSocket.encode(_CLOSE, struct.pack("!H", code)))

    def upgraded(self) -> None:
        """The answer to the opening handshake must be there."""
        head, _, rest = bytes(self.peer.received).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101"), head
        self.peer.received[:] = rest

    def read(self) -> list[str]:
        """Take all whole messages that have arrived; gives those that are new."""
        before = len(self.texts)
        data = self.peer.received
        while len(data) >= 2:
            length, start = data[1], 2
            if length == 126:
                (length,), start = struct.unpack("!H", data[2:4]) if len(data) >= 4 else (1 << 20,), 4
            elif length == 127:
                (length,), start = struct.unpack("!Q", data[2:10]) if len(data) >= 10 else (1 << 20,), 10
            if len(data) < start + length:
                break
            opcode, payload = data[0] & 15, bytes(data[start : start + length])
            del data[: start + length]
            if opcode == _CLOSE:
                (self.code,) = struct.unpack("!H", payload[:2])
            elif opcode in (_TEXT, _BINARY):
                self.texts.extend(payload.decode().split("\n"))
        return self.texts[before:]

    def said(self) -> list[dict[str, Any]]:
        """As :meth:`read`, for ``sojourn.v1``."""
        return [json.loads(each) for each in self.read()]


class Site:
    """A hub and its server.

    Attributes:
        hub: The hub.
        server: The server; its clock is moved by hand.
    """

    def __init__(self, hub: Hub, server: MemoryServer) -> None:
        self.hub = hub
        self.server = server

    async def client(self, path: str = "/", *headers: str, v1: bool = False) -> Client:
        """A WebSocket that is a member."""
        client = Client(self.hub, self.server.connect())
        more = [*headers, "sec-websocket-protocol: sojourn.v1"] if v1 else list(headers)
        client._client.get(
            path,
            "connection: Upgrade",
            "upgrade: websocket",
            "sec-websocket-key: c29qb3VybnNvam91cm4wMA==",
            "sec-websocket-version: 13",
            *more,
        )
        await self.server.settle()
        client.upgraded()
        return client

    async def stream(self, path: str) -> MemoryClient:
        """An event stream."""
        client = self.server.connect()
        client.get(path, "accept: text/event-stream")
        await self.server.settle()
        return client

    async def settle(self) -> None:
        """Let everything happen that is due."""
        await self.server.settle()


@asynccontextmanager
async def serving(
    *channels: Channel, engine: MemoryEngine | None = None, room: int = ROOM, **options: Any
) -> AsyncIterator[Site]:
    """A hub that is served; at the end all have left, and nothing is left of them."""
    hub = Hub(engine or Engine(), channels or (Channel("{name}", History(size=100), public=True),), **options)
    config = Config(limits=Limits(write_buffer=room))
    async with MemoryServer(hub.app(), config) as server:
        yield Site(hub, server)
        for connection in list(server.runtime.registry):
            if connection.transport is not None:
                connection.transport.abort()
        await server.settle()
        gone(hub)
