"""FastAPI, served unchanged."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import httpx
from fastapi import BackgroundTasks, Depends, FastAPI, Request, UploadFile, WebSocket, WebSocketDisconnect
from fastapi.responses import FileResponse, StreamingResponse

from tests.frameworks.promises import BIG, Log, WebSocketPromises


def make(log: Log, path: Path) -> FastAPI:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        log.append("started")
        yield {"pool": "a pool"}
        log.append("stopped")

    app = FastAPI(lifespan=lifespan)

    async def session() -> AsyncIterator[str]:
        log.append("session opened")
        try:
            yield "a session"
        finally:
            log.append("session closed")

    @app.get("/hello")
    async def hello(name: str) -> Any:
        from fastapi.responses import PlainTextResponse

        return PlainTextResponse(f"hello {name}")

    @app.post("/echo")
    async def echo(body: dict[str, int]) -> dict[str, int]:
        return body

    @app.post("/upload")
    async def upload(request: Request) -> dict[str, int]:
        return {"size": len(await request.body())}

    @app.post("/form")
    async def form(file: UploadFile) -> dict[str, Any]:
        return {"name": file.filename, "size": len(await file.read())}

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(30):
                yield b"x" * (BIG // 30)

        return StreamingResponse(pieces())

    @app.get("/file")
    async def file() -> FileResponse:
        return FileResponse(path)

    @app.get("/events")
    async def events(session: Annotated[str, Depends(session)]) -> StreamingResponse:
        async def pieces() -> AsyncIterator[str]:
            try:
                yield "data: 1\n\n"
                await asyncio.sleep(3600)
            finally:
                log.append("events ended")

        return StreamingResponse(pieces(), media_type="text/event-stream")

    @app.get("/fails")
    async def fails() -> None:
        raise LookupError("a bug")

    @app.get("/background")
    async def background(tasks: BackgroundTasks) -> str:
        tasks.add_task(log.append, "background done")
        return "accepted"

    @app.get("/state")
    async def state(request: Request, session: Annotated[str, Depends(session)]) -> list[str]:
        return [request.state.pool, session]

    @app.get("/plain")
    def plain(number: int = 0) -> int:
        return number

    @app.websocket("/ws")
    async def ws(websocket: WebSocket) -> None:
        await websocket.accept()
        try:
            while (text := await websocket.receive_text()) != "close":
                await websocket.send_text(text)
            await websocket.close(4001)
        except WebSocketDisconnect as error:
            log.append(f"websocket left {error.code}")

    @app.websocket("/deny")
    async def deny(websocket: WebSocket) -> None:
        await websocket.close()

    return app


class TestFastAPI(WebSocketPromises):
    make = staticmethod(make)

    def test_lifespan_state_and_dependencies(self, client: httpx.Client, log: Log) -> None:
        assert client.get("/state").json() == ["a pool", "a session"]
        log.wait_for("session closed")

    def test_the_dependency_of_an_event_stream_is_closed_when_its_client_leaves(
        self, client: httpx.Client, log: Log
    ) -> None:
        with client.stream("GET", "/events") as answer:
            next(answer.iter_raw())
        log.wait_for("session closed")

    def test_a_form_with_a_file(self, client: httpx.Client) -> None:
        answer = client.post("/form", files={"file": ("a.bin", b"x" * BIG)})
        assert answer.json() == {"name": "a.bin", "size": BIG}

    def test_background_tasks(self, client: httpx.Client, log: Log) -> None:
        assert client.get("/background").json() == "accepted"
        log.wait_for("background done")

    def test_validation_and_functions_in_threads(self, client: httpx.Client) -> None:
        assert client.get("/plain", params={"number": "7"}).json() == 7
        assert client.get("/plain", params={"number": "seven"}).status_code == 422

    def test_its_own_documentation(self, client: httpx.Client) -> None:
        assert client.get("/openapi.json").json()["paths"]["/hello"]
        assert "swagger" in client.get("/docs").text
