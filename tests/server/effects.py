"""What each setting does: how it shows on a connection, and what is seen with its default and with another value.

All of it in memory, where a test moves the time.
"""

from __future__ import annotations

import asyncio
import re
import zlib
from collections.abc import Awaitable, Callable
from typing import Any

from sojourn.events import ConnectionGrewOld, DrainCut
from sojourn.testing import MemoryClient, MemoryServer

__all__ = ["EFFECTS", "Show", "Stage", "app", "ws_behind"]


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answers; at ``/wait`` never, at ``/body`` after the body, at ``/stream`` with an answer that does not end."""
    if scope["type"] == "lifespan":
        raise NotImplementedError
    if scope["type"] == "websocket":
        await receive()
        if scope["path"] != "/wait":
            await send({"type": "websocket.accept"})
        if scope["path"] == "/lazy":
            await asyncio.get_running_loop().create_future()
        if scope["path"] == "/burst":  # to a client that takes nothing
            scope["extensions"]["sojourn"].connection.transport.peer.stop_taking()
            await asyncio.gather(*(send({"type": "websocket.send", "text": "x" * 2000}) for _ in range(60)))
        while True:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                return
            await send({"type": "websocket.send", "text": message.get("text") or "x" * 2000})
    if scope["path"] == "/wait":
        await asyncio.get_running_loop().create_future()
    size = 0
    if scope["path"] == "/body":
        more = True
        while more:
            message = await receive()
            size += len(message.get("body", b""))
            more = message.get("more_body", False)
    root = scope.get("root_path", "").encode()
    client = (scope["client"] or ("unix",))[0].encode()
    body = b"%d %b %b" % (size, root, client)
    if scope["path"] == "/big":
        body = b"x" * 100_000
    elif scope["path"] == "/2000":
        body = b"x" * 2000
    kind = [(b"content-type", b"text/event-stream")] if scope["path"] == "/events" else []
    await send({"type": "http.response.start", "status": 200, "headers": kind})
    if scope["path"] in ("/stream", "/events"):
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        await asyncio.get_running_loop().create_future()
    await send({"type": "http.response.body", "body": body})


UPGRADE = (
    b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


class Stage:
    """A server in memory, and a client of it."""

    def __init__(self, server: MemoryServer) -> None:
        self.server = server
        self.client: MemoryClient = server.connect()

    async def ask(self, path: str = "/", *headers: str, method: str = "GET", body: bytes = b"") -> int:
        """The status of an answer; 0 while there is none."""
        self.client.get(path, *headers, method=method, body=body)
        await self.server.settle()
        return self.client.response(method=method).status or 0

    async def upgrade(self, path: str = "/", extra: bytes = b"") -> bytes:
        self.client.send(b"GET %b HTTP/1.1\r\nHost: test\r\n%b%b\r\n" % (path.encode(), UPGRADE, extra))
        await self.server.settle()
        return self.client.received

    async def after(self, seconds: float) -> str:
        """Why the connection has ended by then; "" while it lives."""
        await self.server.advance(seconds)
        ending = self.client.connection.ending
        return ending.reason if ending is not None else ""


async def header(stage: Stage) -> object:
    stage.client.send(b"GET / HT")
    return await stage.after(3)


async def tls(stage: Stage) -> object:
    client = stage.server.connect(handshake=False)
    await stage.server.advance(3)
    return client.connection.ending is not None and client.connection.ending.reason


async def body_idle(stage: Stage) -> object:
    await stage.ask("/body", "content-length: 10", method="POST")
    return await stage.after(3)


async def response_start(stage: Stage) -> object:
    await stage.ask("/wait")
    await stage.after(3)
    return stage.client.response().status or 0


async def stream_idle(stage: Stage) -> object:
    await stage.ask("/stream")
    return await stage.after(3)


async def keep_alive(stage: Stage) -> object:
    await stage.ask()
    return await stage.after(3)


async def lifetime(stage: Stage) -> object:
    await stage.ask()
    return await stage.after(3)


async def disconnect_grace(stage: Stage) -> object:
    await stage.ask("/wait")
    stage.client.peer.send_eof()
    return await stage.after(1.5)


async def status_of(stage: Stage, *headers: str, path: str = "/", method: str = "GET", body: bytes = b"") -> object:
    return await stage.ask(path, *headers, method=method, body=body)


async def long_target(stage: Stage) -> object:
    return await status_of(stage, path="/" + "x" * 100)


async def long_head(stage: Stage) -> object:
    return await status_of(stage, "x: " + "y" * 300)


async def many_headers(stage: Stage) -> object:
    return await status_of(stage, *(f"x{number}: y" for number in range(8)))


async def long_body(stage: Stage) -> object:
    return await status_of(stage, path="/body", method="POST", body=b"x" * 100)


async def slow_body(stage: Stage) -> object:
    stage.client.send(b"POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n")
    for _ in range(4):
        await stage.server.advance(1)
        stage.client.send(b"x" * 20)
    return await stage.after(1)


async def rotated(stage: Stage) -> object:
    await stage.ask()
    return await stage.after(1.5)


async def full(stage: Stage) -> object:
    """The status of a second request while the first one runs."""
    await stage.ask("/wait")
    stage.client = stage.server.connect()
    status = await stage.ask("/wait")
    return status or await stage.after(0.8) or stage.client.response().status or 0


async def retry_after(stage: Stage) -> object:
    await stage.ask("/wait")
    stage.client = stage.server.connect()
    stage.client.get("/")
    await stage.server.settle()
    return stage.client.response().header("retry-after")


async def headers_sent(stage: Stage) -> object:
    stage.client.get("/")
    await stage.server.settle()
    answer = stage.client.response()
    return answer.header("server"), answer.header("date") is not None


async def root(stage: Stage) -> object:
    stage.client.get("/")
    await stage.server.settle()
    return stage.client.response().body.split()[1:-1]


async def ws_open(stage: Stage) -> object:
    await stage.upgrade("/wait")
    return await stage.after(3)


async def ws_ping(stage: Stage) -> object:
    await stage.upgrade()
    await stage.server.advance(3)
    return stage.client.received.endswith(b"\x89\x00")


async def ws_dead(stage: Stage) -> object:
    await stage.upgrade()
    return await stage.after(6)


async def ws_idle(stage: Stage) -> object:
    await stage.upgrade()
    await stage.server.advance(3)
    return b"\x88\x06\x03\xe9idle" in stage.client.received


async def ws_close(stage: Stage) -> object:
    await stage.upgrade()
    stage.server.drain(0.0)
    return await stage.after(3)


async def ws_message(stage: Stage) -> object:
    await stage.upgrade()
    stage.client.send(b"\x81\xfe\x07\xd0\0\0\0\0" + b"x" * 2000)
    await stage.server.settle()
    return stage.client.connection.ending is not None and stage.client.connection.ending.reason


async def ws_inflated(stage: Stage) -> object:
    """A message of many zeros, sent compressed: whether its ratio is allowed."""
    await stage.upgrade(extra=b"Sec-WebSocket-Extensions: permessage-deflate\r\n")
    press = zlib.compressobj(9, zlib.DEFLATED, -15)
    data = (press.compress(b"x" * 200_000) + press.flush(zlib.Z_SYNC_FLUSH))[:-4]
    stage.client.send(b"\xc2\xfe" + len(data).to_bytes(2, "big") + b"\0\0\0\0" + data)
    await stage.server.settle()
    return stage.client.connection.ending is not None and stage.client.connection.ending.reason


async def ws_extensions(stage: Stage) -> object:
    answer = await stage.upgrade(extra=b"Sec-WebSocket-Extensions: permessage-deflate\r\n")
    found = re.search(rb"(?i)sec-websocket-extensions: ([^\r]*)", answer)
    return found is not None and b"no_context_takeover" not in found[1], found is not None


async def ws_compressed(stage: Stage) -> object:
    """Whether a message of 2,000 bytes is sent compressed."""
    answer = await stage.upgrade(extra=b"Sec-WebSocket-Extensions: permessage-deflate\r\n")
    stage.client.send(b"\x82\x81\0\0\0\0x")
    await stage.server.settle()
    return stage.client.received[len(answer)] == 0xC1


async def ws_origin(stage: Stage) -> object:
    return (await stage.upgrade(extra=b"Origin: https://b.example\r\n"))[9:12]


async def drain_notice(stage: Stage) -> object:
    stage.server.drain()
    await stage.server.advance(1)
    return stage.server.site.draining


async def drain_read_only(stage: Stage) -> object:
    stage.server.drain(10.0)
    return await status_of(stage, method="POST")


async def drain_requests(stage: Stage) -> object:
    await stage.ask("/wait")
    stage.server.drain(0.0)
    return await stage.after(4)


async def drain_goodbye(stage: Stage) -> object:
    await stage.upgrade()
    stage.server.drain(0.0)
    await stage.server.advance(31)
    found = re.search(rb"\x88[^\x03]\x03(.)", stage.client.received)
    return found is not None and found[1]


async def told_to_close(stage: Stage) -> object:
    """Whether five WebSockets were told within a second."""
    clients = []
    for _ in range(5):
        stage.client = stage.server.connect()
        await stage.upgrade()
        clients.append(stage.client)
    stage.server.drain(0.0)
    await stage.server.advance(1)
    return all(b"service restart" in client.received for client in clients)


async def behind(stage: Stage) -> object:
    stage.client.peer.stop_taking()
    await stage.ask("/big")
    return await stage.after(3)


async def dripping(stage: Stage) -> object:
    stage.client.peer.stop_taking()
    await stage.ask("/big")
    for _ in range(3):
        stage.client.peer.take(10)
        await stage.server.advance(1)
    return await stage.after(0)


async def blocked(stage: Stage) -> object:
    stage.client.peer.stop_taking()
    await stage.ask("/2000")
    return stage.client.connection.blocked


async def held_back(stage: Stage) -> object:
    stage.client.send(b"POST /wait HTTP/1.1\r\nHost: a\r\nContent-Length: 9000\r\n\r\n" + b"x" * 2000)
    await stage.server.settle()
    return stage.client.connection.reading_paused


async def closing(stage: Stage) -> object:
    stage.client.peer.stop_taking()
    await stage.ask("/2000", "connection: close")
    connection = stage.client.connection
    return round(connection.due.close - connection.runtime.ticker.now, 3)


async def lingering(stage: Stage) -> object:
    stage.client.send(b"no request\r\n\r\n")
    await stage.server.settle()
    connection = stage.client.connection
    return round(connection.due.close - connection.runtime.ticker.now, 3)


async def ws_behind(stage: Stage) -> object:
    await stage.upgrade("/burst")
    await stage.server.advance(3)
    return stage.client.connection.ws_sent


async def ws_held_back(stage: Stage) -> object:
    await stage.upgrade("/lazy")
    stage.client.send(b"\x81\xfe\x01\xf4\0\0\0\0".ljust(508, b"x") * 5)
    await stage.server.settle()
    return stage.client.connection.reading_paused


async def drain_streams(stage: Stage) -> object:
    await stage.ask("/events")
    stage.server.drain(0.0)
    return await stage.after(2)


async def drain_sockets(stage: Stage) -> object:
    await stage.upgrade()
    stage.server.drain(0.0)
    await stage.server.advance(3)
    return len(stage.server.seen(DrainCut))


async def long_connection(stage: Stage) -> object:
    await stage.server.advance(3)
    return len(stage.server.seen(ConnectionGrewOld))


async def participant_time(stage: Stage) -> object:
    stage.server.site.control.on_drain(lambda: asyncio.get_running_loop().create_future())
    return stage.server.site.control.participants[0].timeout


Show = Callable[[Stage], Awaitable[object]]
#: Key and new value; how it shows; what is seen before and after. Other keys that it needs may be set as well.
EFFECTS: list[tuple[dict[str, Any], Show, object, object]] = [
    ({"timeouts.header": 2}, header, "", "request_headers_timeout"),
    ({"timeouts.tls": 2}, tls, False, "tls_timeout"),
    ({"timeouts.body_idle": 2}, body_idle, "", "request_body_timeout"),
    ({"timeouts.body": 2}, body_idle, "", "request_body_timeout"),
    ({"timeouts.response_start": 2}, response_start, 0, 504),
    ({"timeouts.handler": 2}, response_start, 0, 504),
    ({"timeouts.stream_idle": 2}, stream_idle, "", "stream_idle"),
    ({"timeouts.keep_alive": 2}, keep_alive, "", "keep_alive_idle"),
    ({"timeouts.lifetime": 2}, lifetime, "", "max_connection_duration"),
    ({"timeouts.disconnect_grace": 0.5}, disconnect_grace, "", "client_closed_request"),
    ({"limits.target": 50}, long_target, 200, 414),
    ({"limits.header_bytes": 200}, long_head, 200, 431),
    ({"limits.headers": 5}, many_headers, 200, 431),
    ({"limits.body": 50}, long_body, 200, 413),
    ({"limits.body_min_rate": 1000, "limits.rate_grace": 1}, slow_body, "", "min_request_body_data_rate"),
    ({"limits.rate_grace": 1}, slow_body, "", "min_request_body_data_rate"),
    ({"limits.requests_per_connection": 1}, rotated, "", "keep_alive_rotated"),
    ({"limits.requests": 1, "limits.queue": 0}, full, 0, 503),
    ({"limits.requests": 1, "limits.queue_wait": 0.5}, full, 0, "queue_timeout"),
    ({"limits.requests": 1, "limits.queue": 0, "limits.retry_after": 7}, retry_after, None, "7"),
    ({"log.server_header": True}, headers_sent, (None, True), ("sojourn", True)),
    ({"log.date_header": False}, headers_sent, (None, True), (None, False)),
    ({"log.long_connection": 2}, long_connection, 0, 1),
    ({"app.root_path": "/api"}, root, [], [b"/api"]),
    ({"routes": [{"path": "/wait", "timeouts": {"response_start": 2}}]}, response_start, 0, 504),
    ({"websocket.open": 2}, ws_open, "", "handshake_timeout"),
    ({"websocket.ping_interval": 2}, ws_ping, False, True),
    (
        {"websocket.ping_interval": 2, "websocket.ping_timeout": 1, "websocket.ping_misses": 1},
        ws_dead,
        "",
        "pong_timeout",
    ),
    ({"websocket.idle": 2}, ws_idle, False, True),
    ({"websocket.close": 2}, ws_close, "", "drain_goodbye"),
    ({"websocket.message": 1000}, ws_message, False, "ws_message_too_big"),
    ({"websocket.inflate_ratio": "none"}, ws_inflated, "ws_message_too_big", False),
    ({"websocket.compression": False}, ws_extensions, (False, True), (False, False)),
    ({"websocket.compression_takeover": True}, ws_extensions, (False, True), (True, True)),
    ({"websocket.compression_threshold": 5000}, ws_compressed, True, False),
    ({"websocket.origins": ["https://a.example"]}, ws_origin, b"101", b"403"),
    ({"drain.delay": 0}, drain_notice, False, True),
    ({"drain.read_only": True}, drain_read_only, 200, 503),
    ({"drain.requests": 2}, drain_requests, "", "drain_forced"),
    ({"drain.total": 2}, drain_requests, "", "drain_forced"),
    ({"drain.strategy": "none"}, drain_requests, "", "drain_forced"),
    ({"drain.coming_back": False}, drain_goodbye, b"\xf4", b"\xe9"),
    ({"drain.close_rate": 1}, told_to_close, True, False),
    ({"drain.streams": 1}, drain_streams, "", "drain_goodbye"),
    ({"drain.sockets": 2}, drain_sockets, 0, 1),
    ({"timeouts.write_idle": 2}, behind, "", "send_timeout"),
    ({"limits.write_min_rate": 9000, "limits.rate_grace": 1}, dripping, "", "min_response_data_rate"),
    ({"limits.write_buffer": 1000}, blocked, False, True),
    ({"limits.read_buffer": 1000}, held_back, False, True),
    ({"timeouts.close": 3}, closing, 1.0, 3.0),
    ({"timeouts.linger": 3}, lingering, 1.0, 3.0),
    ({"websocket.write": 2}, ws_behind, None, 1013),
    ({"websocket.queue": 10}, ws_behind, None, 1013),
    ({"websocket.queue": 3}, ws_held_back, False, True),
    ({"websocket.queue_bytes": 1000}, ws_held_back, False, True),
    ({"drain.persist": 3}, participant_time, 10.0, 3.0),
]
