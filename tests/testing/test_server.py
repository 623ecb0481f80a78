"""A server in memory: everything happens when the test says so, and not before."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

from sojourn.config import Config, Timeouts
from sojourn.errors import StartupError
from sojourn.events import ConnectionEnded, LoopStalled, RequestEnded
from sojourn.testing import Ended, MemoryServer
from sojourn.typing import Receive, Scope, Send

on_both_loops = pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
Run = Callable[[Coroutine[Any, Any, None]], None]


class App:
    """Answers after two seconds of served time; knows its lifespan."""

    def __init__(self) -> None:
        self.server: MemoryServer
        self.log: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            for _ in range(2):
                kind = (await receive())["type"]
                self.log.append(kind)
                await send({"type": f"{kind}.complete"})
            return
        if scope["path"] != "/quick":
            await self.server.sleep(2.0)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": scope["scheme"].encode()})


def play(run: Run, scene: Callable[[MemoryServer], Coroutine[Any, Any, None]], **timeouts: float) -> App:
    async def main() -> None:
        async with MemoryServer(app, Config(timeouts=Timeouts(**timeouts))) as server:
            app.server = server
            await scene(server)

    app = App()
    run(main())
    return app


@on_both_loops
def test_an_application_waits_in_served_time_and_its_lifespan_is_run(run: Run) -> None:
    async def scene(server: MemoryServer) -> None:
        client = server.connect()
        client.get("/")
        await server.advance(1.5)
        assert client.response().status == 0
        await server.advance(1.0)
        assert client.response().body == b"http"
        assert [event.status for event in server.seen(RequestEnded)] == [200]

    assert play(run, scene).log == ["lifespan.startup", "lifespan.shutdown"]


@on_both_loops
def test_an_hour_passes_in_no_time_and_every_deadline_on_the_way_is_kept(run: Run) -> None:
    async def scene(server: MemoryServer) -> None:
        clients = [server.connect() for _ in range(3)]
        clients[0].send(b"GET / HT")
        clients[1].get("/quick")
        await server.advance(600.0)
        assert server.open == 0
        assert [event.ending.reason for event in server.seen(ConnectionEnded)] == [
            "request_headers_timeout",
            "request_headers_timeout",
            "keep_alive_idle",
        ]
        assert clients[0].response().status == 408

    play(run, scene)


def test_a_stall_ends_nobody() -> None:
    async def scene(server: MemoryServer) -> None:
        client = server.connect()
        await server.advance(5.0)
        await server.stall(60.0)
        assert server.open == 1
        assert [event.seconds for event in server.seen(LoopStalled)] == [60.0]
        await server.advance(4.0)
        assert client.peer.ended is Ended.OPEN
        await server.advance(2.0)
        assert client.peer.ended is Ended.FIN

    play(asyncio.run, scene, linger=0.1)


def test_a_connection_may_stay_in_its_handshake() -> None:
    async def scene(server: MemoryServer) -> None:
        late, later = server.connect(handshake=False), server.connect(handshake=False)
        await server.advance(5.0)
        late.finish_handshake()
        late.get("/quick")
        await server.advance(6.0)
        assert late.response().body == b"https"
        assert later.connection.ending is not None
        assert later.connection.ending.reason == "tls_timeout"

    play(asyncio.run, scene)


def test_a_drain_lets_requests_finish() -> None:
    async def scene(server: MemoryServer) -> None:
        busy, idle = server.connect(), server.connect()
        busy.get("/")
        idle.get("/quick")
        await server.settle()
        server.drain(0.0)
        await server.advance(0.5)
        assert idle.peer.ended is Ended.FIN
        assert busy.peer.ended is Ended.OPEN
        await server.advance(3.5)
        assert busy.response().header("connection") == "close"
        assert server.open == 0

    play(asyncio.run, scene)


def test_an_application_that_can_not_start_is_an_error() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    async def main() -> None:
        with pytest.raises(StartupError, match="no database"):
            await MemoryServer(app).start()

    asyncio.run(main())


def test_an_application_that_never_rests_does_not_hang_the_test() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while scope["type"] == "http":  # noqa: ASYNC110 - the fault that is looked at
            await asyncio.sleep(0)

    async def main() -> None:
        async with MemoryServer(app, Config(timeouts=Timeouts(response_start=0.2))) as server:
            client = server.connect()
            client.get("/")
            await server.advance(0.5)
            assert client.response().status == 504

    asyncio.run(main())
