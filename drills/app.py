"""What the drills serve: one application with a path for each way to be in the middle of something."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qs

from fastapi import FastAPI, WebSocket
from fastapi.responses import StreamingResponse

import sojourn
from sojourn.typing import Message, Receive, Scope, Send

__all__ = ["app", "unchanged"]


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Plain ASGI; the path says what to do."""
    match scope["type"], scope["path"] if scope["type"] != "lifespan" else "":
        case "lifespan", _:
            await lifespan(receive, send)
        case "websocket", _:
            await websocket(receive, send)
        case "http", "/events":
            await events(send)
        case "http", "/slow":
            given = parse_qs(scope["query_string"].decode())
            await asyncio.sleep(float(given["seconds"][0]))
            await answer(send, b"done")
        case "http", "/stubborn":
            await stubborn(send)
        case "http", "/block":
            block_the_loop()
            await answer(send, b"not blocked any more")
        case _:
            await answer(send, b"%d" % os.getpid())


async def answer(send: Send, body: bytes) -> None:
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def events(send: Send) -> None:
    """A quiet stream that says goodbye."""

    async def source() -> AsyncIterator[str]:
        yield "hello"
        await asyncio.Event().wait()

    headers = [(b"content-type", b"text/event-stream")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    async for piece in sojourn.event_stream(source()):
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body"})


async def websocket(receive: Receive, send: Send) -> None:
    """Accept, and listen until the end."""
    await receive()
    await send({"type": "websocket.accept"})
    message: Message = {"type": ""}
    while message["type"] != "websocket.disconnect":
        message = await receive()


async def stubborn(send: Send) -> None:
    """Swallow every cancellation."""
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()


def block_the_loop() -> None:
    """What no coroutine may do."""
    time.sleep(60)


async def lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


unchanged = FastAPI()


@unchanged.get("/events")
async def endless() -> StreamingResponse:
    """A generator that knows nothing of any server and never ends."""

    async def ticks() -> AsyncIterator[str]:
        while True:
            yield "data: tick\n\n"
            await asyncio.sleep(0.1)

    return StreamingResponse(ticks(), media_type="text/event-stream")


@unchanged.websocket("/ws")
async def idle(socket: WebSocket) -> Any:
    """Waits for a message that does not come."""
    await socket.accept()
    await socket.receive_text()
