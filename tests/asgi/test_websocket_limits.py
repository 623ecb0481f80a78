"""Backpressure both ways: what waits is bounded, and control frames pass what waits."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from sojourn.config import Config, Timeouts, WebSocket
from sojourn.errors import ClientDisconnected
from sojourn.events import ApplicationFailed, DeadlineMissed
from tests.asgi.ws_harness import BINARY, CLOSE, PING, PONG, TEXT, Told, accept, on_both_loops, serving, until
from tests.wire.websocket_client import client_frame

MIB = 1 << 20
#: No loop reads more at once.
ONE_READ = 300_000


def held(handler: Any) -> int:
    """Bytes and messages that are held for the application."""
    return sum(map(len, handler._inbox)) + (handler._parser.buffered if handler._parser is not None else 0)


class Holds:
    """An application that reads nothing until it is let go."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.received: list[Any] = []
        self.end: Any = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return
        await accept(receive, send)
        await self.go.wait()
        while (message := await receive())["type"] == "websocket.receive":
            self.received.append(message.get("text") or message.get("bytes"))
        self.end = message


# --- in


@on_both_loops
async def test_a_flood_of_small_messages_costs_bounded_memory_and_arrives_whole_when_the_application_reads() -> None:
    app = Holds()
    count = 100_000
    async with serving(app) as served:
        client = await served.connect()
        for start in range(0, count, 1000):
            client.write(b"".join(client_frame(TEXT, str(n).encode()) for n in range(start, start + 1000)))
        connection = served.connection
        handler: Any = connection.handler
        await until(lambda: connection.reading_paused)
        for _ in range(20):  # the client goes on, but nothing more is taken
            await asyncio.sleep(0.001)
        assert len(handler._inbox) == 256
        assert held(handler) < ONE_READ
        assert connection.bytes_in < 2 * ONE_READ
        app.go.set()
        most = 0
        while len(app.received) < count:
            await asyncio.sleep(0)
            most = max(most, len(handler._inbox))
        assert most <= 256
        assert app.received == [str(number) for number in range(count)]
        await until(lambda: not connection.reading_paused)
        client.send("after")
        await until(lambda: len(app.received) == count + 1)


@on_both_loops
async def test_waiting_messages_are_bounded_in_bytes_too() -> None:
    app = Holds()
    async with serving(app) as served:
        client = await served.connect()
        payloads = [bytes([number]) * 200_000 for number in range(50)]
        for payload in payloads:
            client.send(payload)
        connection = served.connection
        handler: Any = connection.handler
        await until(lambda: connection.reading_paused)
        assert held(handler) < MIB + 200_000 + ONE_READ
        app.go.set()
        await until(lambda: len(app.received) == 50)
        assert app.received == payloads


@pytest.mark.parametrize("queue", [1, 2, 3])
@on_both_loops
async def test_a_queue_of_one_is_enough(queue: int) -> None:
    app = Holds()
    async with serving(app, Config(websocket=WebSocket(queue=queue))) as served:
        client = await served.connect()
        client.write(b"".join(client_frame(TEXT, str(number).encode()) for number in range(100)))
        await until(lambda: served.connection.reading_paused)
        app.go.set()
        await until(lambda: len(app.received) == 100)
        assert app.received == [str(number) for number in range(100)]


@on_both_loops
async def test_an_application_that_reads_a_flood_lets_others_have_their_turn() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return
        await accept(receive, send)
        if scope["path"] == "/flood":
            asyncio.get_running_loop().call_later(0.05, go.set)
            await go.wait()
            for _ in range(20_000):
                await receive()
                taken[0] += 1
        else:
            await receive()
            await send({"type": "websocket.send", "text": str(taken[0])})

    go, taken = asyncio.Event(), [0]
    async with serving(app) as served:
        flood = await served.connect("/flood")
        other = await served.connect("/other")
        flood.write(client_frame(TEXT, b"") * 20_000)
        await go.wait()
        other.send("my turn")
        assert int(await other.text()) < 20_000
        await until(lambda: taken[0] == 20_000)


@on_both_loops
async def test_a_close_frame_behind_messages_that_wait_is_told_after_them() -> None:
    app = Holds()
    async with serving(app) as served:
        client = await served.connect()
        client.write(client_frame(TEXT, b"x") * 1000)
        client.close_frame(4000, "done")
        await until(lambda: served.connection.reading_paused)
        app.go.set()
        assert await client.closed() == (4000, "done")
        await until(lambda: app.end)
        assert len(app.received) == 1000
        assert (app.end["code"], app.end["reason"]) == (4000, "done")


@on_both_loops
async def test_the_server_can_close_while_messages_wait_and_finds_the_answer_behind_them() -> None:
    app = Holds()
    async with serving(app) as served:
        client = await served.connect()
        client.write(client_frame(TEXT, b"x") * 100_000)
        await until(lambda: served.connection.reading_paused)
        served.server.stop()
        assert await client.closed() == (1012, "service restart")
        client.close_frame(1012)
        ended = await served.ended()
        assert (ended.ending.reason, ended.ws_received) == ("drain_goodbye", 1012)


@on_both_loops
async def test_an_idle_limit_does_not_count_while_messages_wait_for_the_application() -> None:
    app = Holds()
    async with serving(app, Config(websocket=WebSocket(idle=5.0, ping_interval=None))) as served:
        client = await served.connect()
        client.send("waiting")
        await until(lambda: served.connection.handler._inbox)
        await served.pass_time(30)
        app.go.set()
        await until(lambda: app.received)
        await served.pass_time(4)
        assert len(served.server.runtime.registry) == 1
        await served.pass_time(1.8)
        assert await client.closed() == (1001, "idle")


# --- out


class Floods:
    """An application that sends without end from some tasks at once, and notes how each ended."""

    def __init__(self, size: int, tasks: int, count: int | None = None) -> None:
        self.size, self.tasks, self.count = size, tasks, count
        self.sent = 0
        self.errors: list[BaseException] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return
        await accept(receive, send)

        async def one() -> None:
            try:
                while self.count is None or self.sent < self.count:
                    self.sent += 1
                    await send({"type": "websocket.send", "bytes": self.sent.to_bytes(4, "big") + bytes(self.size)})
            except OSError as error:
                self.errors.append(error)

        async with asyncio.TaskGroup() as group:
            for _ in range(self.tasks):
                group.create_task(one())


@on_both_loops
async def test_one_sender_waits_for_a_slow_client_and_holds_little() -> None:
    app = Floods(10_000, 1, 500)
    async with serving(app, send_buffer=8192) as served:
        client = await served.connect(receive_buffer=8192)
        connection = served.connection
        await until(lambda: connection.blocked)
        sent = app.sent
        for _ in range(20):
            await asyncio.sleep(0.001)
        assert app.sent == sent
        assert connection.buffered < 64 * 1024 + 2 * 10_100
        for number in range(1, 501):
            assert (await client.frame()).payload[:4] == number.to_bytes(4, "big")
        assert await client.closed() == (1000, "")


@on_both_loops
async def test_a_client_whose_queue_is_full_is_disconnected_with_1013() -> None:
    app = Floods(1000, 300)
    async with serving(app, send_buffer=8192) as served:
        client = await served.connect(receive_buffer=8192)
        await until(lambda: len(app.errors) == 300)
        assert all(isinstance(error, ClientDisconnected) for error in app.errors)
        assert {str(error) for error in app.errors} == {"the connection has ended: slow_consumer"}
        last = 0
        while (frame := await client.frame()).opcode == BINARY:
            last += 1
            assert frame.payload[:4] == last.to_bytes(4, "big"), "what was sent is whole and in order"
        assert frame[:2] == (CLOSE, b"\x03\xf5too slow")
        client.close_frame(1013)
        assert (await served.ended()).ending.reason == "slow_consumer"
        assert not served.seen(ApplicationFailed)


@on_both_loops
async def test_the_queue_is_bounded_in_bytes_too() -> None:
    app = Floods(100_000, 100)
    async with serving(app, send_buffer=8192) as served:
        await served.connect(receive_buffer=8192)
        connection = served.connection
        await until(lambda: len(app.errors) == 100)
        assert app.sent <= 101
        assert connection.buffered < 64 * 1024 + 2 * 100_100


@on_both_loops
async def test_with_the_policy_block_senders_wait_and_nothing_is_lost() -> None:
    app = Floods(1000, 600, 3000)
    async with serving(app, Config(websocket=WebSocket(slow_consumer="block", queue=4)), send_buffer=8192) as served:
        client = await served.connect(receive_buffer=8192)
        connection = served.connection
        await until(lambda: connection.blocked and len(connection.outbox.queue) == 600)
        assert app.sent < 1000
        numbers = [int.from_bytes((await client.frame()).payload[:4], "big") for _ in range(3000)]
        assert numbers == sorted(numbers)
        assert not app.errors


@on_both_loops
async def test_a_message_that_does_not_leave_within_the_write_deadline_ends_the_client_with_1013() -> None:
    app = Floods(100_000, 1)
    config = Config(websocket=WebSocket(write=4.0, slow_consumer="block"), timeouts=Timeouts(write_idle=None))
    async with serving(app, config, send_buffer=8192) as served:
        client = await served.connect(receive_buffer=8192)
        await until(lambda: served.connection.blocked and served.connection.outbox.queue)
        await served.pass_time(3.4)
        assert not app.errors
        await served.pass_time(2)
        await until(lambda: app.errors)
        assert str(app.errors[0]) == "the connection has ended: slow_consumer"
        missed = await served.next(DeadlineMissed)
        assert (missed.deadline, missed.seconds) == ("websocket.write", 4.0)
        while (frame := await client.frame()).opcode == BINARY:
            pass
        assert frame.payload[:2] == b"\x03\xf5"
        client.close_frame(1013)
        assert (await served.ended()).ending.reason == "slow_consumer"


@on_both_loops
async def test_a_client_that_takes_nothing_at_all_is_cut() -> None:
    app = Floods(100_000, 1)
    config = Config(websocket=WebSocket(write=None, ping_interval=None), timeouts=Timeouts(write_idle=10.0))
    async with serving(app, config, send_buffer=8192) as served:
        await served.connect(receive_buffer=8192)
        await until(lambda: served.connection.blocked)
        await served.pass_time(9.6)
        assert not app.errors
        await served.pass_time(4.2)  # its kernel may have taken something at first
        assert (await served.ended()).ending.reason == "send_timeout"
        await until(lambda: app.errors)


@on_both_loops
async def test_a_pong_passes_the_messages_that_are_queued() -> None:
    app = Floods(30_000, 20, 20)
    async with serving(app, Config(websocket=WebSocket(slow_consumer="block")), send_buffer=8192) as served:
        client = await served.connect(receive_buffer=8192)
        connection = served.connection
        await until(lambda: connection.blocked and len(connection.outbox.queue) > 10)
        queued = len(connection.outbox.queue)
        client.write(client_frame(PING, b"first") + client_frame(PING, b"latest"))
        await until(lambda: connection.handler._pong == b"latest")
        opcodes = [(await client.frame()).opcode for _ in range(21)]
        assert opcodes.count(PONG) == 1, "only the latest ping is owed a pong (RFC 6455 section 5.5.3)"
        assert len(opcodes) - opcodes.index(PONG) - 1 >= queued - 3


@on_both_loops
async def test_pings_of_a_client_that_reads_nothing_fill_no_memory() -> None:
    async with serving(Told(), send_buffer=8192) as served:
        client = await served.connect(receive_buffer=8192)
        connection = served.connection
        ping = client_frame(PING, b"p" * 125)
        for _ in range(100):
            client.write(ping * 300)
            await asyncio.sleep(0)
        await until(lambda: connection.bytes_in > 100 * 300 * len(ping))
        assert connection.buffered < 64 * 1024 + 128
        assert not connection.reading_paused


@on_both_loops
async def test_a_close_of_the_application_passes_the_messages_that_are_queued() -> None:
    errors: list[OSError] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return
        await accept(receive, send)

        async def one() -> None:
            try:
                await send({"type": "websocket.send", "bytes": bytes(30_000)})
            except OSError as error:
                errors.append(error)

        async with asyncio.TaskGroup() as group:
            for _ in range(20):
                group.create_task(one())
            await asyncio.sleep(0)
            await send({"type": "websocket.close", "code": 4000})

    async with serving(app, send_buffer=8192) as served:
        client = await served.connect(receive_buffer=8192)
        await until(lambda: errors)
        frames = 0
        while (await client.frame()).opcode == BINARY:
            frames += 1
        assert frames == 20 - len(errors)
        assert len(errors) > 10
