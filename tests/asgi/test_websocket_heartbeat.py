"""The heartbeat on the wire: who is pinged, who lives, who ends with pong_timeout, and who is not to blame."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from sojourn.config import Config, WebSocket
from sojourn.ending import How
from sojourn.events import DeadlineMissed
from sojourn.policy.heartbeat import Life
from tests.asgi.ws_harness import PING, PONG, Client, Served, Told, accept, on_both_loops, serving, until
from tests.wire.websocket_client import client_frame

CONFIG = Config(websocket=WebSocket(ping_interval=20.0, ping_timeout=10.0, ping_misses=2))


@pytest.fixture(autouse=True)
def no_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sojourn.asgi.websocket_upgrade.random.random", lambda: 0.0)


def life(served: Served) -> Life:
    handler: Any = served.connection.handler
    return handler.life


async def answer_pings(client: Client, counts: list[int]) -> None:
    while True:
        frame = await client.frame()
        assert frame.opcode == PING
        client.write(client_frame(PONG, frame.payload))
        counts[0] += 1


@on_both_loops
async def test_a_client_that_never_pongs_is_suspect_and_then_dead_with_pong_timeout() -> None:
    app = Told()
    async with serving(app, CONFIG) as served:
        client = await served.connect()
        before = served.connection.bytes_out
        await served.pass_time(19.6)
        assert served.connection.bytes_out == before
        await served.pass_time(1.6)  # pings wait up to a second for each other
        assert served.connection.bytes_out == before + 2
        assert (await client.frame())[:2] == (PING, b"")
        assert life(served) is Life.NORMAL
        await served.pass_time(10)
        assert life(served) is Life.SUSPECT
        await served.pass_time(9)
        assert len(served.server.runtime.registry) == 1
        await served.pass_time(1.6)
        ended = await served.ended()
        assert (ended.ending.reason, ended.ending.code, ended.ending.how) == ("pong_timeout", "NW", How.TIMEOUT)
        missed = await served.next(DeadlineMissed)
        assert (missed.deadline, missed.seconds) == ("websocket.ping_timeout", 10.0)
        await until(lambda: app.messages)
        assert app.messages[0]["code"] == 1006


@on_both_loops
async def test_a_silent_client_that_answers_pings_lives() -> None:
    async with serving(Told(), CONFIG) as served:
        client = await served.connect()
        counts = [0]
        answering = asyncio.ensure_future(answer_pings(client, counts))
        began = served.clock.monotonic()
        for number in range(10):
            while served.connection.bytes_out == 129 + 2 * number:
                await served.pass_time(0.2)
            await until(lambda: counts[0] == number + 1)  # noqa: B023
            await until(lambda: served.connection.last_read == served.server.runtime.ticker.now)
        assert life(served) is Life.NORMAL
        assert 200 <= served.clock.monotonic() - began < 210
        answering.cancel()


@on_both_loops
async def test_any_byte_is_life_and_a_client_that_sends_is_not_pinged() -> None:
    async with serving(Told(), CONFIG) as served:
        client = await served.connect()
        before = served.connection.bytes_out
        for byte in client_frame(1, b"x" * 20):
            await served.pass_time(15)
            client.write(bytes([byte]))
            await until(lambda: served.connection.last_read == served.server.runtime.ticker.now)
        assert served.connection.bytes_out == before


@on_both_loops
async def test_without_an_interval_nobody_is_pinged() -> None:
    async with serving(Told(), Config(websocket=WebSocket(ping_interval=None))) as served:
        await served.connect()
        before = served.connection.bytes_out
        await served.pass_time(50)
        assert served.connection.bytes_out == before
        assert len(served.server.runtime.registry) == 1


@on_both_loops
async def test_a_client_whose_bytes_are_not_read_is_pinged_and_not_blamed() -> None:
    go = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await accept(receive, send)
            await go.wait()
            while (await receive())["type"] != "websocket.disconnect":
                pass

    async with serving(app, CONFIG) as served:
        client = await served.connect()
        client.write(client_frame(1, b"x") * 300)
        await until(lambda: served.connection.reading_paused)
        before = served.connection.bytes_out
        await served.pass_time(64)  # pings wait up to a second for each other
        assert served.connection.bytes_out == before + 3 * 2
        assert life(served) is Life.NORMAL
        go.set()
        await until(lambda: not served.connection.reading_paused)
        await served.pass_time(19)
        assert life(served) is Life.NORMAL
        await served.pass_time(22)
        assert (await served.ended()).ending.reason == "pong_timeout"


@on_both_loops
async def test_a_client_that_reads_slowly_but_reads_is_not_dead() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await accept(receive, send)
            await send({"type": "websocket.send", "bytes": bytes(1_000_000)})
            await receive()

    async with serving(app, CONFIG, send_buffer=8192) as served:
        client = await served.connect(receive_buffer=8192)
        await until(lambda: served.connection.blocked)
        for _ in range(20):  # its pongs are behind a megabyte that it reads bit by bit
            await client.reader.readexactly(20_000)
            await served.pass_time(5)
        assert len(served.server.runtime.registry) == 1
        assert served.connection.blocked


@on_both_loops
async def test_a_client_that_vanished_while_it_was_not_read_is_found_by_the_pings() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await accept(receive, send)
            await asyncio.Event().wait()

    async with serving(app, CONFIG) as served:
        client = await served.connect()
        client.write(client_frame(1, b"x") * 300)
        await until(lambda: served.connection.reading_paused)
        client.reset()
        await served.pass_time(61)
        await served.ended()
