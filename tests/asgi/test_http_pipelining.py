"""A client that asks faster than it takes its answers is served at its own pace, and costs one answer of memory."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from sojourn.config import Config, Limits, Timeouts
from sojourn.events import ConnectionEnded, RequestEnded
from sojourn.testing import Ended, MemoryClient, MemoryServer
from sojourn.typing import Receive, Scope, Send

SIZE = 100_000
GET = b"GET /%d HTTP/1.1\r\nhost: test\r\n\r\n"
served: list[str] = []


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] != "http":
        return
    served.append(scope["path"])
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"x" * SIZE})


def play(scene: Callable[[MemoryServer, MemoryClient], Awaitable[None]]) -> None:
    async def main() -> None:
        served.clear()
        config = Config(timeouts=Timeouts(keep_alive=5.0, write_idle=8.0), limits=Limits(write_min_rate=None))
        async with MemoryServer(app, config) as server:
            client = server.connect()
            client.peer.stop_taking()
            await scene(server, client)

    asyncio.run(main())


def pipelined(number: int) -> bytes:
    return b"".join(GET % index for index in range(number))


def test_the_next_request_waits_until_the_answer_before_it_is_taken() -> None:
    async def scene(server: MemoryServer, client: MemoryClient) -> None:
        client.send(pipelined(50))
        await server.advance(1.0)
        assert served == ["/0"]
        assert client.connection.buffered < SIZE + 1000
        client.peer.take(SIZE)
        await server.advance(1.0)
        assert served == ["/0", "/1"]
        client.peer.take_all()
        await server.settle()
        assert served == [f"/{index}" for index in range(50)]
        assert all(client.response().complete for _ in range(50))

    play(scene)


def test_requests_that_come_one_by_one_wait_as_well() -> None:
    async def scene(server: MemoryServer, client: MemoryClient) -> None:
        for index in range(5):
            client.send(GET % index)
            await server.advance(0.5)
        assert served == ["/0"]
        client.peer.take_all()
        await server.settle()
        assert len(served) == 5

    play(scene)


def test_a_client_that_waits_for_nothing_but_the_rest_of_its_answer_is_not_idle() -> None:
    async def scene(server: MemoryServer, client: MemoryClient) -> None:
        client.send(GET % 0)
        for _ in range(10):
            await server.advance(1.0)  # twice keep_alive in all
            client.peer.take(9_000)
        client.peer.take_all()
        await server.settle()
        assert client.response().complete
        client.send(GET % 1)
        await server.settle()
        assert client.response().complete

    play(scene)


def test_a_client_that_takes_nothing_is_ended_and_what_it_asked_for_is_not_done() -> None:
    async def scene(server: MemoryServer, client: MemoryClient) -> None:
        client.send(pipelined(5))
        await server.advance(9.0)
        assert client.peer.ended is Ended.RESET
        assert served == ["/0"]
        assert [event.ending.reason for event in server.seen(ConnectionEnded)] == ["send_timeout"]

    play(scene)


def test_a_client_that_half_closes_meanwhile_gets_all_its_answers() -> None:
    async def scene(server: MemoryServer, client: MemoryClient) -> None:
        client.send(pipelined(3))
        client.peer.send_eof()
        await server.advance(4.0)
        assert served == ["/0"]
        client.peer.take_all()
        await server.advance(0.5)
        assert [client.response().complete for _ in range(3)] == [True, True, True]
        assert client.peer.ended is Ended.FIN
        assert len(server.seen(RequestEnded)) == 3

    play(scene)


def test_a_drain_meanwhile_lets_the_client_take_what_was_answered() -> None:
    async def scene(server: MemoryServer, client: MemoryClient) -> None:
        client.send(GET % 0)
        await server.settle()
        server.drain(0.0)
        await server.advance(1.0)
        client.peer.take_all()
        await server.advance(0.5)
        assert client.response().complete
        assert client.peer.ended is Ended.FIN
        assert [event.ending.reason for event in server.seen(ConnectionEnded)] == ["drain_goodbye"]

    play(scene)
