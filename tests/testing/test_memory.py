"""The memory transport keeps the promises of asyncio's transports, without a socket and without time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from sojourn.testing import Ended, MemoryTransport


class Recorder(asyncio.Protocol):
    """Writes down what happens to it."""

    def __init__(self, *, keep_open: bool = False, fails: bool = False) -> None:
        self.log: list[object] = []
        self.keep_open = keep_open
        self.fails = fails

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.log.append("made")

    def data_received(self, data: bytes) -> None:
        self.log.append(data)
        if self.fails:
            raise ValueError("a bug")

    def eof_received(self) -> bool:
        self.log.append("eof")
        return self.keep_open

    def pause_writing(self) -> None:
        self.log.append("pause")

    def resume_writing(self) -> None:
        self.log.append("resume")

    def connection_lost(self, error: Exception | None) -> None:
        self.log.append(("lost", type(error)))


Scene = Callable[[MemoryTransport, Recorder, Callable[[], Awaitable[None]]], Awaitable[None]]


def play(scene: Scene, *, keep_open: bool = False, fails: bool = False) -> list[object]:
    """Run a scene and return what the protocol saw."""

    async def turns() -> None:
        for _ in range(10):
            await asyncio.sleep(0)

    async def main() -> list[object]:
        recorder = Recorder(keep_open=keep_open, fails=fails)
        transport = MemoryTransport(asyncio.get_running_loop(), recorder)
        transport.open()
        await scene(transport, recorder, turns)
        await turns()
        return recorder.log

    return asyncio.run(main())


def test_each_send_is_one_read_in_order() -> None:
    async def scene(transport: MemoryTransport, recorder: Recorder, turns: Callable[[], Awaitable[None]]) -> None:
        transport.peer.send(b"a")
        transport.peer.send(b"b")
        transport.peer.send_eof()
        assert recorder.log == ["made"]  # nothing arrives before the loop turns

    assert play(scene, keep_open=True) == ["made", b"a", b"b", "eof"]


def test_a_protocol_that_does_not_keep_a_half_closed_connection_closes_it() -> None:
    async def scene(transport: MemoryTransport, recorder: Recorder, turns: Callable[[], Awaitable[None]]) -> None:
        transport.peer.send_eof()
        await turns()
        assert transport.is_closing()
        assert transport.peer.ended is Ended.FIN

    assert play(scene) == ["made", "eof", ("lost", type(None))]


def test_paused_reading_holds_bytes_back_and_loses_none() -> None:
    async def scene(transport: MemoryTransport, recorder: Recorder, turns: Callable[[], Awaitable[None]]) -> None:
        transport.pause_reading()
        transport.peer.send(b"a")
        transport.peer.send(b"b")
        await turns()
        assert recorder.log == ["made"]
        assert not transport.is_reading()
        transport.resume_reading()

    assert play(scene) == ["made", b"a", b"b"]


def test_the_watermarks_are_those_that_were_set() -> None:
    async def scene(transport: MemoryTransport, recorder: Recorder, turns: Callable[[], Awaitable[None]]) -> None:
        transport.set_write_buffer_limits(high=10)
        assert transport.get_write_buffer_limits() == (2, 10)
        transport.peer.stop_taking()
        transport.write(b"x" * 10)
        assert recorder.log == ["made"]
        transport.write(b"x")
        assert recorder.log == ["made", "pause"]
        assert transport.get_write_buffer_size() == 11
        transport.peer.take(8)
        await turns()
        assert recorder.log == ["made", "pause"]
        transport.peer.take(1)
        await turns()
        assert recorder.log == ["made", "pause", "resume"]
        transport.peer.take_all()
        await turns()
        assert bytes(transport.peer.received) == b"x" * 11

    play(scene)


def test_close_lets_leave_what_was_written() -> None:
    async def scene(transport: MemoryTransport, recorder: Recorder, turns: Callable[[], Awaitable[None]]) -> None:
        transport.peer.stop_taking()
        transport.write(b"last words")
        transport.close()
        await turns()
        assert transport.peer.ended is Ended.OPEN
        transport.peer.take_all()
        await turns()
        assert transport.peer.ended is Ended.FIN
        assert transport.peer.received == b"last words"

    assert play(scene) == ["made", ("lost", type(None))]


def test_abort_drops_what_was_written_and_resets() -> None:
    async def scene(transport: MemoryTransport, recorder: Recorder, turns: Callable[[], Awaitable[None]]) -> None:
        transport.peer.stop_taking()
        transport.write(b"last words")
        transport.abort()
        assert transport.peer.ended is Ended.RESET
        transport.write(b"more")  # ignored, as asyncio does
        transport.abort()

    assert play(scene) == ["made", ("lost", type(None))]


def test_write_eof_comes_after_the_last_byte_and_reading_goes_on() -> None:
    async def scene(transport: MemoryTransport, recorder: Recorder, turns: Callable[[], Awaitable[None]]) -> None:
        transport.peer.stop_taking()
        transport.write(b"answer")
        transport.write_eof()
        assert transport.peer.ended is Ended.OPEN
        transport.peer.take_all()
        await turns()
        assert transport.peer.ended is Ended.FIN
        transport.peer.send(b"still here")
        with pytest.raises(RuntimeError, match="write_eof"):
            transport.write(b"more")

    assert play(scene) == ["made", b"still here"]


def test_a_reset_is_noticed_by_who_reads() -> None:
    async def scene(transport: MemoryTransport, recorder: Recorder, turns: Callable[[], Awaitable[None]]) -> None:
        transport.peer.reset()

    assert play(scene) == ["made", ("lost", ConnectionResetError)]


def test_a_reset_is_not_noticed_by_who_neither_reads_nor_writes() -> None:
    async def scene(transport: MemoryTransport, recorder: Recorder, turns: Callable[[], Awaitable[None]]) -> None:
        transport.pause_reading()
        transport.peer.reset()
        await turns()
        assert recorder.log == ["made"]
        transport.resume_reading()

    assert play(scene) == ["made", ("lost", ConnectionResetError)]


def test_writing_to_a_peer_that_has_closed_is_answered_with_a_reset() -> None:
    async def scene(transport: MemoryTransport, recorder: Recorder, turns: Callable[[], Awaitable[None]]) -> None:
        transport.peer.close()
        await turns()
        transport.write(b"too late")

    assert play(scene, keep_open=True) == ["made", "eof", ("lost", ConnectionResetError)]


def test_a_protocol_that_raises_loses_its_connection_and_the_loop_is_told() -> None:
    reported: list[BaseException] = []

    async def scene(transport: MemoryTransport, recorder: Recorder, turns: Callable[[], Awaitable[None]]) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context["exception"]))
        transport.peer.send(b"a")

    assert play(scene, fails=True) == ["made", b"a", ("lost", ValueError)]
    assert [str(error) for error in reported] == ["a bug"]


def test_a_new_protocol_gets_what_comes_from_then_on() -> None:
    second = Recorder()

    async def scene(transport: MemoryTransport, recorder: Recorder, turns: Callable[[], Awaitable[None]]) -> None:
        transport.peer.send(b"a")
        await turns()
        transport.set_protocol(second)
        assert transport.get_protocol() is second
        transport.peer.send(b"b")

    assert play(scene) == ["made", b"a"]
    assert second.log == [b"b"]
