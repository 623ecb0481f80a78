"""Messages between supervisor and worker: any split, any order of ends, bounded, and handed over in the middle."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Coroutine
from typing import Any

import pytest
import uvloop

from sojourn.clock import SystemClock
from sojourn.server.workers import channel as module
from sojourn.server.workers.channel import Channel, ChannelError, Message, read_line

both_loops = pytest.mark.parametrize("loop", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])


class End:
    """One end of a channel, with what came."""

    def __init__(self, sock: socket.socket, **state: bytes) -> None:
        self.messages: list[Message] = []
        self.closed = 0
        self.channel = Channel(asyncio.get_running_loop(), sock, self.messages.append, self._gone, **state)

    def _gone(self) -> None:
        self.closed += 1

    async def until(self, count: int = 0, *, closed: bool = False) -> None:
        async with asyncio.timeout(10):
            while len(self.messages) < count or self.closed < closed:  # noqa: ASYNC110 - counted, not signalled
                await asyncio.sleep(0.001)


def run(loop: Any, main: Coroutine[Any, Any, None]) -> None:
    loop(main)


@both_loops
def test_messages_arrive_in_order_whatever_their_size(loop: Any) -> None:
    async def main() -> None:
        ours, theirs = map(End, socket.socketpair())
        sent = [{"type": "n", "number": number, "text": "x" * (number * 2000)} for number in range(100)]
        for message in sent:
            ours.channel.send(message)
        theirs.channel.send({"type": "back"})
        await theirs.until(100)
        await ours.until(1)
        assert theirs.messages == sent
        assert ours.messages == [{"type": "back"}]
        ours.channel.close()
        await theirs.until(closed=True)
        assert (ours.closed, theirs.closed) == (0, 1)
        theirs.channel.send({"type": "nobody reads it"})

    run(loop, main())


@both_loops
def test_bytes_that_come_one_by_one_are_messages(loop: Any) -> None:
    async def main() -> None:
        ours, raw = socket.socketpair()
        end = End(ours)
        for byte in b'{"a":1}\n{"b":"\\n"}\n':
            raw.sendall(bytes([byte]))
            await asyncio.sleep(0)
        await end.until(2)
        assert end.messages == [{"a": 1}, {"b": "\n"}]
        raw.close()
        await end.until(closed=True)

    run(loop, main())


@pytest.mark.parametrize("line", [b"no json\n", b"[1]\n", b"1\n", b"\xff\n", b"\n"])
def test_what_is_no_message_ends_the_channel(line: bytes) -> None:
    async def main() -> None:
        ours, raw = socket.socketpair()
        end = End(ours)
        raw.sendall(b'{"a":1}\n' + line + b'{"b":1}\n')
        await end.until(closed=True)
        assert end.messages == [{"a": 1}]
        assert raw.recv(10) == b""
        raw.close()

    asyncio.run(main())


def test_a_line_without_an_end_is_not_read_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LINE", 1000)

    async def main() -> None:
        ours, raw = socket.socketpair()
        end = End(ours)
        raw.sendall(b"x" * 1001)
        await end.until(closed=True)
        raw.close()

    asyncio.run(main())


def test_who_does_not_read_is_not_waited_for_and_does_not_fill_the_memory() -> None:
    async def main() -> None:
        ours, raw = socket.socketpair()
        end = End(ours)
        big = {"text": "x" * 100_000}
        for _ in range(1000):
            end.channel.send(big, needed=False)
        assert len(end.channel.unsent) < 1_000_000
        for _ in range(1000):
            end.channel.send(big)
        assert len(end.channel.unsent) < 20_000_000
        assert end.closed == 1
        assert not end.channel.flush(SystemClock(), 0.0) or not end.channel.unsent
        raw.close()

    asyncio.run(main())


def test_what_arrived_before_the_end_can_still_be_read() -> None:
    async def main() -> None:
        ours, raw = socket.socketpair()
        end = End(ours)
        raw.sendall(b'{"a":1}\n{"b":1}\n')
        raw.close()
        end.channel.drain()
        assert end.messages == [{"a": 1}, {"b": 1}]
        end.channel.close()

    asyncio.run(main())


def test_everything_is_sent_before_a_process_ends() -> None:
    async def main() -> None:
        ours, raw = socket.socketpair()
        end = End(ours)
        end.channel.send({"text": "x" * 500_000})
        assert not end.channel.flush(SystemClock(), 0.05)
        reading = asyncio.get_running_loop().run_in_executor(None, _read_all, raw)
        assert end.channel.flush(SystemClock(), 10.0)
        end.channel.close()
        assert len(await reading) > 500_000
        raw.close()

    asyncio.run(main())


def _read_all(sock: socket.socket) -> bytes:
    return b"".join(iter(lambda: sock.recv(65536), b""))


def test_a_channel_is_handed_over_in_the_middle_of_a_message() -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair()
        copy = ours.dup()
        first, peer = End(ours), End(theirs)
        theirs.send(b'{"a":')
        first.channel.send({"text": "x" * 1_000_000})
        first.channel.drain()
        unread, unsent = bytes(first.channel.unread), bytes(first.channel.unsent)
        first.channel.close()
        assert unread == b'{"a":'
        assert unsent
        second = End(copy, unread=unread, unsent=unsent)
        theirs.send(b"1}\n")
        await second.until(1)
        await peer.until(1)
        assert second.messages == [{"a": 1}]
        assert len(peer.messages[0]["text"]) == 1_000_000
        ours, theirs = socket.socketpair()
        third = End(ours, unread=b'{"whole":1}\n')
        await third.until(1)
        theirs.close()
        for end in (second, peer, third):
            end.channel.close()

    asyncio.run(main())


def test_the_first_message_is_read_without_a_loop() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b'{"a":1}\n{"b":')
        assert read_line(ours, 5.0) == ({"a": 1}, b'{"b":')
        with pytest.raises(ChannelError, match="said nothing"):
            read_line(ours, 0.01)
        theirs.sendall(b"nonsense\n")
        with pytest.raises(ChannelError, match="no message"):
            read_line(ours, 5.0)
        theirs.close()
        with pytest.raises(ChannelError, match="gone"):
            read_line(ours, 5.0)
