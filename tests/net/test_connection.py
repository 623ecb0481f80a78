"""A connection: registered before its first byte, ended once, by one cause, and never without a deadline."""

from __future__ import annotations

import ssl
from contextvars import ContextVar

import pytest

from sojourn.clock import NEVER
from sojourn.config import Config, Limits, Timeouts
from sojourn.ending import Ending, How, Phase
from sojourn.errors import ClientDisconnected
from sojourn.events import ConnectionEnded, ConnectionGrewOld, ConnectionOpened, DeadlineMissed
from sojourn.testing import Ended, MemoryTransport
from tests.net.scene import Recorder, Scene, play

DONE = Ending("completed", Phase.CLOSING, How.LOCAL_FIN)
GONE = Ending("client_reset", Phase.RESPONSE, How.RST)
WHO: ContextVar[str] = ContextVar("WHO", default="nobody")
#: A peer may take nothing for 3 s, and must take 100 B/s after 2 s.
STRICT = Config(timeouts=Timeouts(write_idle=3.0), limits=Limits(write_min_rate=100, rate_grace=2.0))
IDLE_ONLY = Config(timeouts=Timeouts(write_idle=3.0), limits=Limits(write_min_rate=None))


# --- the beginning


def test_a_connection_is_registered_with_a_deadline_before_its_first_byte() -> None:
    async def scene(stage: Scene) -> None:
        connection = stage.accept("header", 10.0)
        assert stage.runtime.registry.get(connection.id) is connection
        assert connection.due.earliest() == (stage.runtime.ticker.now + 10.0, "header")
        assert connection.looked_at < NEVER
        assert [type(event) for event in stage.events] == [ConnectionOpened]

    play(scene)


@pytest.mark.parametrize(
    ("slot", "reason"),
    [
        ("header", "request_headers_timeout"),
        ("tls", "tls_timeout"),
        ("proxy", "proxy_header_timeout"),
        ("accept", "connection_limit"),
    ],
)
@pytest.mark.parametrize("handler", [True, False], ids=["handler", "no handler"])
def test_a_deadline_before_the_transport_ends_it_for_its_own_reason(slot: str, reason: str, handler: bool) -> None:
    abandoned: list[bool] = []

    async def scene(stage: Scene) -> None:
        connection = stage.accept(slot, 2.0, handler=handler)
        connection.abandon = lambda: abandoned.append(True)
        await stage.advance(1.9)
        assert connection.ending is None
        await stage.advance(0.3)
        assert stage.runtime.registry.get(connection.id) is None

    stage = play(scene)
    assert stage.end.ending[:3:2] == (reason, How.TIMEOUT)
    assert abandoned == [True]


def test_a_transport_that_comes_after_the_end_is_aborted() -> None:
    async def scene(stage: Scene) -> None:
        connection = stage.accept()
        handler = connection.handler
        assert isinstance(handler, Recorder)
        connection.end(DONE)
        assert stage.runtime.registry.get(connection.id) is None
        transport = MemoryTransport(stage.loop, handler)
        transport.open()
        await stage.turns()
        assert transport.peer.ended is Ended.RESET
        assert handler.log == [("ending", "completed"), ("ended", "completed")]

    assert len([event for event in play(scene).events if type(event) is ConnectionEnded]) == 1


@pytest.mark.parametrize(
    ("peer", "name"),
    [(("192.0.2.7", 80), "192.0.2.7:80"), (("2001:db8::7", 80), "[2001:db8::7]:80"), (None, "unix")],
)
def test_the_peer_has_a_name(peer: tuple[str, int] | None, name: str) -> None:
    async def scene(stage: Scene) -> None:
        connection = stage.accept()
        connection.peer = peer
        assert connection.peer_name == name

    play(scene)


def test_the_lifetime_is_jittered_by_a_tenth() -> None:
    async def scene(stage: Scene) -> None:
        lifetimes = {stage.accept().due.lifetime - stage.runtime.ticker.now for _ in range(50)}
        assert 90.0 <= min(lifetimes) < max(lifetimes) <= 110.0

    play(scene, Config(timeouts=Timeouts(lifetime=100.0)))


def test_a_long_connection_is_told_once_and_its_end_says_so() -> None:
    async def scene(stage: Scene) -> None:
        connection = stage.accept("header", None)
        await stage.advance(200.0)
        assert connection.ending is None

    stage = play(scene)
    (old,) = (event for event in stage.events if isinstance(event, ConnectionGrewOld))
    assert 60.0 <= old.age < 60.3
    assert stage.end.long


# --- the end


def test_the_first_cause_stays_the_cause() -> None:
    async def scene(stage: Scene) -> None:
        connection, transport, handler = stage.connect()
        connection.end(DONE)
        connection.end(GONE)
        connection.end(GONE, abort=True)
        transport.peer.reset()
        await stage.turns()
        assert handler.log == [("opened",), ("ending", "completed"), ("ended", "completed")]

    assert play(scene).end.ending == DONE


def test_what_was_written_leaves_before_a_polite_end() -> None:
    async def scene(stage: Scene) -> None:
        connection, transport, _ = stage.connect()
        transport.peer.stop_taking()
        connection.write(b"x" * 1000)
        connection.end(DONE)
        await stage.advance(0.5)
        assert transport.peer.ended is Ended.OPEN
        transport.peer.take_all()
        await stage.turns()
        assert len(transport.peer.received) == 1000
        assert transport.peer.ended is Ended.FIN

    end = play(scene).end
    assert (end.ending, end.bytes_out, end.unsent) == (DONE, 1000, 0)


def test_an_abort_drops_what_was_written_and_resets() -> None:
    async def scene(stage: Scene) -> None:
        connection, transport, _ = stage.connect()
        transport.peer.stop_taking()
        transport.peer.take(300)
        connection.write(b"x" * 1000)
        connection.end(GONE, abort=True)
        await stage.turns()
        assert transport.peer.ended is Ended.RESET

    end = play(scene).end
    assert (end.ending, end.bytes_out, end.unsent) == (GONE, 300, 700)


def test_a_later_abort_hurries_a_polite_end() -> None:
    async def scene(stage: Scene) -> None:
        connection, transport, _ = stage.connect()
        transport.peer.stop_taking()
        connection.write(b"x" * 1000)
        connection.end(DONE)
        connection.end(GONE, abort=True)
        await stage.turns()
        assert transport.peer.ended is Ended.RESET

    end = play(scene).end
    assert (end.ending, end.unsent) == (DONE, 1000)


def test_a_lingering_end_reads_on_after_its_fin_and_then_closes() -> None:
    async def scene(stage: Scene) -> None:
        connection, transport, handler = stage.connect()
        connection.pause_reading()
        transport.peer.send(b"too much")
        connection.write(b"413")
        connection.end(DONE, linger=True)
        await stage.advance(0.5)
        assert (bytes(transport.peer.received), transport.peer.ended) == (b"413", Ended.FIN)
        assert ("data", b"too much") in handler.log
        assert stage.runtime.registry.get(connection.id) is connection
        await stage.advance(1.0)
        assert stage.runtime.registry.get(connection.id) is None

    assert play(scene).end.ending == DONE


def test_lingering_is_over_when_the_peer_closes() -> None:
    async def scene(stage: Scene) -> None:
        connection, transport, _ = stage.connect()
        connection.end(DONE, linger=True)
        await stage.turns()
        transport.peer.close()
        await stage.turns()
        assert stage.runtime.registry.get(connection.id) is None

    play(scene)


def test_a_socket_that_does_not_close_is_tried_again_and_again() -> None:
    async def scene(stage: Scene) -> None:
        connection, transport, _ = stage.connect()
        tries: list[float] = []
        transport.close = lambda: tries.append(0.0)  # type: ignore[method-assign]
        transport.abort = lambda: tries.append(stage.runtime.ticker.now)  # type: ignore[method-assign]
        connection.end(DONE)
        await stage.advance(5.0)
        assert len(tries) >= 4
        assert connection.due.close < NEVER
        connection.lost(None)

    play(scene)


@pytest.mark.parametrize(
    ("error", "phase", "bytes_in", "reason", "how"),
    [
        (None, Phase.HANDLER, 10, "connected_no_data", How.FIN),
        (ConnectionResetError(104, "reset"), Phase.RESPONSE, 10, "client_reset", How.RST),
        (BrokenPipeError(32, "pipe"), Phase.RESPONSE, 10, "client_reset", How.RST),
        (ConnectionResetError(104, "reset"), Phase.IDLE, 10, "connected_no_data", How.RST),
        (ConnectionResetError(104, "reset"), Phase.HEAD, 0, "connected_no_data", How.RST),
        (ssl.SSLError("eof"), Phase.RESPONSE, 10, "client_reset", How.TLS_EOF),
        (TimeoutError(110, "timed out"), Phase.RESPONSE, 10, "tcp_dead", How.TIMEOUT),
        (OSError(113, "no route"), Phase.RESPONSE, 10, "tcp_dead", How.TIMEOUT),
        (ValueError("a bug"), Phase.RESPONSE, 10, "internal_error", How.LOCAL_ABORT),
    ],
)
def test_a_lost_socket_has_a_cause(error: Exception | None, phase: Phase, bytes_in: int, reason: str, how: How) -> None:
    async def scene(stage: Scene) -> None:
        connection, _, _ = stage.connect()
        connection.phase, connection.bytes_in = phase, bytes_in
        connection.lost(error)

    ending = play(scene).end.ending
    assert (ending.reason, ending.how) == (reason, how)


@pytest.mark.parametrize("place", ["ending", "ended"])
@pytest.mark.parametrize("abort", [True, False], ids=["abort", "close"])
def test_a_handler_that_raises_keeps_no_connection_open(place: str, abort: bool) -> None:
    async def scene(stage: Scene) -> None:
        connection, transport, handler = stage.connect()
        handler.fails_in.add(place)
        try:
            connection.end(DONE, abort=abort)
        except ValueError:
            assert place == "ending"
        await stage.turns()
        assert stage.runtime.registry.get(connection.id) is None
        assert transport.peer.ended is (Ended.RESET if abort else Ended.FIN)

    stage = play(scene)
    assert stage.end.ending == DONE


# --- deadlines


def test_a_deadline_that_is_set_later_again_and_again_ends_nobody() -> None:
    async def scene(stage: Scene) -> None:
        connection, _, handler = stage.connect()
        connection.arm("header", 1.0)
        for _ in range(20):
            await stage.advance(0.9)
            connection.due.header = stage.runtime.ticker.now + 1.0
        assert ("deadline", "header") not in handler.log
        await stage.advance(1.3)
        assert ("deadline", "header") in handler.log

    play(scene)


def test_a_handler_that_arms_others_while_its_deadline_is_due_stays_once_in_the_wheel() -> None:
    async def scene(stage: Scene) -> None:
        connection, _, handler = stage.connect()

        def later(slot: str, now: float) -> None:
            setattr(connection.due, slot, NEVER)
            connection.arm("keep_alive", 75.0)
            connection.arm("stream", 0.5)

        handler.on_deadline = later
        connection.arm("header", 1.0)
        await stage.advance(2.0)  # the scene counts the wheel's members at each tick
        assert handler.log == [("opened",), ("deadline", "header"), ("deadline", "stream")]

    play(scene)


def test_a_deadline_that_stays_due_is_a_bug_and_ends_the_connection() -> None:
    async def scene(stage: Scene) -> None:
        connection, _, handler = stage.connect()
        handler.on_deadline = lambda slot, now: None
        connection.arm("header", 1.0)
        await stage.advance(1.5)

    stage = play(scene)
    assert stage.end.ending.reason == "internal_error"
    assert [type(error) for error in stage.reported] == [RuntimeError]


def test_a_handler_that_raises_at_a_deadline_takes_nobody_elses_deadline_away() -> None:
    async def scene(stage: Scene) -> None:
        broken, _, handler = stage.connect()
        handler.fails_in.add("deadline")
        sound, _, _ = stage.connect()
        for connection in (broken, sound):
            connection.arm("header", 1.0)
        await stage.advance(1.5)
        assert [event.ending.reason for event in stage.events if isinstance(event, ConnectionEnded)] == [
            "internal_error",
            "keep_alive_idle",
        ]

    assert [str(error) for error in play(scene).reported] == ["a bug in deadline"]


def test_a_missed_deadline_is_told_once_with_its_name_and_length() -> None:
    async def scene(stage: Scene) -> None:
        connection, _, _ = stage.connect()
        ending = Ending("request_headers_timeout", Phase.HEAD, How.TIMEOUT, "header")
        connection.missed(ending)
        connection.end(ending)

    stage = play(scene)
    assert [event[1:3] for event in stage.events if isinstance(event, DeadlineMissed)] == [("header", 10.0)]


@pytest.mark.parametrize(
    ("name", "length"),
    [
        ("keep_alive", 75.0),
        ("write_min_rate", 5.0),
        ("queue_wait", 1.0),
        ("websocket.idle", 0.0),
        ("websocket.open", 10.0),
    ],
)
def test_the_length_of_a_deadline_is_found_by_its_key(name: str, length: float) -> None:
    async def scene(stage: Scene) -> None:
        _, _, handler = stage.connect()
        assert handler.length_of(name) == length

    play(scene)


# --- a peer that is behind


async def fill(stage: Scene, size: int = 100_000) -> MemoryTransport:
    """A peer that takes nothing, and bytes that wait for it."""
    connection, transport, _ = stage.connect()
    transport.peer.stop_taking()
    connection.write(b"x" * size)
    return transport


def test_a_peer_that_takes_nothing_is_cut_after_write_idle() -> None:
    async def scene(stage: Scene) -> None:
        transport = await fill(stage)
        await stage.advance(2.8)
        assert transport.peer.ended is Ended.OPEN
        await stage.advance(0.4)
        assert transport.peer.ended is Ended.RESET

    stage = play(scene, IDLE_ONLY)
    assert stage.end.ending[:1] + stage.end.ending[2:] == ("send_timeout", How.TIMEOUT, "write_idle")
    assert stage.end.unsent == 100_000


@pytest.mark.parametrize(("a_second", "ends"), [(50, True), (95, True), (105, False), (1000, False)])
def test_a_peer_is_cut_when_it_is_slower_than_the_rate_and_only_then(a_second: int, ends: bool) -> None:
    async def scene(stage: Scene) -> None:
        transport = await fill(stage)
        for _ in range(60):
            await stage.advance(1.0)
            transport.peer.take(a_second)
        assert (transport.peer.ended is Ended.RESET) is ends

    stage = play(scene, STRICT)
    if ends:
        assert stage.end.ending.reason == "min_response_data_rate"
        assert stage.end.ending.detail == "write_min_rate"


def test_the_handler_is_told_about_every_second_while_its_peer_is_behind() -> None:
    async def scene(stage: Scene) -> None:
        connection, transport, handler = stage.connect()
        transport.peer.stop_taking()
        connection.write(b"x" * 100_000)
        await stage.advance(2.5)
        assert [entry for entry in handler.log if entry[0] == "behind"] == [("behind", 1), ("behind", 2)]
        transport.peer.take_all()
        await stage.advance(5.0)
        assert len([entry for entry in handler.log if entry[0] == "behind"]) == 2
        assert connection.outbox is None
        assert connection.due.write == NEVER

    play(scene, IDLE_ONLY)


def test_bytes_below_the_watermark_that_nobody_takes_are_noticed_within_a_lap() -> None:
    async def scene(stage: Scene) -> None:
        transport = await fill(stage, 60_000)
        await stage.advance(2.8)
        assert transport.peer.ended is Ended.OPEN
        await stage.advance(3.5)  # a lap is as long as write_idle
        assert transport.peer.ended is Ended.RESET

    assert play(scene, IDLE_ONLY).end.ending.reason == "send_timeout"


def test_bytes_below_the_watermark_that_are_taken_in_time_end_nothing() -> None:
    async def scene(stage: Scene) -> None:
        connection, transport, _ = stage.connect()
        for _ in range(5):
            transport.peer.stop_taking()
            connection.write(b"x" * 60_000)
            await stage.advance(2.5)
            transport.peer.take_all()
            await stage.advance(2.5)
            assert connection.outbox is None
        assert connection.ending is None

    play(scene, IDLE_ONLY)


def test_the_rest_of_an_answer_that_nobody_takes_is_the_real_cause_of_the_end() -> None:
    async def scene(stage: Scene) -> None:
        transport = await fill(stage, 60_000)
        (connection,) = stage.runtime.registry
        connection.end(DONE)
        await stage.advance(1.0 + 2.5)  # close, and most of write_idle
        assert transport.peer.ended is Ended.OPEN
        await stage.advance(1.0)
        assert transport.peer.ended is Ended.RESET

    stage = play(scene, IDLE_ONLY)
    assert (stage.end.ending.reason, stage.end.unsent) == ("send_timeout", 60_000)
    assert [event.deadline for event in stage.events if isinstance(event, DeadlineMissed)] == ["write_idle"]


def test_the_rest_of_an_answer_that_nobody_takes_does_not_hide_a_worse_cause() -> None:
    async def scene(stage: Scene) -> None:
        await fill(stage, 60_000)
        (connection,) = stage.runtime.registry
        connection.end(GONE)
        await stage.advance(6.0)

    assert play(scene, IDLE_ONLY).end.ending == GONE


def test_the_rest_of_an_answer_may_take_its_time_while_the_peer_takes_it() -> None:
    async def scene(stage: Scene) -> None:
        transport = await fill(stage, 60_000)
        (connection,) = stage.runtime.registry
        connection.end(DONE)
        for _ in range(30):
            await stage.advance(1.0)
            transport.peer.take(2000)
        await stage.advance(0.5)
        assert len(transport.peer.received) == 60_000
        assert transport.peer.ended is Ended.FIN

    end = play(scene, STRICT).end
    assert (end.ending, end.unsent) == (DONE, 0)


def test_a_peer_that_was_stuck_before_the_end_does_not_get_the_time_twice() -> None:
    async def scene(stage: Scene) -> None:
        await fill(stage)
        (connection,) = stage.runtime.registry
        await stage.advance(2.5)
        connection.end(DONE)
        await stage.advance(1.3)
        assert len(stage.runtime.registry) == 0

    assert play(scene, IDLE_ONLY).end.ending.reason == "send_timeout"


def test_limits_that_are_taken_away_do_not_cut() -> None:
    async def scene(stage: Scene) -> None:
        transport = await fill(stage)
        await stage.advance(300.0)
        assert transport.peer.ended is Ended.OPEN

    play(scene, Config(timeouts=Timeouts(write_idle=None), limits=Limits(write_min_rate=None)))


def test_senders_wait_while_their_peer_is_behind_and_go_on_when_it_is_not() -> None:
    async def scene(stage: Scene) -> None:
        connection, transport, _ = stage.connect()
        transport.peer.stop_taking()
        await connection.writable()  # nothing waits: at once
        connection.write(b"x" * 100_000)
        waiting = [stage.loop.create_task(connection.writable()) for _ in range(3)]
        waiting[2].cancel()
        await stage.turns()
        assert [task.done() for task in waiting] == [False, False, True]
        transport.peer.take_all()
        await stage.turns()
        assert [task.done() and not task.cancelled() for task in waiting] == [True, True, False]

    play(scene, IDLE_ONLY)


@pytest.mark.parametrize("how", ["end", "abort", "reset"])
def test_senders_that_wait_learn_of_the_end(how: str) -> None:
    async def scene(stage: Scene) -> None:
        connection, transport, _ = stage.connect()
        transport.peer.stop_taking()
        connection.write(b"x" * 100_000)
        connection.bytes_in, connection.phase = 1, Phase.RESPONSE
        waiting = stage.loop.create_task(connection.writable())
        await stage.turns()
        if how == "reset":
            transport.peer.reset()
        else:
            connection.end(GONE, abort=how == "abort")
        await stage.turns()
        with pytest.raises(ClientDisconnected, match="client_reset"):
            waiting.result()
        with pytest.raises(ClientDisconnected):
            await connection.writable()

    play(scene, IDLE_ONLY)


def test_messages_that_were_still_queued_count_as_unsent() -> None:
    async def scene(stage: Scene) -> None:
        await fill(stage)
        (connection,) = stage.runtime.registry
        assert connection.outbox is not None
        queued = connection.outbox.enqueue(stage.loop, b"y" * 500, stage.runtime.ticker.now)
        assert connection.buffered == 100_500
        connection.end(GONE, abort=True)
        assert isinstance(queued.exception(), ClientDisconnected)

    end = play(scene, IDLE_ONLY).end
    assert (end.unsent, end.bytes_out) == (100_500, 0)


def test_queued_messages_leave_before_who_waits_for_room_goes_on() -> None:
    async def scene(stage: Scene) -> None:
        transport = await fill(stage)
        (connection,) = stage.runtime.registry
        assert connection.outbox is not None
        messages = [bytes([letter]) * 40_000 for letter in b"abc"]
        queued = [connection.outbox.enqueue(stage.loop, message, 0.0) for message in messages]
        waiting = stage.loop.create_task(connection.writable())
        await stage.turns()
        transport.peer.take(90_000)
        await stage.turns()
        assert [future.done() for future in queued] == [True, True, False]
        assert not waiting.done()
        transport.peer.take_all()
        await stage.turns()
        assert waiting.done()
        assert bytes(transport.peer.received) == b"x" * 100_000 + b"".join(messages)

    play(scene, IDLE_ONLY)


# --- reading


def test_reading_goes_on_in_a_context_that_is_nobodys() -> None:
    async def scene(stage: Scene) -> None:
        connection, transport, _ = stage.connect()
        seen: list[str] = []
        resume = transport.resume_reading
        transport.resume_reading = lambda: (seen.append(WHO.get()), resume())[1]  # type: ignore[method-assign]
        WHO.set("alice")
        connection.pause_reading()
        connection.pause_reading()
        assert not transport.is_reading()
        connection.resume_reading()
        connection.resume_reading()
        assert transport.is_reading()
        assert seen == ["nobody"]

    play(scene)


def test_the_handler_can_be_swapped_and_the_connection_stays() -> None:
    async def scene(stage: Scene) -> None:
        connection, transport, first = stage.connect()
        second = Recorder(connection)
        connection.swap(second)
        transport.peer.send(b"hello")
        await stage.turns()
        assert (first.log, second.log) == ([("opened",)], [("data", b"hello")])
        assert stage.runtime.registry.get(connection.id) is connection

    assert play(scene).end.bytes_in == 5
