"""A client that does not take its answer, goes on sending after it, or is idle."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import trustme

from sojourn.config import Limits, Route, Timeouts, Tls
from sojourn.ending import How, Phase
from sojourn.events import ConnectionEnded
from sojourn.testing import Outcome, RawHttp
from sojourn.typing import ASGIApp, Receive, Scope, Send
from tests.deadlines.serving import Serving, app_of, hello, on_asyncio, on_uvloop, serving

#: More than the kernel takes on both sides, with a small receive buffer at the client.
LARGE = 12 * 1024 * 1024
PIECE = b"x" * 65536


@app_of
async def whole(scope: Scope, receive: Receive, send: Send) -> None:
    """A large answer in one message."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"x" * LARGE})


@app_of
async def parts(scope: Scope, receive: Receive, send: Send) -> None:
    """A large answer in parts."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for _ in range(LARGE // len(PIECE)):
        await send({"type": "http.response.body", "body": PIECE, "more_body": True})
    await send({"type": "http.response.body"})


async def both(scene: Callable[[ASGIApp], Awaitable[None]]) -> None:
    """A scene for an answer in one message and, at the same time, for one in parts."""
    await asyncio.gather(scene(whole), scene(parts))


async def read_slowly(client: RawHttp, a_second: int, seconds: float) -> int:
    """Read so many bytes a second, in ten portions; returns how many came."""
    taken = 0
    began = time.monotonic()
    while (elapsed := time.monotonic() - began) < seconds:
        while taken < elapsed * a_second:
            piece = await client.receive(max(1, int(elapsed * a_second - taken)))
            if not piece:
                return taken
            taken += len(piece)
        await asyncio.sleep(0.1)
    return taken


# --- while the application sends


@on_uvloop
async def test_a_client_that_takes_nothing_is_reset_after_write_idle() -> None:
    async def scene(app: ASGIApp) -> None:
        async with serving(app, timeouts=Timeouts(write_idle=0.5)) as s, await s.client(receive_buffer=4096) as client:
            began = time.monotonic()
            await client.get()
            ended = await s.ended("send_timeout", "write_idle")
            assert 0.5 <= time.monotonic() - began < 8.0
            assert (ended.ending.how, ended.unsent > 0) == (How.TIMEOUT, True)
            _, outcome = await client.until_closed()
            assert outcome is Outcome.RESET

    await both(scene)


@on_asyncio
async def test_a_client_that_takes_nothing_is_reset_on_asyncio_too() -> None:
    async with serving(parts, timeouts=Timeouts(write_idle=0.4)) as s, await s.client(receive_buffer=4096) as client:
        await client.get()
        await s.ended("send_timeout", "write_idle")
        s.request_ended("send_timeout", 200)


@on_uvloop
async def test_a_client_slower_than_the_minimum_rate_is_cut() -> None:
    limits = Limits(write_min_rate=8 * 1024, rate_grace=0.5)

    async def scene(app: ASGIApp) -> None:
        async with serving(app, limits=limits) as s, await s.client(receive_buffer=4096) as client:
            await client.get()
            reading = asyncio.create_task(read_slowly(client, 1024, 30.0))
            ended = await s.ended("min_response_data_rate", "write_min_rate")
            assert ended.ending.how is How.TIMEOUT
            assert 0.5 <= ended.duration < 5.0
            reading.cancel()
            await asyncio.wait([reading])
            _, outcome = await client.until_closed()
            assert outcome is Outcome.RESET

    await both(scene)


@on_uvloop
async def test_a_slow_client_above_the_minimum_rate_is_not_cut() -> None:
    limits = Limits(write_min_rate=8 * 1024, rate_grace=0.5)
    timeouts = Timeouts(write_idle=1.5)

    async def scene(app: ASGIApp) -> None:
        async with serving(app, limits=limits, timeouts=timeouts) as s, await s.client(receive_buffer=4096) as client:
            await client.get()
            taken = await read_slowly(client, 40 * 1024, 2.2)
            assert taken > 60 * 1024
            assert s.seen(ConnectionEnded) == []

    await both(scene)


@on_uvloop
async def test_a_route_and_a_request_have_their_own_times_for_a_slow_client() -> None:
    @app_of
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/own":
            scope["extensions"]["sojourn"].set_timeout("write_idle", 0.4)
        await parts(scope, receive, send)

    routes = (Route(path="/route", timeouts={"write_idle": 0.4}),)
    async with serving(app, timeouts=Timeouts(write_idle=20.0), routes=routes) as s:
        clients = [await s.client(receive_buffer=4096) for _ in range(3)]
        for client, path in zip(clients, ("/route", "/own", "/other"), strict=True):
            await client.get(path)
        await s.until(lambda: len(s.seen(ConnectionEnded)) == 2)
        await asyncio.sleep(0.3)
        assert sorted(ended.path for ended in s.seen(ConnectionEnded)) == ["/own", "/route"]
        for client in clients:
            client.reset()


# --- after the application has sent everything


def tail(size: int, *headers: tuple[bytes, bytes]) -> ASGIApp:
    """An application that has answered, and returned, before its client takes anything."""

    @app_of
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": list(headers)})
        await send({"type": "http.response.body", "body": b"x" * size})

    return app


async def stuck(s: Serving, client: RawHttp) -> int:
    """Ask until some of an answer stays in the server; returns how much that is."""
    while True:
        await client.get()
        await asyncio.sleep(0.02)
        (connection,) = s.server.runtime.registry
        if connection.buffered:
            return connection.buffered


@on_uvloop
async def test_the_last_60_kilobytes_that_a_keep_alive_client_never_takes_end_it_after_write_idle() -> None:
    timeouts = Timeouts(write_idle=0.5, keep_alive=60.0)
    async with serving(tail(50_000), timeouts=timeouts) as s, await s.client(receive_buffer=4096) as client:
        held = await stuck(s, client)
        assert held < 64 * 1024  # below the watermark: no sender waits, nobody was told
        began = time.monotonic()
        ended = await s.ended("send_timeout", "write_idle")
        assert time.monotonic() - began < 6.0
        assert ended.unsent == held


@on_uvloop
async def test_a_close_that_its_client_holds_up_is_over_after_write_idle() -> None:
    timeouts = Timeouts(write_idle=0.5, close=0.3)
    app = tail(LARGE, (b"connection", b"close"))
    async with serving(app, timeouts=timeouts) as s, await s.client(receive_buffer=4096) as client:
        await client.get()
        await s.until(lambda: s.request_ended("completed", 200) if len(s.events) > 2 else None)
        ended = await s.ended("send_timeout", "write_idle")
        assert ended.unsent > 0


@pytest.mark.parametrize("on_loop", [on_uvloop, on_asyncio])
def test_a_client_that_takes_longer_than_close_gets_every_byte(
    tmp_path: Path, on_loop: Callable[[Callable[[], Coroutine[Any, Any, None]]], Callable[[], None]]
) -> None:
    size = 4 * 1024 * 1024
    authority = trustme.CA()
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "both.pem"))
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)

    async def scene(tls: ssl.SSLContext | None) -> None:
        app = tail(size, (b"connection", b"close"))
        groups = {"timeouts": Timeouts(close=0.2), "tls": Tls(cert=str(tmp_path / "both.pem") if tls else None)}
        async with serving(app, **groups) as s, await s.client(tls=tls, receive_buffer=65536) as client:
            await client.get()
            taken = b""
            for _ in range(8):  # at first so slowly that timeouts.close passes several times
                taken += await client.receive(4096)
                await asyncio.sleep(0.1)
            data, outcome = await client.until_closed()
            assert outcome is not Outcome.RESET
            head, _, body = (taken + data).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200")
            assert len(body) == size
            ended = await s.ended("completed")
            assert ended.unsent == 0

    async def test() -> None:
        await asyncio.gather(scene(None), scene(trusting))

    on_loop(test)()


# --- idle connections


@on_uvloop
async def test_an_idle_client_is_let_go_after_keep_alive_with_a_fin() -> None:
    async with serving(hello, timeouts=Timeouts(keep_alive=0.4)) as s, await s.client() as client:
        for _ in range(3):
            await client.get()
            assert (await client.response()).body == b"hello"
            await asyncio.sleep(0.2)
        began = time.monotonic()
        assert await client.until_closed() == (b"", Outcome.NOTHING)
        assert 0.15 <= time.monotonic() - began < 5.0
        ended = await s.ended("keep_alive_idle", "keep_alive")
        assert (ended.ending.phase, ended.requests) == (Phase.IDLE, 3)


@on_uvloop
async def test_an_early_answer_reaches_a_client_that_goes_on_sending_and_lingering_ends() -> None:
    limits = Limits(body=1000)
    async with serving(read_first, limits=limits, timeouts=Timeouts(linger=0.5)) as s, await s.client() as client:
        await client.send(b"POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 900000000\r\n\r\n")
        answer = await client.response()
        assert answer.status == 413
        began = time.monotonic()
        with pytest.raises(OSError, match=r"Broken pipe|reset"):
            await go_on_sending(client)
        assert 0.3 <= time.monotonic() - began < 5.0
        await s.ended("body_too_large")


async def go_on_sending(client: RawHttp) -> None:
    for _ in range(500):
        await client.send(b"x" * 1000)
        await asyncio.sleep(0.02)


@app_of
async def read_first(scope: Scope, receive: Receive, send: Send) -> None:
    """Reads one piece of the body."""
    await receive()


@on_uvloop
async def test_an_idle_connection_ends_politely_at_the_end_of_its_lifetime() -> None:
    async with serving(hello, timeouts=Timeouts(lifetime=0.5)) as s, await s.client() as client:
        await client.get()
        assert (await client.response()).status == 200
        assert await client.until_closed() == (b"", Outcome.NOTHING)
        ended = await s.ended("max_connection_duration")
        assert 0.45 <= ended.duration < 5.0


@on_uvloop
async def test_a_request_is_answered_although_the_lifetime_of_its_connection_is_over() -> None:
    @app_of
    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(1.5)
        await hello(scope, receive, send)

    async with serving(slow, timeouts=Timeouts(lifetime=0.3, linger=0.2)) as s, await s.client() as client:
        await client.get()
        answer = await client.response()
        assert (answer.body, answer.header("connection")) == (b"hello", "close")
        await s.ended("max_connection_duration")


@on_uvloop
async def test_an_endless_event_stream_ends_whole_at_the_end_of_its_lifetime() -> None:
    @app_of
    async def events(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        while True:
            await send({"type": "http.response.body", "body": b"data: x\n\n", "more_body": True})
            await asyncio.sleep(0.05)

    timeouts = Timeouts(lifetime=0.4, disconnect_grace=0.2, linger=0.2)
    async with serving(events, timeouts=timeouts) as s, await s.client() as client:
        await client.get()
        answer = await client.response()
        assert answer.complete
        assert answer.body.startswith(b"data: x\n\n")
        await s.ended("max_connection_duration")
        s.request_ended("max_connection_duration", 200)
