"""The life of a WebSocket as its application sees it: scope, messages, order, cancellation, the books."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest

from sojourn import current_request
from sojourn.config import Config, WebSocket
from sojourn.ending import Phase
from sojourn.errors import ApplicationError
from sojourn.events import ApplicationFailed, DeadlineMissed, RequestEnded, WebSocketOpened
from tests.asgi.ws_harness import BINARY, PING, PONG, TEXT, Told, accept, echo, on_both_loops, serving, until
from tests.wire.websocket_client import client_frame

MIB = 1 << 20


@on_both_loops
async def test_the_scope_is_that_of_a_websocket() -> None:
    scopes = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            scopes.append(dict(scope))
            await echo(scope, receive, send)

    async with serving(app) as served:
        client = await served.connect("/chat/%C3%A9?room=1", {"Sec-WebSocket-Protocol": "a, b", "X-One": "1"})
        peer = client.writer.get_extra_info("sockname")
        (scope,) = scopes
        extensions = scope.pop("extensions")
        headers = scope.pop("headers")
        assert scope == {
            "type": "websocket",
            "asgi": {"version": "3.0", "spec_version": "2.5"},
            "http_version": "1.1",
            "server": served.address,
            "client": peer,
            "scheme": "ws",
            "root_path": "",
            "path": "/chat/é",
            "raw_path": b"/chat/%C3%A9",
            "query_string": b"room=1",
            "subprotocols": ["a", "b"],
            "state": {},
        }
        assert (b"x-one", b"1") in headers
        assert set(extensions) == {"websocket.http.response", "sojourn"}


@on_both_loops
async def test_messages_come_back_in_order_and_as_what_they_were() -> None:
    async with serving(echo) as served:
        client = await served.connect()
        payloads = [
            "",
            "a",
            "é€😀",
            "x" * 125,
            "y" * 126,
            "z" * 65535,
            "w" * 65536,
            b"",
            b"\x00\xff",
            os.urandom(70_000),
        ]
        for payload in payloads:
            client.send(payload)
        for payload in payloads:
            frame = await client.frame()
            assert frame.fin
            if isinstance(payload, str):
                assert (frame.opcode, frame.payload.decode()) == (TEXT, payload)
            else:
                assert (frame.opcode, frame.payload) == (BINARY, payload)


@on_both_loops
async def test_fragments_are_one_message_and_control_frames_pass_between_them() -> None:
    async with serving(echo) as served:
        client = await served.connect()
        client.write(client_frame(TEXT, b"He", fin=False))
        client.write(client_frame(PING, b"now"))
        client.write(client_frame(0, b"l", fin=False))
        client.write(client_frame(0, b"lo"))
        assert await client.frame() == (PONG, b"now", True, False)
        assert await client.text() == "Hello"


@on_both_loops
async def test_a_message_sent_byte_by_byte_arrives() -> None:
    async with serving(echo) as served:
        client = await served.connect()
        for byte in client_frame(TEXT, "häppchen".encode()):
            client.write(bytes([byte]))
            await asyncio.sleep(0.001)
        assert await client.text() == "häppchen"


@pytest.mark.parametrize("size", [MIB, MIB + 1])
@on_both_loops
async def test_the_limit_of_a_message_is_exact(size: int) -> None:
    async with serving(echo) as served:
        client = await served.connect()
        client.send(b"m" * size)
        if size == MIB:
            assert (await client.frame()).payload == b"m" * size
        else:
            assert await client.closed() == (1009, "message is larger than is allowed")


@on_both_loops
async def test_without_a_limit_a_message_of_20_mib_comes_back_whole() -> None:
    async with serving(echo, Config(websocket=WebSocket(message=None))) as served:
        client = await served.connect()
        data = os.urandom(MIB) * 20
        client.send(data)
        assert (await client.frame()).payload == data


@on_both_loops
async def test_both_keys_of_a_message_may_be_there_and_one_is_none() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await accept(receive, send)
            await send({"type": "websocket.send", "text": "t", "bytes": None})
            await send({"type": "websocket.send", "text": None, "bytes": b"b"})
            await send({"type": "websocket.send", "bytes": memoryview(b"view")})
            await send({"type": "websocket.send", "bytes": bytearray(b"array")})

    async with serving(app) as served:
        client = await served.connect()
        assert [(await client.frame())[:2] for _ in range(4)] == [
            (TEXT, b"t"),
            (BINARY, b"b"),
            (BINARY, b"view"),
            (BINARY, b"array"),
        ]


@pytest.mark.parametrize(
    ("message", "complaint"),
    [
        ({"type": "websocket.send"}, "neither text nor bytes"),
        ({"type": "websocket.accept"}, "not allowed while the WebSocket is open"),
        ({"type": "websocket.http.response.start", "status": 403}, "not allowed while the WebSocket is open"),
        ({"type": "http.response.start", "status": 200}, "not allowed while the WebSocket is open"),
        ({"type": "websocket.close", "code": 1006}, "close code 1006 may not be sent"),
        ({"type": "websocket.close", "code": 999}, "close code 999 may not be sent"),
    ],
)
@on_both_loops
async def test_a_message_that_asgi_does_not_allow_raises_and_uncaught_is_1011(message: Any, complaint: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await accept(receive, send)
            with pytest.raises(ApplicationError, match=complaint):
                await send(message)
            await send({"type": "websocket.send", "text": "still open"})
            await send(message)

    async with serving(app) as served:
        client = await served.connect()
        assert await client.text() == "still open"
        assert await client.closed() == (1011, "")
        failure = await served.next(ApplicationFailed)
        assert (failure.reason, failure.method, failure.path) == ("invalid_response", "WEBSOCKET", "/")


# --- receive


@on_both_loops
async def test_a_receive_that_is_cancelled_again_and_again_loses_no_message_and_leaves_nothing_behind() -> None:
    received: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return
        await accept(receive, send)
        while len(received) < 300:
            try:
                async with asyncio.timeout(0.0005):
                    received.append((await receive())["text"])
            except TimeoutError:
                continue
        await send({"type": "websocket.close"})

    async with serving(app) as served:
        client = await served.connect()
        for number in range(300):
            client.send(str(number))
            if number % 3 == 0:
                await asyncio.sleep(0.001)
        await client.closed()
        assert received == [str(number) for number in range(300)]


@on_both_loops
async def test_a_receive_cancelled_in_the_moment_its_message_arrives_hands_it_to_the_next() -> None:
    received: list[Any] = []
    waiting = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return
        await accept(receive, send)
        first = asyncio.ensure_future(receive())
        await asyncio.sleep(0)
        handler = scope["extensions"]["sojourn"]
        # What the transport does when the frames arrive, and then the cancellation before the task could run.
        handler.data_received(client_frame(TEXT, b"one") + client_frame(TEXT, b"two"))
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        received.extend([await receive(), await receive()])
        waiting.set()
        await receive()

    async with serving(app) as served:
        await served.connect()
        await waiting.wait()
        assert [message["text"] for message in received] == ["one", "two"]


@on_both_loops
async def test_two_tasks_may_receive_and_each_message_goes_to_one() -> None:
    received: list[str] = []
    done = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return
        await accept(receive, send)

        async def reader() -> None:
            while (message := await receive())["type"] == "websocket.receive":
                received.append(message["text"])

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(reader()) for _ in range(3)]
            await asyncio.sleep(0)
            tasks[0].cancel()
        done.set()

    async with serving(app) as served:
        client = await served.connect()
        for number in range(100):
            client.send(str(number))
            await asyncio.sleep(0)
        client.close_frame()
        await done.wait()
        assert sorted(received, key=int) == [str(number) for number in range(100)]


@on_both_loops
async def test_an_application_that_asks_for_ever_does_not_hold_the_loop_and_is_cancelled() -> None:
    asked = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal asked
        if scope["type"] == "lifespan":
            return
        await accept(receive, send)
        while True:
            asked += 1
            await receive()

    async with serving(app) as served:
        client = await served.connect()
        client.close_frame()
        await served.ended()
        await until(lambda: asked > 100)
        await served.pass_time(3.6)
        await until(lambda: not served.server.work.running)


# --- send


@on_both_loops
async def test_sends_of_many_tasks_keep_their_order_and_none_is_lost_when_the_client_falls_behind() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return
        await accept(receive, send)
        async with asyncio.TaskGroup() as group:
            for number in range(200):
                group.create_task(send({"type": "websocket.send", "text": f"{number} " + "x" * 20_000}))

    config = Config(websocket=WebSocket(slow_consumer="block"))
    async with serving(app, config, send_buffer=8192) as served:
        client = await served.connect(receive_buffer=8192)
        await until(lambda: served.connection.blocked)
        for number in range(200):
            assert (await client.text()).split(" ")[0] == str(number)
        assert await client.closed() == (1000, "")


@on_both_loops
async def test_a_send_cancelled_in_the_queue_is_not_sent_and_those_around_it_are() -> None:
    outcome: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return
        await accept(receive, send)
        await send({"type": "websocket.send", "bytes": bytes(300_000)})
        tasks = [asyncio.ensure_future(send({"type": "websocket.send", "text": str(number)})) for number in range(5)]
        await asyncio.sleep(0)
        handler = scope["extensions"]["sojourn"]
        tasks[1].cancel()
        tasks[3].cancel()
        await asyncio.sleep(0)
        outcome.append(len(handler.connection.outbox.queue))
        outcome.append(await asyncio.gather(*tasks, return_exceptions=True))
        await receive()

    async with serving(app, send_buffer=8192) as served:
        client = await served.connect(receive_buffer=8192)
        assert (await client.frame()).payload == bytes(300_000)
        assert [await client.text() for _ in range(3)] == ["0", "2", "4"]
        await until(lambda: len(outcome) == 2)
        assert outcome[0] == 3, "a cancelled message does not take part of the queue"
        assert [type(result) for result in outcome[1]] == [type(None), asyncio.CancelledError] * 2 + [type(None)]


# --- the books


@on_both_loops
async def test_a_websocket_is_one_registered_connection_from_handshake_to_end_with_its_phase_and_bytes() -> None:
    go = asyncio.Event()
    phases: list[Phase] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return
        phases.append(scope["extensions"]["sojourn"].connection.phase)
        await accept(receive, send)
        await go.wait()
        await send({"type": "websocket.send", "text": "12345"})
        await receive()
        await send({"type": "websocket.close"})

    async with serving(app) as served:
        client = await served.connect("/books", {"User-Agent": "tester", "Referer": "http://page/"})
        opened = await served.next(WebSocketOpened)
        connection = served.connection
        assert (connection.id, connection.path, connection.phase) == (opened.connection, "/books", Phase.WEBSOCKET)
        assert connection.handler is not None
        assert connection.handler.protocol == "websocket"
        assert connection.due.armed().keys() == {"ping", "long"}
        before = connection.bytes_in, connection.bytes_out
        go.set()
        assert await client.text() == "12345"
        client.send("abc")
        assert await client.closed() == (1000, "")
        assert (connection.bytes_in - before[0], connection.bytes_out - before[1]) == (9, 7 + 4)
        assert connection.phase is Phase.CLOSING
        assert "ws_close" in connection.due.armed()
        client.close_frame()
        ended = await served.ended()
        assert phases == [Phase.UPGRADE]
        assert (ended.protocol, ended.path, ended.requests, ended.ws_sent, ended.ws_received) == (
            "websocket",
            "/books",
            1,
            1000,
            1000,
        )
        assert (ended.bytes_in, ended.bytes_out) == (connection.bytes_in, connection.bytes_out)
        (request,) = served.seen(RequestEnded)
        assert (request.method, request.target, request.status) == ("WEBSOCKET", b"/books", 101)
        assert (request.ending.reason, request.ending.code) == ("ws_closed_by_app", "-X")
        assert (request.header(b"user-agent"), request.header(b"referer")) == (b"tester", b"http://page/")


@on_both_loops
async def test_a_hundred_websockets_that_end_in_all_ways_are_all_counted() -> None:
    async with serving(echo) as served:
        clients = [await served.connect() for _ in range(100)]
        for number, client in enumerate(clients):
            match number % 5:
                case 0:
                    client.close_frame(1001)
                case 1:
                    client.leave()
                case 2:
                    client.reset()
                case 3:
                    client.write(b"\x83\x80\0\0\0\0")  # a reserved opcode
                case 4:
                    client.write(client_frame(TEXT, b"half")[:7])
                    client.leave()
        for client in clients[3::5]:
            await client.rest()
            client.leave()
        registry = served.server.runtime.registry
        await until(lambda: registry.ended == 100)
        assert len(registry) == 0
        assert registry.ended_by.keys() == {
            "ws_client_going_away",
            "ws_eof_no_close",
            "client_reset",
            "ws_protocol_error",
        }
        assert served.seen(ApplicationFailed) == []


@on_both_loops
async def test_a_websocket_that_ended_leaves_no_garbage_to_collect() -> None:
    import gc
    import weakref

    refs: list[weakref.ref[Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            refs.append(weakref.ref(scope["extensions"]["sojourn"].connection))
            await echo(scope, receive, send)

    gc.collect()
    gc.disable()
    try:
        async with serving(app) as served:
            for close in (True, False):
                client = await served.connect()
                client.send("x")
                await client.text()
                if close:
                    client.close_frame()
                else:
                    client.leave()
                await served.ended(len(refs))
                await client.rest()
            await until(lambda: not any(ref() for ref in refs))
    finally:
        gc.enable()


@on_both_loops
async def test_the_application_is_told_what_came_before_the_end() -> None:
    app = Told()
    async with serving(app) as served:
        client = await served.connect()
        client.write(client_frame(TEXT, b"1") + client_frame(BINARY, b"2"))
        client.close_frame(4000, "bye")
        await served.ended()
        await until(lambda: len(app.messages) == 3)
        assert app.messages == [
            {"type": "websocket.receive", "text": "1"},
            {"type": "websocket.receive", "bytes": b"2"},
            {"type": "websocket.disconnect", "code": 4000, "reason": "bye"},
        ]


# --- what the application may ask of the server


@on_both_loops
async def test_the_application_can_change_its_own_idle_and_write_limits_and_nothing_else() -> None:
    controls: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return
        control = scope["extensions"]["sojourn"]
        assert current_request() is control
        controls.append(control)
        assert control.remaining == 10.0
        control.set_timeout("write", 3.0)
        await accept(receive, send)
        assert control.remaining is None
        control.set_timeout("idle", 5.0)
        for name, seconds in (("handler", 1.0), ("idle", 0.0), ("idle", -1.0)):
            with pytest.raises(ValueError, match="timeout"):
                control.set_timeout(name, seconds)
        with pytest.raises(ValueError, match="no limit"):
            control.set_limit("body", 1)
        while (await receive())["type"] != "websocket.disconnect":
            pass

    async with serving(app) as served:
        client = await served.connect()
        assert controls[0].connection_id == served.connection.id
        assert controls[0]._setting("write") == 3.0
        assert not controls[0].draining.is_set()
        await served.pass_time(5.6)
        assert await client.closed() == (1001, "idle")
        assert (await served.next(DeadlineMissed)).seconds == 5.0
