"""What is revoked on one node is closed on the others within a second: real servers, real sockets, real stores."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from sojourn.sessions.cookie import SessionCookie
from sojourn.sessions.middleware import Sessions
from sojourn.sessions.redis import RedisSessions
from sojourn.sessions.sqlite import SqliteSessions
from sojourn.sessions.store import SessionStore
from tests.databases import RedisServer
from tests.examples.serving import serving
from tests.sessions.scene import under_uvicorn

_numbers = itertools.count()
Servers = tuple[Any, Any]


class Scene:
    """Two nodes with the same sessions."""

    def __init__(self, urls: list[str], nodes: list[Sessions], stack: ExitStack) -> None:
        self.urls = urls
        self.nodes = nodes
        self._stack = stack

    def login(self, user: str) -> httpx.Cookies:
        """Log in at the first node."""
        answer = httpx.post(f"{self.urls[0]}/login/{user}")
        assert answer.status_code == 200
        return answer.cookies

    def socket(self, node: int, cookies: httpx.Cookies) -> ClientConnection:
        """Open a WebSocket at a node."""
        header = {"cookie": f"session={cookies['session']}"}
        opening = connect(self.urls[node].replace("http", "ws", 1) + "/ws", additional_headers=header)
        socket: ClientConnection = self._stack.enter_context(opening)
        assert socket.recv(timeout=5) == "hello"
        return socket


def application(store: SessionStore) -> Sessions:
    async def login(request: Request) -> Response:
        request.session["user"] = request.path_params["user"]
        return JSONResponse({})

    async def logout(request: Request) -> Response:
        request.session.clear()
        return JSONResponse({})

    async def revoke(request: Request) -> Response:
        await sessions.revoke(**request.query_params)
        return JSONResponse({})

    async def me(request: Request) -> Response:
        return JSONResponse({"user": request.session.get("user"), "key": request.session.key})  # type: ignore[attr-defined]

    async def ticks(request: Request) -> Response:
        async def stream() -> Any:
            for number in itertools.count():
                yield f"data: {number}\n\n"
                await asyncio.sleep(0.05)

        return StreamingResponse(stream(), media_type="text/event-stream")

    async def chat(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text("hello")
        async for text in websocket.iter_text():
            websocket.session["said"] = text
            await websocket.send_text(text)

    routes = [
        Route("/login/{user}", login, methods=["POST"]),
        Route("/logout", logout, methods=["POST"]),
        Route("/revoke", revoke, methods=["POST"]),
        Route("/me", me),
        Route("/ticks", ticks),
        WebSocketRoute("/ws", chat),
    ]
    sessions = Sessions(Starlette(routes=routes), store, cookie=SessionCookie(secure=False))
    return sessions


@pytest.fixture(params=["sqlite", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], SessionStore]:
    """Makes stores of the same sessions."""
    if request.param == "sqlite":
        return lambda: SqliteSessions(tmp_path / "sessions.db")
    server: RedisServer = request.getfixturevalue("redis_server")
    prefix = f"revocation:{next(_numbers)}:"
    return lambda: RedisSessions(server.url, prefix=prefix)


@contextmanager
def running(store: Callable[[], SessionStore], servers: Servers) -> Iterator[Scene]:
    nodes = [application(store()) for _ in servers]
    with ExitStack() as stack:
        urls = [stack.enter_context(server(node)) for server, node in zip(servers, nodes, strict=True)]
        with ExitStack() as sockets:
            yield Scene(urls, nodes, sockets)


def code_within(socket: ClientConnection, seconds: float) -> int | None:
    """The code with which a socket is closed in so many seconds."""
    with pytest.raises(ConnectionClosed):
        socket.recv(timeout=seconds)
    return socket.close_code


def test_a_revoked_user_is_cut_on_every_node_within_a_second(store: Callable[[], SessionStore]) -> None:
    with running(store, (serving, under_uvicorn)) as scene:
        ann, bob = scene.login("ann"), scene.login("bob")
        anns = [scene.socket(node, ann) for node in (0, 1)]
        bobs = [scene.socket(node, bob) for node in (0, 1)]
        httpx.post(f"{scene.urls[0]}/revoke", params={"user": "ann"})
        end = time.monotonic() + 1.0
        assert [code_within(socket, end - time.monotonic()) for socket in anns] == [4501, 4501]
        for socket in bobs:
            socket.send("still here")
            assert socket.recv(timeout=5) == "still here"
            socket.close()
        for url in scene.urls:
            assert httpx.get(f"{url}/me", cookies=ann).json()["user"] is None
            assert httpx.get(f"{url}/me", cookies=bob).json()["user"] == "bob"


def test_a_logout_on_one_node_cuts_the_sockets_and_event_streams_of_the_session_on_another(
    store: Callable[[], SessionStore],
) -> None:
    with running(store, (under_uvicorn, serving)) as scene:
        here, other = scene.login("ann"), scene.login("ann")
        socket, kept = scene.socket(1, here), scene.socket(1, other)
        with httpx.stream("GET", f"{scene.urls[1]}/ticks", cookies=here, timeout=5) as stream:
            lines = stream.iter_lines()
            assert next(lines) == "data: 0"
            httpx.post(f"{scene.urls[0]}/logout", cookies=here)
            assert code_within(socket, 1.0) == 4501
            rest = list(lines)
            assert rest[-3:-1] == ["event: auth-expired", "data: credentials_revoked"]
        kept.send("still here")
        assert kept.recv(timeout=5) == "still here"
        kept.close()


def test_what_a_websocket_writes_on_one_node_is_read_on_the_other(store: Callable[[], SessionStore]) -> None:
    with running(store, (serving, under_uvicorn)) as scene:
        for node in (0, 1):
            ann = scene.login("ann")
            with scene.socket(node, ann) as socket:
                socket.send("from the socket")
                assert socket.recv(timeout=5) == "from the socket"
            key = httpx.get(f"{scene.urls[1 - node]}/me", cookies=ann).json()["key"]
            found = asyncio.run(_content(store(), key))
            assert found == b'{"user":"ann","said":"from the socket"}'


async def _content(store: SessionStore, key: str) -> bytes:
    try:
        for _ in range(500):
            stored = await store.load(key)
            assert stored is not None
            if b"said" in stored.data:
                break
            await asyncio.sleep(0.02)
        return stored.data
    finally:
        await store.aclose()


def test_a_server_with_open_sockets_stops_and_leaves_nothing(store: Callable[[], SessionStore]) -> None:
    node = application(store())
    with ExitStack() as stack:
        with serving(node) as url:
            scene = Scene([url], [node], stack)
            socket = scene.socket(0, scene.login("ann"))
            assert node.open == 1
        assert code_within(socket, 5.0) == 1012
    assert node.open == 0


def test_a_socket_lives_through_an_outage_and_is_looked_up_when_redis_is_back(own_redis: RedisServer) -> None:
    """A Redis that comes back has forgotten everything: so has it the session."""
    node = application(RedisSessions(own_redis.url))
    with ExitStack() as stack:
        scene = Scene([stack.enter_context(serving(node))], [node], stack)
        ann = scene.login("ann")
        socket = scene.socket(0, ann)
        own_redis.stop()
        assert httpx.get(f"{scene.urls[0]}/me", cookies=ann).status_code == 503
        assert httpx.get(f"{scene.urls[0]}/me").status_code == 200
        for text in ("still", "here"):
            socket.send(text)
            assert socket.recv(timeout=5) == text
        own_redis.start()
        assert code_within(socket, 5.0) == 4501
        assert httpx.get(f"{scene.urls[0]}/me", cookies=ann).json()["user"] is None
