"""The PROXY header is taken off the socket to the byte, without spinning, and leaves nothing behind when cancelled."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import trustme
import uvloop

from sojourn.errors import ProtocolError
from sojourn.net.preface import read_proxy_header
from sojourn.wire.proxy import SIGNATURE

Run = Callable[[Coroutine[Any, Any, None]], None]
on_both_loops = pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])

V1 = b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n"
V2 = SIGNATURE + b"\x21\x11\x00\x0c" + bytes([192, 0, 2, 1, 198, 51, 100, 2]) + b"\xdc\x04\x01\xbb"
UNKNOWN = b"PROXY UNKNOWN\r\n"
HEADERS = pytest.mark.parametrize("header", [V1, V2, UNKNOWN], ids=["v1", "v2", "unknown"])
REQUEST = b"GET / HTTP/1.1\r\n\r\n"


class Pair:
    """A connected pair of sockets, the server's end non-blocking."""

    def __enter__(self) -> tuple[socket.socket, socket.socket]:
        self.client, self.server = socket.socketpair()
        self.server.setblocking(False)
        return self.client, self.server

    def __exit__(self, *_: object) -> None:
        self.client.close()
        self.server.close()


@on_both_loops
@HEADERS
def test_a_header_that_came_whole_is_read_and_the_request_stays(run: Run, header: bytes) -> None:
    async def main() -> None:
        with Pair() as (client, server):
            client.sendall(header + REQUEST)
            proxied = await read_proxy_header(asyncio.get_running_loop(), server)
            assert proxied.source == (None if header == UNKNOWN else ("192.0.2.1", 56324))
            assert proxied.consumed == len(header)
            assert server.recv(1000) == REQUEST

    run(main())


class Counting:
    """A loop that counts how often a socket is waited for."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.added = self.removed = 0

    def add_reader(self, *args: Any) -> None:
        self.added += 1
        self.loop.add_reader(*args)

    def remove_reader(self, *args: Any) -> None:
        self.removed += 1
        self.loop.remove_reader(*args)

    def create_future(self) -> asyncio.Future[None]:
        return self.loop.create_future()


async def passes(turns: int = 3) -> None:
    """Let the loop poll its sockets a few times."""
    loop = asyncio.get_running_loop()
    for _ in range(turns):
        turn = loop.create_future()
        loop.call_later(0.001, turn.set_result, None)
        await turn


@on_both_loops
@HEADERS
def test_a_header_byte_by_byte_costs_one_wake_up_a_byte(run: Run, header: bytes) -> None:
    async def main() -> None:
        loop: Any = Counting()
        with Pair() as (client, server):
            reading = asyncio.get_running_loop().create_task(read_proxy_header(loop, server))
            for at in range(len(header)):
                await passes()
                assert not reading.done()
                client.send(header[at : at + 1] + (REQUEST if at == len(header) - 1 else b""))
            proxied = await reading
            assert proxied.consumed == len(header)
            assert server.recv(1000) == REQUEST
            assert loop.added == loop.removed <= len(header)

    run(main())


@on_both_loops
@pytest.mark.parametrize("sent", [b"", V1[:7], V1[:30], V2[:12], V2[:20]])
def test_a_silent_peer_costs_nothing_and_cancelling_leaves_nothing(run: Run, sent: bytes) -> None:
    async def main() -> None:
        loop: Any = Counting()
        with Pair() as (client, server):
            client.send(sent)
            reading = asyncio.get_running_loop().create_task(read_proxy_header(loop, server))
            await passes(20)
            assert loop.added <= 2
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
            assert loop.added == loop.removed
            assert not asyncio.get_running_loop().remove_reader(server)
            assert server.fileno() > 0

    run(main())


@on_both_loops
@pytest.mark.parametrize("sent", [REQUEST, b"\x16\x03\x01", SIGNATURE + b"\x31", V1[:20] + b"\n"])
def test_what_is_no_header_is_refused_at_once(run: Run, sent: bytes) -> None:
    async def main() -> None:
        with Pair() as (client, server):
            client.send(sent)
            with pytest.raises(ProtocolError) as caught:
                await read_proxy_header(asyncio.get_running_loop(), server)
            assert caught.value.reason == "invalid_proxy_header"

    run(main())


@on_both_loops
@pytest.mark.parametrize(
    ("sent", "reason"),
    [(b"", "connected_no_data"), (V1[:5], "invalid_proxy_header"), (V1[:30], "invalid_proxy_header"),
     (V2[:-1], "invalid_proxy_header")],
)  # fmt: skip
def test_an_end_before_the_header_has_a_reason(run: Run, sent: bytes, reason: str) -> None:
    async def main() -> None:
        with Pair() as (client, server):
            client.send(sent)
            client.close()
            with pytest.raises(ProtocolError) as caught:
                await read_proxy_header(asyncio.get_running_loop(), server)
            assert caught.value.reason == reason

    run(main())


class Receiver(asyncio.Protocol):
    """Keeps what comes."""

    def __init__(self) -> None:
        self.data = b""
        self.ended = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        self.data += data

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended.set_result(exc)


@on_both_loops
@HEADERS
@pytest.mark.parametrize("late", [False, True], ids=["at once", "in two parts"])
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
def test_a_transport_put_on_afterwards_finds_the_clients_bytes(
    run: Run, header: bytes, late: bool, secure: bool
) -> None:
    authority = trustme.CA()
    ours, theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("a.example").configure_cert(ours)
    authority.configure_trust(theirs)

    def talk(client: socket.socket, rest: bytes) -> None:
        client.settimeout(5)
        client.sendall(rest)
        wrapped = theirs.wrap_socket(client, server_hostname="a.example") if secure else client
        wrapped.sendall(REQUEST)
        if isinstance(wrapped, ssl.SSLSocket):
            wrapped.unwrap().close()
        client.close()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with Pair() as (client, server):
            if late:
                client.sendall(header[:9])
            reading = loop.create_task(read_proxy_header(loop, server))
            await passes()
            talking = loop.run_in_executor(None, talk, client, header[9:] if late else header)
            await reading
            receiver = Receiver()
            transport, _ = await loop.connect_accepted_socket(lambda: receiver, server, ssl=ours if secure else None)
            await talking
            await receiver.ended
            transport.close()
            assert receiver.data == REQUEST

    run(main())
