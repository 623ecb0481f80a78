"""Litestar, served unchanged."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from litestar import Litestar, MediaType, Request, WebSocket, get, post, websocket
from litestar.datastructures import State
from litestar.exceptions import WebSocketDisconnect
from litestar.response import File, Stream

from tests.frameworks.promises import BIG, Log, WebSocketPromises

# The newer style is not there in the oldest version that is supported here.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:litestar")


def make(log: Log, path: Path) -> Litestar:
    @asynccontextmanager
    async def lifespan(app: Litestar) -> AsyncIterator[None]:
        app.state.pool = "a pool"
        yield

    @get("/hello", media_type=MediaType.TEXT)
    async def hello(name: str) -> str:
        return f"hello {name}"

    @post("/echo", status_code=200)
    async def echo(data: dict[str, int]) -> dict[str, int]:
        return data

    @post("/upload", status_code=200, request_max_body_size=2 * BIG)
    async def upload(request: Request[Any, Any, Any]) -> dict[str, int]:
        return {"size": len(await request.body())}

    @get("/stream")
    async def stream() -> Stream:
        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(30):
                yield b"x" * (BIG // 30)

        return Stream(pieces())

    @get("/file")
    async def file() -> File:
        return File(path)

    @get("/events")
    async def events() -> Stream:
        async def pieces() -> AsyncIterator[str]:
            try:
                yield "data: 1\n\n"
                await asyncio.sleep(3600)
            finally:
                log.append("events ended")

        return Stream(pieces(), media_type="text/event-stream")

    @get("/fails")
    async def fails() -> None:
        raise LookupError("a bug")

    @get("/state")
    async def state(state: State) -> str:
        return str(state.pool)

    @websocket("/ws")
    async def ws(socket: WebSocket[Any, Any, Any]) -> None:
        await socket.accept()
        try:
            while (text := await socket.receive_text()) != "close":
                await socket.send_text(text)
            await socket.close(4001)
        except WebSocketDisconnect as error:
            log.append(f"websocket left {error.code}")

    @websocket("/deny")
    async def deny(socket: WebSocket[Any, Any, Any]) -> None:
        await socket.close()

    handlers = [hello, echo, upload, stream, file, events, fails, state, ws, deny]
    return Litestar(handlers, lifespan=[lifespan])


class TestLitestar(WebSocketPromises):
    make = staticmethod(make)
    hands_on_errors = False

    def test_lifespan_state(self, client: httpx.Client) -> None:
        assert client.get("/state").text == "a pool"
