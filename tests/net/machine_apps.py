"""Applications of every temper, on served time: for the state machine over connections."""

from __future__ import annotations

import asyncio
from typing import Any

from sojourn.testing import MemoryServer
from sojourn.typing import Receive, Scope, Send

__all__ = ["HTTP_PATHS", "SOCKET_PATHS", "Apps"]


class Apps:
    """One application whose paths behave in different ways."""

    def __init__(self) -> None:
        self.server: MemoryServer
        #: Set at the end, so that even the stubborn leave.
        self.over: asyncio.Event = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        name = scope["path"].strip("/").replace("-", "_")
        await getattr(self, name)(scope, receive, send)

    # HTTP

    async def _answer(self, send: Send, body: bytes = b"hello", *, status: int = 200, **headers: str) -> None:
        fields = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": fields})
        await send({"type": "http.response.body", "body": body})

    async def fast(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._answer(send)

    async def slow(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.server.sleep(2.5)
        await self._answer(send)

    async def never(self, scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.get_running_loop().create_future()

    async def read(self, scope: Scope, receive: Receive, send: Send) -> None:
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            size += len(message["body"])
            if not message["more_body"]:
                break
        await self._answer(send, b"%d" % size)

    async def read_slowly(self, scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive()).get("more_body"):
            await self.server.sleep(1.0)
        await self._answer(send)

    async def wait_for_leaving(self, scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    async def stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200})
        for _ in range(10):
            await send({"type": "http.response.body", "body": b"x" * 20_000, "more_body": True})
            await self.server.sleep(0.5)
        await send({"type": "http.response.body"})

    async def stream_and_stop(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        await asyncio.get_running_loop().create_future()

    async def events(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        while True:
            await send({"type": "http.response.body", "body": b"data: x\n\n", "more_body": True})
            await self.server.sleep(1.0)

    async def large(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._answer(send, b"x" * 300_000)

    async def declared(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-length", b"100000")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for index in range(10):
            await send({"type": "http.response.body", "body": b"x" * 10_000, "more_body": index < 9})

    async def crash_first(self, scope: Scope, receive: Receive, send: Send) -> None:
        raise ValueError("before the head")

    async def crash_between(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200})
        raise ValueError("before the body")

    async def crash_inside(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        raise ValueError("inside the body")

    async def cancels_itself(self, scope: Scope, receive: Receive, send: Send) -> None:
        raise asyncio.CancelledError

    async def wrong_length(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._answer(send, b"hello", content_length="99")

    async def nothing(self, scope: Scope, receive: Receive, send: Send) -> None:
        return

    async def goes_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._answer(send)
        await self.server.sleep(4.0)

    async def cleans_up(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            await self.server.sleep(0.3)

    async def swallows(self, scope: Scope, receive: Receive, send: Send) -> None:
        for _ in range(2):
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                continue
        await self._answer(send)

    async def stubborn(self, scope: Scope, receive: Receive, send: Send) -> None:
        while not self.over.is_set():
            try:
                await self.over.wait()
            except asyncio.CancelledError:
                continue

    async def own_limits(self, scope: Scope, receive: Receive, send: Send) -> None:
        request: Any = scope["extensions"]["sojourn"]
        request.set_timeout("handler", 1.0)
        request.set_timeout("stream_idle", 0.5)
        await self.stream(scope, receive, send)

    # WebSocket

    async def _listen(self, receive: Receive, send: Send, *, echo: bool) -> None:
        while (message := await receive())["type"] != "websocket.disconnect":
            if echo and message["type"] == "websocket.receive":
                await send({**message, "type": "websocket.send"})

    async def ws_echo(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})
        await self._listen(receive, send, echo=True)

    async def ws_never(self, scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.get_running_loop().create_future()

    async def ws_deaf(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})
        await asyncio.get_running_loop().create_future()

    async def ws_push(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})
        while True:
            await send({"type": "websocket.send", "bytes": b"x" * 30_000})
            await self.server.sleep(0.2)

    async def ws_denies(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.close"})

    async def ws_denies_slowly(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.http.response.start", "status": 403, "headers": []})
        await send({"type": "websocket.http.response.body", "body": b"no", "more_body": True})
        await self.server.sleep(4.0)
        await send({"type": "websocket.http.response.body", "body": b"!"})

    async def ws_crash(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})
        await receive()
        raise ValueError("inside the WebSocket")

    async def ws_returns(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})
        await self.server.sleep(1.0)

    async def ws_closes(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})
        await self.server.sleep(0.5)
        await send({"type": "websocket.close", "code": 4000, "reason": "enough"})
        await self._listen(receive, send, echo=False)

    async def ws_stubborn(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})
        await self.stubborn(scope, receive, send)


_NAMES = [name for name in vars(Apps) if not name.startswith("_")]
SOCKET_PATHS = ["/" + name.replace("_", "-") for name in _NAMES if name.startswith("ws_")]
HTTP_PATHS = ["/" + name.replace("_", "-") for name in _NAMES if not name.startswith("ws_")]
