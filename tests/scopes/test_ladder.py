"""What becomes of an application that does not heed its end, as its server sees it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from itertools import pairwise

import pytest

from sojourn.config import Config, Timeouts
from sojourn.ending import REASONS
from sojourn.events import ConnectionEnded, RequestEnded, TaskSurvived
from sojourn.testing import MemoryServer
from sojourn.typing import Receive, Scope, Send

CONFIG = Config(timeouts=Timeouts(handler=2.0, disconnect_grace=1.0))


class App:
    """Swallows so many cancellations, and counts them."""

    def __init__(self, swallows: int) -> None:
        self.swallows = swallows
        self.cancelled_at: list[float] = []
        self.server: MemoryServer
        self.over = asyncio.Event()

    async def refuses_to_leave(self) -> None:
        while not self.over.is_set():
            try:
                await self.over.wait()
            except asyncio.CancelledError:
                self.cancelled_at.append(self.server.runtime.ticker.now)
                if len(self.cancelled_at) > self.swallows:
                    raise

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept"})
        elif scope["type"] == "lifespan":
            return
        await self.refuses_to_leave()


def play(scene: Callable[[MemoryServer, App], Awaitable[None]], swallows: int) -> App:
    async def main() -> App:
        app = App(swallows)
        async with MemoryServer(app, CONFIG) as server:
            app.server = server
            await scene(server, app)
            app.over.set()
            await server.settle()
            assert server.work.running == {}
        return app

    return asyncio.run(main())


@pytest.mark.parametrize("swallows", [0, 1, 2])
def test_an_application_that_swallows_its_cancellation_is_cancelled_again(swallows: int) -> None:
    async def scene(server: MemoryServer, app: App) -> None:
        client = server.connect()
        client.get("/slow")
        await server.advance(2.5)
        assert client.response().status == 504
        await server.advance(3.0)
        assert len(app.cancelled_at) == swallows + 1
        assert server.seen(TaskSurvived) == []
        assert server.work.running == {}

    gaps = play(scene, swallows).cancelled_at
    assert all(later - earlier > 0.4 for earlier, later in pairwise(gaps))


def test_one_that_never_ends_is_named_with_its_stack_and_reported_when_it_ends_at_last() -> None:
    async def scene(server: MemoryServer, app: App) -> None:
        client = server.connect()
        client.get("/slow")
        await server.advance(30.0)
        (named,) = server.seen(TaskSurvived)
        assert (named.owner, named.cause, named.ended) == ("connection 1 GET /slow", "handler_deadline", False)
        assert "refuses_to_leave" in named.stack
        assert len(server.seen(RequestEnded)) == 1
        client.get("/slow")  # the connection is not held up by it
        await server.advance(1.0)
        assert client.connection.requests == 2
        app.over.set()
        await server.settle()
        assert [event.ended for event in server.seen(TaskSurvived)] == [False, True]

    assert len(play(scene, 10**6).cancelled_at) == 4  # and not once more: nothing spins


@pytest.mark.parametrize("how", ["close", "reset"])
def test_one_whose_client_left_is_cancelled_after_the_grace(how: str) -> None:
    async def scene(server: MemoryServer, app: App) -> None:
        client = server.connect()
        client.get("/slow")
        await server.settle()
        left_at = server.runtime.ticker.now
        getattr(client.peer, how)()
        await server.advance(10.0)
        (ended,) = server.seen(ConnectionEnded)
        assert REASONS[ended.ending.reason].status == 499
        assert 1.0 <= app.cancelled_at[0] - left_at <= 2.5
        assert server.seen(TaskSurvived)[0].cause == ended.ending.reason

    play(scene, 10**6)


def test_a_websocket_that_resists_is_named_too() -> None:
    async def scene(server: MemoryServer, app: App) -> None:
        client = server.connect()
        client.get(
            "/chat",
            "connection: Upgrade",
            "upgrade: websocket",
            "sec-websocket-version: 13",
            "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==",
        )
        await server.settle()
        client.peer.reset()
        await server.advance(10.0)
        (named,) = server.seen(TaskSurvived)
        assert named.owner == "connection 1 WEBSOCKET /chat"

    play(scene, 10**6)


def test_a_server_that_stops_waits_for_the_ladder_and_not_longer() -> None:
    async def scene(server: MemoryServer, app: App) -> None:
        client = server.connect()
        client.get("/slow")
        await server.settle()
        client.peer.reset()
        await server.settle()
        server.drain(0.0)
        server.shutdown.hurry()
        finished = asyncio.get_running_loop().create_task(server.shutdown.finished())
        await server.advance(10.0)
        report = finished.result()
        assert report.cut == 1
        assert "refuses_to_leave" in report.cuts[0].stack

    play(scene, 10**6)
