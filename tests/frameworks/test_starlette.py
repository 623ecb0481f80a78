"""Starlette, served unchanged."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from tests.frameworks.promises import BIG, Log, WebSocketPromises
from tests.frameworks.serving import served


def make(log: Log, path: Path) -> Starlette:
    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[dict[str, Any]]:
        log.append("started")
        yield {"pool": "a pool", "shared": []}
        log.append("stopped")

    async def hello(request: Request) -> Response:
        return PlainTextResponse(f"hello {request.query_params.get('name')}")

    async def echo(request: Request) -> Response:
        return JSONResponse(await request.json())

    async def upload(request: Request) -> Response:
        size = 0
        async for piece in request.stream():
            size += len(piece)
        return JSONResponse({"size": size})

    async def stream(request: Request) -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(30):
                yield b"x" * (BIG // 30)

        return StreamingResponse(pieces())

    async def file(request: Request) -> Response:
        return FileResponse(path)

    async def events(request: Request) -> Response:
        async def pieces() -> AsyncIterator[str]:
            try:
                yield "data: 1\n\n"
                await asyncio.sleep(3600)
            finally:
                log.append("events ended")

        return StreamingResponse(pieces(), media_type="text/event-stream")

    async def fails(request: Request) -> Response:
        raise LookupError("a bug")

    async def background(request: Request) -> Response:
        async def work() -> None:
            await asyncio.sleep(0.2)
            log.append("background done")

        return PlainTextResponse("accepted", background=BackgroundTask(work))

    async def state(request: Request) -> Response:
        request.state.shared.append("one")
        request.state.pool = "changed"
        return JSONResponse([request.state.pool, len(request.state.shared)])

    def plain(request: Request) -> Response:
        return PlainTextResponse("from a thread")

    async def url(request: Request) -> Response:
        return PlainTextResponse(str(request.url_for("inner", number=7)))

    async def inner(request: Request) -> Response:
        return PlainTextResponse(f"{request.scope['root_path']} {request.path_params['number']}")

    async def ws(websocket: WebSocket) -> None:
        await websocket.accept()
        try:
            while (text := await websocket.receive_text()) != "close":
                await websocket.send_text(text)
            await websocket.close(4001, "as you wish")
        except WebSocketDisconnect as error:
            log.append(f"websocket left {error.code}")

    async def deny(websocket: WebSocket) -> None:
        await websocket.close()

    return Starlette(
        lifespan=lifespan,
        routes=[
            Route("/hello", hello),
            Route("/echo", echo, methods=["POST"]),
            Route("/upload", upload, methods=["POST"]),
            Route("/stream", stream),
            Route("/file", file),
            Route("/events", events),
            Route("/fails", fails),
            Route("/background", background),
            Route("/state", state),
            Route("/plain", plain),
            Route("/url", url),
            Mount("/mounted", routes=[Route("/{number:int}", inner, name="inner")]),
            WebSocketRoute("/ws", ws),
            WebSocketRoute("/deny", deny),
        ],
    )


class TestStarlette(WebSocketPromises):
    make = staticmethod(make)

    def test_head(self, client: httpx.Client) -> None:
        answer = client.head("/hello", params={"name": "x"})
        assert (answer.status_code, answer.content, answer.headers["content-length"]) == (200, b"", "7")

    def test_a_range_of_a_file(self, client: httpx.Client, path: Path) -> None:
        answer = client.get("/file", headers={"Range": "bytes=1000-1999"})
        assert answer.status_code == 206
        assert answer.content == path.read_bytes()[1000:2000]

    def test_lifespan_state_is_shared_by_reference_and_copied_by_key(self, client: httpx.Client, log: Log) -> None:
        assert log == ["started"]
        assert client.get("/state").json() == ["changed", 1]
        assert client.get("/state").json() == ["changed", 2]

    def test_a_background_task_runs_after_the_answer(self, client: httpx.Client, log: Log) -> None:
        assert client.get("/background").text == "accepted"
        assert "background done" not in log
        log.wait_for("background done")

    def test_a_function_in_a_thread(self, client: httpx.Client) -> None:
        assert client.get("/plain").text == "from a thread"

    def test_mounts_and_urls(self, client: httpx.Client) -> None:
        assert client.get("/mounted/3").text == "/mounted 3"
        assert client.get("/url").text == f"{client.base_url}/mounted/7".replace("//mounted", "/mounted")


def test_the_application_stops_after_its_background_tasks(tmp_path: Path) -> None:
    log = Log()
    with served(make(log, tmp_path)) as site:
        assert httpx.get(f"{site.url}/background", trust_env=False).text == "accepted"
    assert log == ["started", "background done", "stopped"]
