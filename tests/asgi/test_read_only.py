"""Read-only mode: once a drain has begun, nothing new is changed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from sojourn.config import Config, Drain, Limits
from sojourn.events import ConnectionEnded, RequestEnded
from sojourn.testing import Ended, MemoryServer, Outcome
from tests.asgi.harness import answer

CHANGES = ["POST", "PUT", "PATCH", "DELETE", "PROPPATCH"]


class App:
    def __init__(self) -> None:
        self.asked: list[str] = []
        self.go = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        self.asked.append(f"{scope['method']} {scope['path']}")
        if scope["path"] == "/slow":
            await self.go.wait()
        await answer(send, b"done")


def server(**drain: Any) -> MemoryServer:
    return MemoryServer(App(), Config(drain=Drain(delay=5, **drain)))


@pytest.mark.parametrize("method", CHANGES)
@pytest.mark.parametrize("requests", [None, 5])
def test_a_change_is_refused_from_the_notice_on(method: str, requests: int | None) -> None:
    async def main() -> None:
        app = App()
        limits = Limits(requests=requests, retry_after=3)
        async with MemoryServer(app, Config(drain=Drain(delay=5, read_only=True), limits=limits)) as server:
            server.drain()
            client = server.connect()
            client.get("/thing", method=method, body=b"x" * 100)
            await server.settle()
            answer = client.response()
            assert answer.status == 503
            assert answer.outcome is Outcome.COMPLETE
            headers = dict(answer.headers)
            assert headers["content-type"] == "application/problem+json"
            assert headers["retry-after"] == "3"
            assert headers["connection"] == "close"
            assert b'"reason":"draining"' in answer.body
            assert app.asked == []
            client.peer.close()
            await server.settle()
            (ended,) = server.seen(RequestEnded)
            assert (ended.status, ended.ending.reason, ended.ending.code) == (503, "draining", "DQ")
            assert client.peer.ended is Ended.FIN

    asyncio.run(main())


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "TRACE"])
def test_who_only_reads_is_served_on(method: str) -> None:
    async def main() -> None:
        async with (one := server(read_only=True)):
            one.drain()
            client = one.connect()
            client.get("/thing", method=method)
            await one.settle()
            assert client.response(method=method).status == 200

    asyncio.run(main())


def test_before_the_drain_and_without_the_setting_changes_are_served() -> None:
    async def main() -> None:
        for drains, read_only in ((False, True), (True, False)):
            async with (one := server(read_only=read_only)):
                if drains:
                    one.drain()
                client = one.connect()
                client.get("/thing", method="POST", body=b"x")
                await one.settle()
                assert client.response().status == 200

    asyncio.run(main())


def test_a_change_that_had_begun_finishes() -> None:
    async def main() -> None:
        app = App()
        async with MemoryServer(app, Config(drain=Drain(delay=5, read_only=True))) as server:
            client = server.connect()
            client.get("/slow", method="POST", body=b"x")
            await server.settle()
            server.drain()
            app.go.set()
            await server.settle()
            assert client.response().status == 200

    asyncio.run(main())


def test_a_change_on_a_kept_connection_is_refused_and_the_connection_ends() -> None:
    async def main() -> None:
        async with (one := server(read_only=True)):
            client = one.connect()
            client.get("/")
            await one.settle()
            assert client.response().status == 200
            one.drain()
            client.get("/", method="POST", body=b"x")
            await one.settle()
            assert client.response().status == 503
            client.peer.close()
            await one.settle()
            assert one.seen(ConnectionEnded)[0].ending.reason == "draining"

    asyncio.run(main())
