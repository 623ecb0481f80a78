"""The raw clients send what they are told and report what came back, byte by byte."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import closing

import pytest
import uvloop

from sojourn.testing import Channel, Frame, Outcome, RawHttp, RawWebSocket

on_both_loops = pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
Client = Callable[[str], Awaitable[None]]


def against(answer: bytes, *, reset: bool = False, hold: bool = False) -> Callable[[Client], Awaitable[None]]:
    """Run a client against a server that sends these bytes, and then closes, resets or holds the connection."""

    async def play(client: Client) -> None:
        loop = asyncio.get_running_loop()
        with closing(socket.create_server(("127.0.0.1", 0))) as server:
            server.setblocking(False)
            running = loop.create_task(client(f"http://127.0.0.1:{server.getsockname()[1]}"))
            sock, _ = await loop.sock_accept(server)
            await loop.sock_sendall(sock, answer)
            if hold:
                await running
            elif reset:
                await asyncio.sleep(0.05)  # let the bytes arrive: a reset would overtake them
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.close()
            await running

    return play


@on_both_loops
@pytest.mark.parametrize(
    ("answer", "reset", "outcome"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", False, Outcome.COMPLETE),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhello", False, Outcome.TRUNCATED),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhello", True, Outcome.RESET),
        (b"HTTP/1.1 200 OK\r\n\r\nhello", False, Outcome.COMPLETE),
        (b"HTTP/1.1 200 OK\r\n\r\nhello", True, Outcome.RESET),
        (b"", False, Outcome.NOTHING),
        (b"", True, Outcome.RESET),
    ],
)
def test_complete_truncated_and_reset_are_told_apart(
    run: Callable[..., None], answer: bytes, reset: bool, outcome: Outcome
) -> None:
    async def client(url: str) -> None:
        async with await RawHttp.open(url) as http:
            await http.get()
            got = await http.response()
            assert got.outcome is outcome
            assert got.body == (b"hello" if answer else b"")

    run(against(answer, reset=reset)(client))


def test_answers_that_come_together_are_read_one_by_one() -> None:
    async def client(url: str) -> None:
        async with await RawHttp.open(url) as http:
            assert (await http.response()).status == 200
            assert (await http.response()).status == 204
            assert await http.until_closed() == (b"rest", Outcome.TRUNCATED)

    asyncio.run(against(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\nHTTP/1.1 204 No Content\r\n\r\nrest")(client))


def test_a_server_that_keeps_silent_fails_the_test_and_does_not_hang_it() -> None:
    async def client(url: str) -> None:
        async with await RawHttp.open(url, timeout=0.1) as http:
            for wait in (http.response, http.until_closed, http.receive):
                with pytest.raises(TimeoutError):
                    await wait()

    asyncio.run(against(b"HTTP/1.1 200 OK\r\n", hold=True)(client))


@on_both_loops
def test_frames_are_shown_as_they_came(run: Callable[..., None]) -> None:
    frames = [
        b"\x81\x05hello",
        b"\x02\x7e\x01\x00" + b"x" * 256,
        b"\xc0\x7f" + struct.pack("!Q", 70_000) + b"y" * 70_000,
        b"\x88\x02\x03\xe8",
        b"\x88\x00",
    ]

    async def client(url: str) -> None:
        async with await RawWebSocket.open(url) as websocket:
            got = [await websocket.frame() for _ in frames]
            assert got[0] == Frame(RawWebSocket.TEXT, b"hello")
            assert got[1] == Frame(RawWebSocket.BINARY, b"x" * 256, fin=False)
            assert got[2] == Frame(0, b"y" * 70_000, rsv=4)
            assert got[3] is not None
            assert got[4] is not None
            assert (got[3].code, got[4].code) == (1000, 1005)
            assert await websocket.frame() is None

    run(against(b"".join(frames))(client))


@pytest.mark.parametrize(
    ("data", "problem"),
    [(b"\x81\x85abcdhello", "must not mask"), (b"\x81\x05hel", "FIN inside a frame"), (b"\x81", "FIN inside")],
)
def test_a_broken_frame_is_an_error(data: bytes, problem: str) -> None:
    async def client(url: str) -> None:
        async with await RawWebSocket.open(url) as websocket:
            with pytest.raises(ValueError, match=problem):
                await websocket.frame()

    asyncio.run(against(data)(client))


def test_a_wrong_accept_is_an_error_and_a_refusal_is_an_answer() -> None:
    async def wrong(url: str) -> None:
        async with await RawWebSocket.open(url) as websocket:
            with pytest.raises(ValueError, match="wrong Sec-WebSocket-Accept"):
                await websocket.upgrade()

    async def refused(url: str) -> None:
        async with await RawWebSocket.open(url) as websocket:
            assert (await websocket.upgrade()).status == 403

    asyncio.run(against(b"HTTP/1.1 101 X\r\nsec-websocket-accept: x\r\n\r\n")(wrong))
    asyncio.run(against(b"HTTP/1.1 403 No\r\ncontent-length: 0\r\n\r\n")(refused))


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        (RawWebSocket.encode(1, b"hi", mask=b"\1\2\3\4"), b"\x81\x82\1\2\3\4ik"),
        (RawWebSocket.encode(9, fin=False, rsv=7, mask=None), b"\x79\x00"),
        (RawWebSocket.encode(2, b"x" * 126, mask=None)[:4], b"\x82\x7e\x00\x7e"),
        (RawWebSocket.encode(2, b"x" * 65536, mask=None)[:10], b"\x82\x7f" + struct.pack("!Q", 65536)),
    ],
)
def test_any_frame_can_be_sent_right_or_wrong(frame: bytes, expected: bytes) -> None:
    assert frame == expected


def test_nobody_there_is_an_error_at_once() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))

        async def main() -> None:
            with pytest.raises(ConnectionRefusedError):
                await Channel.open(unused.getsockname())

        asyncio.run(main())
