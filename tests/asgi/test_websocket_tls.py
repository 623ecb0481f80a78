"""The same over TLS, where there is no half-close and where bytes still come after reading was paused."""

from __future__ import annotations

import asyncio
import os
import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from sojourn.config import Config, Tls
from sojourn.events import ApplicationFailed
from tests.asgi.ws_harness import accept, echo, on_both_loops, serving, until


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def trust(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest.fixture
def config(authority: trustme.CA, tmp_path: Path) -> Config:
    path = tmp_path / "server.pem"
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(path))
    return Config(tls=Tls(cert=str(path)))


@on_both_loops
async def test_wss_echoes_large_and_small_and_closes(config: Config, trust: ssl.SSLContext) -> None:
    schemes = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            schemes.append(scope["scheme"])
            assert "tls" in scope["extensions"]
        await echo(scope, receive, send)

    async with serving(app, config) as served:
        async with connect(served.url, ssl=trust) as client:
            for data in ("small", os.urandom(1 << 20), "", "last"):
                await client.send(data)
                assert await client.recv() == data
        assert (await served.ended()).ending.reason == "ws_client_closed"
        assert schemes == ["wss"]


@on_both_loops
async def test_a_violation_over_tls_reaches_the_client_as_its_close_code(config: Config, trust: ssl.SSLContext) -> None:
    async with serving(echo, config) as served:
        client = await connect(served.url, ssl=trust, max_size=None)
        await client.send(bytes((1 << 20) + 1))
        with pytest.raises(ConnectionClosed):
            await client.recv()
        assert client.close_code == 1009
        assert (await served.ended()).ending.reason == "ws_message_too_big"


@on_both_loops
async def test_a_flood_over_tls_is_bounded_and_arrives_whole(config: Config, trust: ssl.SSLContext) -> None:
    go, received = asyncio.Event(), []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await accept(receive, send)
            await go.wait()
            while (message := await receive())["type"] == "websocket.receive":
                received.append(message["text"])

    async with serving(app, config) as served, connect(served.url, ssl=trust, compression=None) as client:
        texts = [str(number) for number in range(30_000)]

        async def flood() -> None:
            for text in texts:
                await client.send(text)

        flooding = asyncio.ensure_future(flood())
        await until(lambda: served.connection.reading_paused)
        handler: Any = served.connection.handler
        assert len(handler._inbox) == 256
        assert handler._parser.buffered < 600_000
        go.set()
        await flooding
        await until(lambda: len(received) == len(texts))
        assert received == texts


@on_both_loops
async def test_a_client_that_drops_its_tls_connection_is_1006(config: Config, trust: ssl.SSLContext) -> None:
    async with serving(echo, config) as served:
        client = await connect(served.url, ssl=trust)
        client.transport.abort()
        ended = await served.ended()
        assert ended.ending.reason in ("ws_eof_no_close", "client_reset")
        await until(lambda: not served.server.work.running)
        assert not served.seen(ApplicationFailed)
