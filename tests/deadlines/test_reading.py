"""A client that keeps us waiting before its request is complete: TLS, PROXY, head, body."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme

from sojourn.config import Limits, Proxy, Route, Timeouts, Tls
from sojourn.ending import How, Phase
from sojourn.testing import Outcome, RawHttp
from sojourn.typing import Receive, Scope, Send
from tests.deadlines.serving import app_of, hello, on_asyncio, on_uvloop, problem_of, read_all, serving

CLIENT_HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500)
POST = b"POST / HTTP/1.1\r\nhost: test\r\ncontent-length: %d\r\n\r\n"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tls, ssl.SSLContext]:
    folder: Path = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(folder / "both.pem"))
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    return Tls(cert=str(folder / "both.pem")), trusting


def each(data: bytes) -> list[bytes]:
    """The bytes one by one."""
    return [bytes([byte]) for byte in data]


@asynccontextmanager
async def dripping(client: RawHttp, *pieces: bytes) -> AsyncIterator[None]:
    """Send a piece every tenth of a second, until the block is left or the server has had enough."""

    async def drip() -> None:
        for piece in pieces:
            try:
                await client.send(piece)
            except OSError:
                return
            await asyncio.sleep(0.1)

    task = asyncio.create_task(drip())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


# --- before the request


@pytest.mark.parametrize("drips", [False, True], ids=["silent", "dripping"])
@on_uvloop
async def test_a_tls_handshake_has_its_time_and_bytes_do_not_extend_it(
    certificate: tuple[Tls, ssl.SSLContext], drips: bool
) -> None:
    async with serving(hello, tls=certificate[0], timeouts=Timeouts(tls=0.4)) as s, await s.client() as client:
        began = time.monotonic()
        async with dripping(client, *each(CLIENT_HELLO if drips else b"")):
            data, _ = await client.until_closed()
            assert data == b""
            ended = await s.ended("tls_timeout", "tls")
        assert (ended.ending.phase, ended.ending.how, ended.requests) == (Phase.TLS, How.TIMEOUT, 0)
        assert 0.4 <= time.monotonic() - began < 5.0
        assert s.missed("tls").seconds == 0.4


@on_asyncio
async def test_a_tls_handshake_has_its_time_on_asyncio_too(certificate: tuple[Tls, ssl.SSLContext]) -> None:
    async with serving(hello, tls=certificate[0], timeouts=Timeouts(tls=0.3)) as s, await s.client() as client:
        await client.send(CLIENT_HELLO[:50])
        await client.until_closed()
        await s.ended("tls_timeout", "tls")


@on_uvloop
async def test_after_the_handshake_the_head_has_its_own_time(certificate: tuple[Tls, ssl.SSLContext]) -> None:
    timeouts = Timeouts(tls=5.0, header=0.4, linger=0.2)
    async with (
        serving(hello, tls=certificate[0], timeouts=timeouts) as s,
        await s.client(tls=certificate[1]) as client,
    ):
        await client.send(b"GET / HT")
        answer = await client.response()
        assert (answer.status, problem_of(answer)["deadline"]) == (408, "header")
        await s.ended("request_headers_timeout", "header")


@pytest.mark.parametrize("drips", [False, True], ids=["silent", "dripping"])
@on_uvloop
async def test_a_proxy_header_has_its_time_and_bytes_do_not_extend_it(drips: bool) -> None:
    proxy, timeouts = Proxy(protocol="on"), Timeouts(proxy=0.4)
    async with serving(hello, proxy=proxy, timeouts=timeouts) as s, await s.client() as client:
        began = time.monotonic()
        async with dripping(client, *each(b"PROXY TCP4 192.0.2.1 192.0.2.2 1000 80\r\n" if drips else b"")):
            data, _ = await client.until_closed()
            assert data == b""
            await s.ended("proxy_header_timeout", "proxy")
        assert 0.4 <= time.monotonic() - began < 3.0


# --- the head


@on_uvloop
async def test_a_client_that_never_sends_anything_is_let_go_in_silence() -> None:
    async with serving(hello, timeouts=Timeouts(header=0.3)) as s, await s.client() as client:
        assert await client.until_closed() == (b"", Outcome.NOTHING)
        ended = await s.ended("request_headers_timeout", "header")
        assert (ended.bytes_in, ended.requests) == (0, 0)


@on_uvloop
async def test_a_head_has_its_time_and_a_byte_every_tenth_of_a_second_does_not_extend_it() -> None:
    async with serving(hello, timeouts=Timeouts(header=0.5, linger=0.2)) as s, await s.client() as client:
        began = time.monotonic()
        async with dripping(client, *each(b"GET / HTTP/1.1\r\nhost: test\r\nx-much: " + b"x" * 200)):
            answer = await client.response()
        assert 0.5 <= time.monotonic() - began < 3.0
        assert (answer.status, answer.header("connection")) == (408, "close")
        assert problem_of(answer)["deadline"] == "header"
        await s.ended("request_headers_timeout", "header")


@on_uvloop
async def test_the_head_of_a_later_request_has_its_time_from_its_first_byte() -> None:
    async with (
        serving(hello, timeouts=Timeouts(header=0.4, keep_alive=10.0, linger=0.2)) as s,
        await s.client() as client,
    ):
        await client.get()
        assert (await client.response()).body == b"hello"
        await asyncio.sleep(0.7)  # idle is not late
        began = time.monotonic()
        async with dripping(client, *each(b"GET /again HTTP/1.1\r\nhost: " + b"x" * 100)):
            answer = await client.response()
        assert answer.status == 408
        assert 0.4 <= time.monotonic() - began < 3.0
        await s.ended("request_headers_timeout", "header")


# --- the body


@on_uvloop
async def test_a_body_that_stops_is_answered_with_408_after_body_idle() -> None:
    async with serving(read_all, timeouts=Timeouts(body_idle=0.4, linger=0.2)) as s, await s.client() as client:
        await client.send(POST % 100 + b"part")
        answer = await client.response()
        assert (answer.status, answer.header("connection")) == (408, "close")
        assert problem_of(answer)["deadline"] == "body_idle"
        s.request_ended("request_body_timeout", 408)
        await s.ended("request_body_timeout", "body_idle")


@on_uvloop
async def test_a_body_that_moves_is_not_cut_by_body_idle() -> None:
    async with serving(read_all, timeouts=Timeouts(body_idle=0.6)) as s, await s.client() as client:
        await client.send(POST % 8)
        for _ in range(8):
            await asyncio.sleep(0.15)
            await client.send(b"x")
        assert (await client.response()).body == b"8"


@on_uvloop
async def test_a_client_is_not_late_while_the_application_does_not_read() -> None:
    @app_of
    async def late(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(0.8)
        await read_all(scope, receive, send)

    limits = Limits(body_min_rate=1_000_000, rate_grace=0.2)
    timeouts = Timeouts(body_idle=0.3, body=0.5)
    async with serving(late, timeouts=timeouts, limits=limits) as s, await s.client() as client:
        await client.send(POST % 8 + b"half")
        await asyncio.sleep(0.6)
        await client.send(b"half")
        assert (await client.response()).body == b"8"


@pytest.mark.parametrize(("a_piece", "status"), [(20, 408), (2000, 200)], ids=["slower", "faster"])
@on_uvloop
async def test_a_body_slower_than_the_minimum_rate_is_answered_with_408(a_piece: int, status: int) -> None:
    limits = Limits(body_min_rate=2000, rate_grace=0.3)
    async with serving(read_all, limits=limits, timeouts=Timeouts(linger=0.2)) as s, await s.client() as client:
        await client.send(POST % (a_piece * 12))
        async with dripping(client, *[b"x" * a_piece] * 12):
            answer = await client.response()
        assert answer.status == status
        if status == 408:
            assert problem_of(answer)["deadline"] == "body_min_rate"
            await s.ended("min_request_body_data_rate", "body_min_rate")


@on_uvloop
async def test_a_body_that_moves_for_too_long_is_answered_with_408() -> None:
    async with serving(read_all, timeouts=Timeouts(body=0.6, linger=0.2)) as s, await s.client() as client:
        await client.send(POST % 100_000)
        async with dripping(client, *each(b"x" * 100)):
            answer = await client.response()
        assert problem_of(answer)["deadline"] == "body"
        await s.ended("request_body_timeout", "body")


@on_uvloop
async def test_a_route_has_its_own_times_for_the_body() -> None:
    routes = (Route(path="/upload/*", timeouts={"body_idle": 0.3}, limits={"body_min_rate": "none"}),)
    async with (
        serving(read_all, timeouts=Timeouts(body_idle=20.0), routes=routes) as s,
        await s.client() as quick,
        await s.client() as patient,
    ):
        head = b"POST %b HTTP/1.1\r\nhost: test\r\ncontent-length: 2\r\n\r\n1"
        await patient.send(head % b"/other")
        await quick.send(head % b"/upload/1")
        assert problem_of(await quick.response())["deadline"] == "body_idle"
        assert s.missed("body_idle").seconds == 0.3
        await patient.send(b"2")
        assert (await patient.response()).body == b"2"
