"""The usual connection manager, on bare ASGI: a set of sockets, and a loop that awaits one send after the other."""

from __future__ import annotations

import gc
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qsl

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

OK_HEADERS = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"2")]
SIZE = 200


def messages(query: bytes) -> list[str]:
    """What a call publishes: `n` texts, numbered from `seq`."""
    asked = dict(parse_qsl(query.decode()))
    first = int(asked["seq"])
    return [f"{number:012d}".ljust(SIZE, "x") for number in range(first, first + int(asked["n"]))]


class Manager:
    """Who is connected, and how all are told."""

    def __init__(self) -> None:
        self.active: dict[int, Send] = {}

    async def broadcast(self, text: str) -> None:
        """One text to all."""
        for send in list(self.active.values()):
            await send({"type": "websocket.send", "text": text})

    async def member(self, receive: Receive, send: Send) -> None:
        """From the handshake to the end."""
        await receive()
        await send({"type": "websocket.accept"})
        self.active[id(send)] = send
        try:
            while (await receive())["type"] != "websocket.disconnect":
                pass
        finally:
            del self.active[id(send)]


manager = Manager()


async def app(scope: Message, receive: Receive, send: Send) -> None:
    """Members at any WebSocket path; `/go` publishes, `/gc` collects, anything else says that it is ready."""
    if scope["type"] == "websocket":
        await manager.member(receive, send)
        return
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    if scope["path"] == "/go":
        for text in messages(scope["query_string"]):
            await manager.broadcast(text)
    elif scope["path"] == "/gc":
        gc.collect()
    await send({"type": "http.response.start", "status": 200, "headers": OK_HEADERS})
    await send({"type": "http.response.body", "body": b"ok"})
