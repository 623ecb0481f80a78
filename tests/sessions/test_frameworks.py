"""Starlette and FastAPI as they are, Sojourn's own router, under Sojourn and under another server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fastapi
import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from websockets.sync.client import connect

from sojourn.errors import SessionStoreUnavailable
from sojourn.sessions.cookie import SessionCookie
from sojourn.sessions.ids import new_id
from sojourn.sessions.memory import MemorySessions
from sojourn.sessions.middleware import Sessions
from sojourn.sessions.sqlite import SqliteSessions
from tests.examples.serving import serving
from tests.sessions.scene import endpoint, play, under_uvicorn

PLAIN = SessionCookie(secure=False)
servers = pytest.mark.parametrize("server", [serving, under_uvicorn])
Server = Callable[[Any], Any]


@contextmanager
def client_of(server: Server, app: Any) -> Iterator[httpx.Client]:
    with server(app) as url, httpx.Client(base_url=url) as client:
        yield client


@servers
def test_starlette_code_works_as_with_its_own_middleware(server: Server, tmp_path: Path) -> None:
    async def visit(request: Request) -> Response:
        request.session["visits"] = request.session.get("visits", 0) + 1
        return PlainTextResponse(str(request.session["visits"]))

    def plain(request: Request) -> Response:  # runs in a thread
        request.session.setdefault("list", []).append("x")
        return PlainTextResponse(",".join(request.session["list"]))

    routes = [Route("/visit", visit), Route("/plain", plain)]
    middleware = [Middleware(Sessions, store=str(tmp_path / "sessions.db"), cookie=PLAIN)]
    with client_of(server, Starlette(routes=routes, middleware=middleware)) as client:
        answers = [client.get("/visit") for _ in range(3)]
        assert [answer.text for answer in answers] == ["1", "2", "3"]
        assert ["set-cookie" in answer.headers for answer in answers] == [True, False, False]
        assert [client.get("/plain").text for _ in range(2)] == ["x", "x,x"]


@servers
def test_fastapi_logs_in_and_out_and_its_websocket_writes_are_kept(server: Server) -> None:
    app = fastapi.FastAPI()

    def user(request: fastapi.Request) -> str:
        if "user" not in request.session:
            raise fastapi.HTTPException(401)
        return str(request.session["user"])

    @app.post("/login")
    def login(request: fastapi.Request, name: str) -> None:
        request.session["user"] = name

    @app.post("/logout")
    async def logout(request: fastapi.Request) -> None:
        request.session.clear()

    @app.get("/me")
    def me(request: fastapi.Request, name: str = fastapi.Depends(user)) -> dict[str, Any]:
        return {"name": name, "said": request.session.get("said")}

    @app.websocket("/ws")
    async def chat(websocket: fastapi.WebSocket) -> None:
        await websocket.accept()
        websocket.session["said"] = await websocket.receive_text()
        await websocket.send_text("kept")
        await websocket.receive()

    app.add_middleware(Sessions, store=MemorySessions(), cookie=PLAIN)
    with client_of(server, app) as client:
        assert client.get("/me").status_code == 401
        client.post("/login", params={"name": "ann"})
        address = str(client.base_url).rstrip("/").replace("http", "ws", 1) + "/ws"
        with connect(address, additional_headers={"cookie": f"session={client.cookies['session']}"}) as socket:
            socket.send("hello")
            assert socket.recv(timeout=5) == "kept"
        for _ in range(100):
            found = client.get("/me").json()
            if found["said"]:
                break
        assert found == {"name": "ann", "said": "hello"}
        client.post("/logout")
        assert client.get("/me").status_code == 401


@servers
def test_a_store_that_is_away_is_a_503_although_the_framework_makes_errors_a_500(server: Server) -> None:
    async def revoke(request: Request) -> Response:
        raise SessionStoreUnavailable("away", 7.0)

    app = Sessions(Starlette(routes=[Route("/", revoke)]), MemorySessions(), cookie=PLAIN)
    with client_of(server, app) as client:
        answer = client.get("/")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "7")
        assert answer.json()["reason"] == "sessions_unavailable"


def test_a_request_that_is_cancelled_at_any_await_leaves_nothing(tmp_path: Path) -> None:
    """With a store whose every call is a wait: no task, no thread that is busy, no session half made."""

    async def main() -> None:
        store = SqliteSessions(tmp_path / "sessions.db")
        sessions = Sessions(endpoint(lambda session: session.update(a=1)), store)
        scope = {"type": "http", "headers": [(b"cookie", f"__Host-session={new_id()}".encode())]}

        async def send(message: Any) -> None:
            await asyncio.sleep(0)

        for step in range(25):
            task = asyncio.create_task(sessions(dict(scope), asyncio.Event().wait, send))  # type: ignore[arg-type]
            for _ in range(step):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait((task,))
        await sessions.aclose()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert store._thread.busy == 0

    play(main())
