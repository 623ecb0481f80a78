"""WebSockets of FastAPI and Starlette with the client of `websockets`; in one loop, and with ``sojourn serve``."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import pytest
import websockets
from fastapi import Depends, FastAPI, HTTPException, WebSocket, WebSocketDisconnect, WebSocketException
from starlette.applications import Starlette
from starlette.endpoints import WebSocketEndpoint
from starlette.responses import JSONResponse
from starlette.routing import WebSocketRoute
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from sojourn.config import Config
from sojourn.config import WebSocket as Settings
from sojourn.events import ApplicationFailed
from tests.asgi.ws_harness import on_both_loops, serving, until

left: list[tuple[str, int]] = []


def user(websocket: WebSocket) -> str:
    if "token" not in websocket.query_params:
        raise WebSocketException(code=1008, reason="who are you?")
    return websocket.query_params["token"]


def fastapi_app() -> FastAPI:
    app = FastAPI()

    @app.websocket("/rooms/{room}")
    async def chat(websocket: WebSocket, room: str, name: Annotated[str, Depends(user)]) -> None:
        await websocket.accept(subprotocol="chat", headers=[(b"x-room", room.encode())])
        try:
            async for text in websocket.iter_text():
                await websocket.send_json({"room": room, "name": name, "text": text})
            left.append((name, 0))
        except WebSocketDisconnect as error:
            left.append((name, error.code))

    @app.websocket("/uncaught")
    async def uncaught(websocket: WebSocket) -> None:
        await websocket.accept()
        while True:
            await websocket.receive_text()

    @app.websocket("/ticks")
    async def ticks(websocket: WebSocket) -> None:
        await websocket.accept()
        try:
            while True:
                await websocket.send_text("tick")
                await asyncio.sleep(0.001)
        except WebSocketDisconnect as error:
            left.append(("ticks", error.code))

    @app.websocket("/forbidden")
    async def forbidden(websocket: WebSocket) -> None:
        raise HTTPException(418, "not here", headers={"x-tea": "yes"})

    return app


class Echo(WebSocketEndpoint):
    encoding = "bytes"

    async def on_receive(self, websocket: Any, data: bytes) -> None:
        await websocket.send_bytes(data)

    async def on_disconnect(self, websocket: Any, close_code: int) -> None:
        left.append(("echo", close_code))


async def denies(websocket: Any) -> None:
    await websocket.send_denial_response(JSONResponse({"no": "entry"}, status_code=402))


STARLETTE = Starlette(routes=[WebSocketRoute("/echo", Echo), WebSocketRoute("/denies", denies)])


@pytest.fixture(autouse=True)
def nobody_left() -> None:
    left.clear()


@on_both_loops
async def test_fastapi_with_path_dependency_subprotocol_and_headers() -> None:
    async with serving(fastapi_app()) as served:
        url = f"{served.url}/rooms/blue?token=ada"
        async with connect(url, subprotocols=[websockets.Subprotocol("chat")]) as client:
            assert client.subprotocol == "chat"
            assert client.response is not None
            assert client.response.headers["x-room"] == "blue"
            await client.send("hello")
            assert await client.recv() == '{"room":"blue","name":"ada","text":"hello"}'
            await client.close(4001, "bye")
            assert (client.close_code, client.close_reason) == (4001, "bye")
        await until(lambda: left)
        assert left == [("ada", 0)]  # iter_text ends by itself
        assert not served.seen(ApplicationFailed)


@on_both_loops
async def test_what_fastapi_refuses_is_an_http_answer() -> None:
    async with serving(fastapi_app()) as served:
        with pytest.raises(InvalidStatus) as caught:
            await connect(f"{served.url}/rooms/blue")
        assert caught.value.response.status_code == 403
        with pytest.raises(InvalidStatus) as caught:
            await connect(f"{served.url}/nowhere")
        assert caught.value.response.status_code == 403
        with pytest.raises(InvalidStatus) as caught:
            await connect(f"{served.url}/forbidden")
        response = caught.value.response
        assert (response.status_code, response.headers["x-tea"]) == (418, "yes")
        assert response.body == b'{"detail":"not here"}'


@on_both_loops
async def test_a_client_that_leaves_is_no_error_even_where_nobody_caught_the_disconnect() -> None:
    async with serving(fastapi_app()) as served:
        for abort in (False, True):
            client = await connect(f"{served.url}/uncaught")
            if abort:
                client.transport.abort()
            await client.close()
        await served.ended(2)
        await until(lambda: not served.server.work.running)
        assert not served.seen(ApplicationFailed)


@on_both_loops
async def test_a_sender_that_never_receives_is_told_by_its_next_send() -> None:
    async with serving(fastapi_app()) as served:
        async with connect(f"{served.url}/ticks") as client:
            assert await client.recv() == "tick"
        await until(lambda: left)
        assert left == [("ticks", 1006)]
        assert not served.seen(ApplicationFailed)


@pytest.mark.parametrize("takeover", [False, True])
@on_both_loops
async def test_starlette_echoes_what_websockets_compresses(takeover: bool) -> None:
    async with serving(STARLETTE, Config(websocket=Settings(compression_takeover=takeover))) as served:
        async with connect(f"{served.url}/echo") as client:
            assert [extension.name for extension in client.protocol.extensions] == ["permessage-deflate"]
            for size in (0, 1, 125, 126, 5000, 70_000, 1_000_000):
                data = os.urandom(size // 2).hex().encode()[:size]
                await client.send(data)
                assert await client.recv() == data
            await client.send([b"frag", b"men", b"ts"])
            assert await client.recv() == b"fragments"
            pong = await client.ping(b"are you there")
            await pong
        await until(lambda: left)
        assert left == [("echo", 1000)]


@on_both_loops
async def test_starlette_denies_with_a_response() -> None:
    async with serving(STARLETTE) as served:
        with pytest.raises(InvalidStatus) as caught:
            await connect(f"{served.url}/denies")
        assert caught.value.response.status_code == 402
        assert caught.value.response.body == b'{"no":"entry"}'


# --- the real command

MODULE = """
    import asyncio
    from fastapi import FastAPI, WebSocket

    app = FastAPI()

    @app.websocket("/echo")
    async def echo(websocket: WebSocket):
        await websocket.accept()
        async for text in websocket.iter_text():
            await websocket.send_text(text)

    @app.get("/loop")
    async def loop():
        return type(asyncio.get_running_loop()).__module__
"""


@contextmanager
def process(folder: Path, *arguments: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """``sojourn serve`` on a free port; gives where it listens."""
    (folder / "chat.py").write_text(textwrap.dedent(MODULE))
    child = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "sojourn.cli",
            "serve",
            "chat:app",
            "--app-dir",
            str(folder),
            "--port",
            "0",
            "--drain-delay",
            "0",
            *arguments,
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
    )
    try:
        assert child.stderr is not None
        for line in child.stderr:
            if found := re.search(r"127\.0\.0\.1:(\d+)", line):
                yield f"127.0.0.1:{found[1]}", child
                break
        else:
            raise AssertionError("it did not start")
    finally:
        child.terminate()
        try:
            child.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            child.kill()
            child.communicate(timeout=20)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_sojourn_serve_serves_websockets_and_says_goodbye_on_sigterm(tmp_path: Path, loop: str) -> None:
    async def talk(address: str, child: subprocess.Popen[str]) -> None:
        async with asyncio.timeout(30), connect(f"ws://{address}/echo") as client:
            await client.send("hello")
            assert await client.recv() == "hello"
            child.send_signal(signal.SIGTERM)
            with pytest.raises(ConnectionClosed):
                await client.recv()
            assert (client.close_code, client.close_reason) == (1012, "service restart")

    with process(tmp_path, "--loop", loop, "--access-log", "off") as (address, child):
        asyncio.run(talk(address, child))
        assert child.wait(20) == 0
