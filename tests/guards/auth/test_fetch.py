"""Fetching keys from a real server, which does what it likes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from sojourn.clock import SystemClock
from sojourn.errors import AuthenticationError
from sojourn.guards.auth.fetch import HttpFetch
from sojourn.guards.auth.jwks import JwksCache, KeyTimes
from tests.guards.auth.issuing import Issuer

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def with_server(answer: Answer, test: Callable[[str], Awaitable[None]]) -> None:
    """Run a test with a server that answers like this."""

    async def main() -> None:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await reader.readuntil(b"\r\n\r\n")
                await answer(reader, writer)
            finally:
                writer.close()

        async with asyncio.timeout(10), await asyncio.start_server(handle, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            await test(f"http://127.0.0.1:{port}/jwks.json")

    asyncio.run(main())


def answering(status: str, body: bytes = b"", *headers: str) -> Answer:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines = [f"HTTP/1.1 {status}", *headers, "connection: close", "", ""]
        writer.write("\r\n".join(lines).encode() + body)
        await writer.drain()

    return answer


def test_keys_come_over_http() -> None:
    issuer = Issuer()

    async def test(url: str) -> None:
        cache = JwksCache(url, HttpFetch(), SystemClock(), KeyTimes())
        assert (await cache.find("one", "ES256")).kid == "one"

    with_server(answering("200 OK", issuer.document()), test)


async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n")
    try:
        while True:
            writer.write(b" " * 65536)
            await writer.drain()
    except ConnectionError:
        pass


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (answering("500 Oops"), "status 500"),
        (answering("302 Found", b"", "location: http://127.0.0.1:1/"), "status 302"),
        (answering("200 OK", b"{}", "content-length: 5"), "RemoteProtocolError"),
        (endless, "larger than"),
    ],
    ids=["an error", "a redirect", "half an answer", "an endless one"],
)
def test_what_is_no_good_answer_is_an_error(answer: Answer, says: str) -> None:
    async def test(url: str) -> None:
        with pytest.raises(OSError, match=says):
            await HttpFetch()(url)

    with_server(answer, test)


def test_a_server_that_hangs_costs_no_more_than_the_deadline() -> None:
    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async def test(url: str) -> None:
        cache = JwksCache(url, HttpFetch(), SystemClock(), KeyTimes(timeout=0.2))
        began = asyncio.get_running_loop().time()
        with pytest.raises(AuthenticationError, match="keys_unavailable"):
            await cache.find("one", "ES256")
        assert 0.15 < asyncio.get_running_loop().time() - began < 2.0
        assert "deadline 'jwks'" in cache.failure

    with_server(hang, test)


def test_nobody_there_is_an_error() -> None:
    async def main() -> None:
        with pytest.raises(OSError, match="ConnectError"):
            await HttpFetch()("http://127.0.0.1:1/")

    asyncio.run(main())
