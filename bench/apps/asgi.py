"""The raw ASGI application of the comparison: the same object for every Python server."""

from __future__ import annotations

import gc
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Handler = Callable[[Message, Receive, Send], Awaitable[None]]

HELLO = b"Hello, World!"
HELLO_HEADERS = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"13")]
OK_HEADERS = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"2")]


async def hello(scope: Message, receive: Receive, send: Send) -> None:
    """GET /"""
    await send({"type": "http.response.start", "status": 200, "headers": HELLO_HEADERS})
    await send({"type": "http.response.body", "body": HELLO})


async def post(scope: Message, receive: Receive, send: Send) -> None:
    """POST /post: reads the whole body, answers two bytes."""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        if not message.get("more_body", False):
            break
    await send({"type": "http.response.start", "status": 200, "headers": OK_HEADERS})
    await send({"type": "http.response.body", "body": b"ok"})


async def collect(scope: Message, receive: Receive, send: Send) -> None:
    """GET /gc: lets the garbage settle before memory is read."""
    gc.collect()
    await send({"type": "http.response.start", "status": 200, "headers": OK_HEADERS})
    await send({"type": "http.response.body", "body": b"ok"})


async def missing(scope: Message, receive: Receive, send: Send) -> None:
    """Any other path."""
    await send({"type": "http.response.start", "status": 404, "headers": OK_HEADERS})
    await send({"type": "http.response.body", "body": b"no"})


async def echo(scope: Message, receive: Receive, send: Send) -> None:
    """WebSocket /ws: sends every text back."""
    await receive()
    await send({"type": "websocket.accept"})
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            return
        await send({"type": "websocket.send", "text": message["text"]})


async def lifespan(scope: Message, receive: Receive, send: Send) -> None:
    """Nothing to start, nothing to stop."""
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return


ROUTES: dict[str, Handler] = {"/": hello, "/post": post, "/gc": collect}


async def app(scope: Message, receive: Receive, send: Send) -> None:
    """Routes by type and path."""
    kind = scope["type"]
    if kind == "http":
        await ROUTES.get(scope["path"], missing)(scope, receive, send)
    elif kind == "websocket":
        await echo(scope, receive, send)
    else:
        await lifespan(scope, receive, send)
