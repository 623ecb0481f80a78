"""Routers on a real server: bodies, WebSockets and streams on the wire, and the pattern as the label of metrics."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from websockets.asyncio.client import connect

import sojourn
from sojourn.asgi.scope import route_of
from sojourn.events import ApplicationFailed, ConnectionEnded, RequestEnded
from tests.server.serving import Run, both_loops, serving, until


def application(labels: list[str]) -> Any:
    router, inner = sojourn.Router(), sojourn.Router()

    @router.post("/echo/{name}")
    async def echo(request: sojourn.Request) -> Any:
        return {request.path_params["name"]: await request.text()}

    @router.get("/stream")
    async def stream(request: sojourn.Request) -> sojourn.Response:
        async def numbers() -> Any:
            for number in range(3):
                yield f"{number}\n"

        return sojourn.Response(numbers())

    @router.websocket("/ws/{room}")
    async def talk(socket: sojourn.WebSocket) -> None:
        await socket.accept()
        async for message in socket:
            await socket.send(f"{socket.path_params['room']} {message!r}")

    @inner.get("/users/{id:int}")
    async def user(request: sojourn.Request) -> Any:
        return request.path_params

    router.mount("/tenants/{tenant}", inner)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await router(scope, receive, send)
        finally:
            labels.append(route_of(scope))

    return app


@both_loops
def test_a_router_answers_on_the_wire(run: Run) -> None:
    labels: list[str] = []

    async def main() -> None:
        async with serving(application(labels)) as served:
            assert (await served.get("/tenants/t1/users/7")).endswith(b'{"tenant":"t1","id":7}')
            assert b"0\n" in await served.get("/stream")
            assert b"307 Temporary Redirect" in await served.get("/stream/?a=%20b")
            assert b" 404 " in await served.get("/%2e%2e/x")
            client = await served.connect()
            client.send(b"POST /echo/a%20b HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello")
            assert (await client.rest()).endswith(b'{"a b":"hello"}')
            async with connect(f"ws://127.0.0.1:{served.port}/ws/blue") as socket:
                await socket.send("x")
                assert await socket.recv() == "blue 'x'"
            with pytest.raises(Exception, match="404"):
                await connect(f"ws://127.0.0.1:{served.port}/nowhere")
            assert served.of(ApplicationFailed) == []
            assert [event.status for event in served.of(RequestEnded)][:2] == [200, 200]

    run(main())
    wanted = ["/echo/{name}", "/stream", "/tenants/{tenant}/users/{id}", "/ws/{room}"]
    assert sorted(filter(None, labels)) == wanted


@both_loops
def test_an_application_with_fast_routes_answers_many_at_once(run: Run) -> None:
    async def hello(request: Any) -> PlainTextResponse:
        await asyncio.sleep(0)
        return PlainTextResponse(f"hello {request.path_params['n']} {request.url.path}")

    app = sojourn.fast_routes(Starlette(routes=[Route(f"/r{number}/{{n}}", hello) for number in range(300)]))

    async def main() -> None:
        async with serving(app) as served:
            answers = await asyncio.gather(*(served.get(f"/r{number}/{number}") for number in range(50)))
            for number, answer in enumerate(answers):
                assert answer.endswith(b"hello %d /r%d/%d" % (number, number, number))

    run(main())


@both_loops
def test_a_client_that_leaves_is_no_error_of_the_application(run: Run) -> None:
    router = sojourn.Router()

    @router.websocket("/ws")
    async def talk(socket: sojourn.WebSocket) -> None:
        await socket.accept()
        while True:
            await socket.send(await socket.receive())

    @router.post("/body")
    async def read(request: sojourn.Request) -> Any:
        return await request.body()

    async def main() -> None:
        async with serving(router) as served:
            async with connect(f"ws://127.0.0.1:{served.port}/ws") as socket:
                await socket.send("x")
                assert await socket.recv() == "x"
            client = await served.connect()
            client.send(b"POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: 50\r\n\r\nhello")
            client.writer.close()
            await until(lambda: len(served.of(ConnectionEnded)) == 2)
            assert served.of(ApplicationFailed) == []

    run(main())
