"""What is connected now, as a worker tells it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from sojourn.config import Config, Limits, Timeouts
from sojourn.errors import ErrandError
from sojourn.observe.connections import ConnectionInfo, Connections
from sojourn.testing import MemoryServer
from sojourn.typing import Receive, Scope, Send

HANDSHAKE = (
    "connection: upgrade",
    "upgrade: websocket",
    "sec-websocket-version: 13",
    "sec-websocket-key: " + "A" * 22 + "==",
)


class Route:
    path = "/items/{id}"


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await receive()
    elif scope["path"] == "/events":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})
        await receive()
        await receive()
    elif scope["path"] == "/large":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
    elif scope["path"].startswith("/items"):
        scope["route"] = Route()
        await receive()
        await receive()
    else:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body"})


def served(test: Callable[[MemoryServer], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        async with MemoryServer(
            app, Config(limits=Limits(write_buffer=65536), timeouts=Timeouts(header=30.0))
        ) as server:
            await test(server)

    asyncio.run(main())


async def listed(server: MemoryServer, **filters: Any) -> list[ConnectionInfo]:
    return await Connections(server.site).list(filters)


def test_each_connection_is_told_with_what_would_end_it_next() -> None:
    async def test(server: MemoryServer) -> None:
        opening, idle, busy = server.connect(), server.connect(), server.connect()
        idle.get("/")
        busy.get("/items/7")
        await server.settle()
        await server.advance(5)
        rows = {row.id: row for row in await listed(server)}
        first, second, third = (rows[client.connection.id] for client in (opening, idle, busy))
        assert (first.kind, first.deadline, round(first.deadline_in or 0)) == ("opening", "header", 25)
        assert (second.kind, second.deadline, round(second.deadline_in or 0)) == ("idle", "keep_alive", 70)
        assert (third.kind, third.method, third.route, third.path) == ("request", "GET", "/items/{id}", "/items/7")
        assert (third.deadline, round(third.deadline_in or 0), round(third.age)) == ("response_start", 55, 5)

    served(test)


def test_streams_and_websockets_are_told_apart() -> None:
    async def test(server: MemoryServer) -> None:
        stream, socket = server.connect(), server.connect()
        stream.get("/events")
        socket.get("/ws", *HANDSHAKE)
        await server.settle()
        rows = {row.id: row for row in await listed(server)}
        assert rows[stream.connection.id].kind == "event_stream"
        assert rows[socket.connection.id][3:7] == ("websocket", "websocket", "websocket", "WEBSOCKET")

    served(test)


def test_filters_leave_what_was_asked_for() -> None:
    async def test(server: MemoryServer) -> None:
        old = server.connect()
        old.get("/")
        await server.advance(20)
        young, slow = server.connect(), server.connect()
        slow.peer.stop_taking()
        slow.get("/large")
        young.get("/items/1")
        await server.settle()
        assert [row.id for row in await listed(server, older=10)] == [old.connection.id]
        assert [row.id for row in await listed(server, idle=10)] == [old.connection.id]
        assert [row.id for row in await listed(server, slow=True)] == [slow.connection.id]
        assert [row.id for row in await listed(server, route="/items/{id}")] == [young.connection.id]
        assert [row.id for row in await listed(server, route="/large")] == [slow.connection.id]
        assert [row.id for row in await listed(server, peer=young.connection.peer_name)] == [young.connection.id]
        assert len(await listed(server, limit=2)) == 2
        with pytest.raises(ErrandError, match="no filter 'colour'"):
            await listed(server, colour="red")

    served(test)


def test_a_head_that_comes_by_the_byte_is_suspicious() -> None:
    async def test(server: MemoryServer) -> None:
        client, quiet = server.connect(), server.connect()
        client.send(b"GET / HT")
        await server.advance(6)
        rows = await listed(server, suspicious=True)
        assert [(row.id, row.suspicious) for row in rows] == [
            (client.connection.id, "takes long to send a request head")
        ]
        assert quiet.connection.ending is None

    served(test)
