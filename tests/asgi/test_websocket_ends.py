"""How a WebSocket ends: who closed, with which code, what the application is told, and what is written in the books."""

from __future__ import annotations

import asyncio
import struct
from typing import Any

import pytest

from sojourn.config import Config, Timeouts, WebSocket
from sojourn.ending import How, Phase
from sojourn.errors import ClientDisconnected
from sojourn.events import ApplicationFailed, ConnectionEnded, DeadlineMissed, RequestEnded, TaskSurvived
from tests.asgi.ws_harness import CLOSE, PING, PONG, TEXT, Told, accept, echo, on_both_loops, serving, until
from tests.wire.websocket_client import client_frame

DISCONNECT = "websocket.disconnect"


def books(ended: ConnectionEnded) -> tuple[str, str, int | None, int | None]:
    return ended.ending.reason, ended.ending.code, ended.ws_sent, ended.ws_received


class Closes:
    """An application that closes as soon as it has accepted, and goes on."""

    def __init__(self, **close: Any) -> None:
        self.close = close
        self.told: list[Any] = []
        self.go_on = asyncio.Event()
        self.ended: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return
        await accept(receive, send)
        await send({"type": "websocket.close", **self.close})
        self.told.append(await receive())
        try:
            await self.go_on.wait()
            self.ended.append("by itself")
        except asyncio.CancelledError as error:
            self.ended.append(str(error))
            raise


# --- the client closes


@pytest.mark.parametrize(
    ("code", "reason", "told", "word"),
    [
        (1000, "", (1000, ""), "ws_client_closed"),
        (1001, "", (1001, ""), "ws_client_going_away"),
        (4321, "see you", (4321, "see you"), "ws_client_closed"),
        (None, "", (1005, ""), "ws_client_closed"),
    ],
)
@on_both_loops
async def test_the_client_closes(code: int | None, reason: str, told: tuple[int, str], word: str) -> None:
    app = Told()
    async with serving(app) as served:
        client = await served.connect()
        client.close_frame(code, reason)
        assert await client.closed() == (code, reason)
        assert await client.rest() == b"", "after both close frames the server closes"
        ended = await served.ended()
        assert (ended.ending.reason, ended.ending.how) == (word, How.CLOSE_FRAME)
        assert (ended.ws_sent, ended.ws_received) == (told[0], told[0])
        await until(lambda: app.messages)
        assert app.messages == [{"type": DISCONNECT, "code": told[0], "reason": told[1]}]
        assert served.seen(RequestEnded)[0].ending == ended.ending


@on_both_loops
async def test_what_comes_after_the_clients_close_frame_is_ignored() -> None:
    app = Told()
    async with serving(app) as served:
        client = await served.connect()
        client.write(client_frame(CLOSE, b"\x03\xe8") + client_frame(TEXT, b"late") + b"\xff\xff\xff")
        assert await client.closed() == (1000, "")
        await served.ended()
        await until(lambda: app.messages)
        assert [message["type"] for message in app.messages] == [DISCONNECT]


# --- the application closes


@pytest.mark.parametrize(
    ("close", "expected"),
    [
        ({}, (1000, "")),
        ({"code": 4000, "reason": "enough"}, (4000, "enough")),
        ({"code": 1012, "reason": None}, (1012, "")),
        ({"code": 1005}, (None, "")),
        ({"code": 3000, "reason": "é" * 100}, (3000, "é" * 61)),
    ],
)
@on_both_loops
async def test_the_application_closes(close: Any, expected: tuple[int | None, str]) -> None:
    app = Closes(**close)
    async with serving(app) as served:
        client = await served.connect()
        assert await client.closed() == expected
        await until(lambda: app.told)  # without waiting for the client's answer
        assert app.told[0]["code"] == (expected[0] or 1005)
        assert served.connection.phase is Phase.CLOSING
        client.close_frame(expected[0])
        assert await client.rest() == b""
        assert books(await served.ended()) == ("ws_closed_by_app", "-X", expected[0] or 1005, expected[0] or 1005)
        app.go_on.set()


@on_both_loops
async def test_an_application_that_closed_may_take_its_time_until_the_server_stops() -> None:
    app = Closes()
    async with serving(app) as served:
        client = await served.connect()
        client.close_frame()
        await served.ended()
        await served.pass_time(30)
        assert app.ended == []
        assert len(served.server.work.running) == 1
    assert app.ended == ["drain_forced"]


@on_both_loops
async def test_an_application_that_returns_closes_with_1000() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await accept(receive, send)
            await send({"type": "websocket.send", "text": "one thing"})

    async with serving(app) as served:
        client = await served.connect()
        assert await client.text() == "one thing"
        assert await client.closed() == (1000, "")
        client.close_frame()
        assert books(await served.ended())[0] == "ws_closed_by_app"


@on_both_loops
async def test_both_close_at_once() -> None:
    app = Closes(code=4001)
    async with serving(app) as served:
        # The client's close frame is on its way before it can see the server's.
        client = await served.connect(early=client_frame(CLOSE, b"\x0f\xa2"))
        assert (await client.closed())[0] in (4001, 4002)
        assert await client.rest() == b"", "one close frame from each side"
        reason, _, sent, received = books(await served.ended())
        assert (reason, sent, received) in [("ws_client_closed", 4002, 4002), ("ws_closed_by_app", 4001, 4002)]
        app.go_on.set()


@on_both_loops
async def test_close_frames_that_cross_on_the_wire_end_it_at_once() -> None:
    app = Closes(code=4001)
    async with serving(app) as served:
        client = await served.connect()
        await until(lambda: served.connection.phase is Phase.CLOSING)
        client.close_frame(4002)
        assert await client.closed() == (4001, "")
        assert await client.rest() == b""
        assert books(await served.ended()) == ("ws_closed_by_app", "-X", 4001, 4002)
        app.go_on.set()


@on_both_loops
async def test_data_between_our_close_frame_and_the_clients_is_dropped_and_pings_are_not_answered() -> None:
    app = Closes()
    async with serving(app) as served:
        client = await served.connect()
        await until(lambda: served.connection.phase is Phase.CLOSING)
        client.send("late")
        client.write(client_frame(PING, b"late"))
        client.close_frame()
        assert await client.closed() == (1000, "")
        assert await client.rest() == b""
        assert [message["type"] for message in app.told] == [DISCONNECT]
        app.go_on.set()


@on_both_loops
async def test_a_client_that_never_answers_our_close_frame_is_cut_after_the_deadline() -> None:
    app = Closes()
    async with serving(app, Config(websocket=WebSocket(close=5.0))) as served:
        client = await served.connect()
        assert await client.closed() == (1000, "")
        await served.pass_time(4.6)
        assert len(served.server.runtime.registry) == 1
        await served.pass_time(0.8)
        ended = await served.ended()
        assert books(ended) == ("ws_close_timeout", "cX", 1000, None)
        assert (await served.next(DeadlineMissed)).deadline == "websocket.close"
        app.go_on.set()


@pytest.mark.parametrize("leave", ["eof", "reset", "leave"])
@on_both_loops
async def test_a_client_that_answers_our_close_frame_by_leaving_changes_nothing_about_the_cause(leave: str) -> None:
    app = Closes(code=4001)
    async with serving(app) as served:
        client = await served.connect()
        assert await client.closed() == (4001, "")
        getattr(client, leave)()
        assert books(await served.ended()) == ("ws_closed_by_app", "-X", 4001, None)
        app.go_on.set()


# --- the client vanishes


@on_both_loops
async def test_a_client_that_leaves_without_a_close_frame_is_1006() -> None:
    for partial in (b"", client_frame(TEXT, b"half")[:8], client_frame(TEXT, b"first", fin=False)):
        app = Told()
        async with serving(app) as served:
            client = await served.connect()
            client.write(partial)
            client.leave()
            ended = await served.ended()
            assert books(ended) == ("ws_eof_no_close", "CW", None, None)
            assert ended.ending.how is (How.EOF_IN_FRAME if partial else How.FIN)
            await until(lambda: app.messages)  # noqa: B023
            assert app.messages == [{"type": DISCONNECT, "code": 1006, "reason": ""}]


@on_both_loops
async def test_a_client_that_half_closes_has_left() -> None:
    app = Told()
    async with serving(app) as served:
        client = await served.connect()
        client.eof()
        assert await client.rest() == b""
        assert books(await served.ended())[0] == "ws_eof_no_close"


@on_both_loops
async def test_a_reset_is_1006_and_named() -> None:
    app = Told()
    async with serving(app) as served:
        client = await served.connect()
        client.reset()
        ended = await served.ended()
        assert (ended.ending.reason, ended.ending.how) == ("client_reset", How.RST)
        await until(lambda: app.messages)
        assert app.messages == [{"type": DISCONNECT, "code": 1006, "reason": ""}]


# --- the client breaks the protocol


@pytest.mark.parametrize(
    ("data", "code", "word"),
    [
        (b"\x81\x02hi", 1002, "ws_protocol_error"),  # not masked
        (client_frame(3), 1002, "ws_protocol_error"),
        (client_frame(TEXT, b"x", rsv1=True), 1002, "ws_protocol_error"),
        (client_frame(0, b"x"), 1002, "ws_protocol_error"),
        (client_frame(PING, b"x", fin=False), 1002, "ws_protocol_error"),
        (client_frame(CLOSE, b"\x03\xed"), 1002, "ws_protocol_error"),  # 1005 on the wire
        (client_frame(CLOSE, b"x"), 1002, "ws_protocol_error"),
        (client_frame(TEXT, b"\xff"), 1007, "ws_invalid_data"),
        (client_frame(CLOSE, b"\x03\xe8\xff"), 1007, "ws_invalid_data"),
        (b"\x82\xff" + struct.pack("!Q", (1 << 20) + 1), 1009, "ws_message_too_big"),
    ],
)
@on_both_loops
async def test_a_violation_is_answered_with_its_code_and_ends_the_connection(data: bytes, code: int, word: str) -> None:
    app = Told()
    async with serving(app) as served:
        client = await served.connect()
        client.send("before")
        client.write(data)
        assert (await client.closed())[0] == code
        assert await client.rest() == b"", "the server sends nothing more"
        client.leave()
        assert books(await served.ended()) == (word, "PW", code, None)
        await until(lambda: len(app.messages) == 2)
        assert app.messages[0]["text"] == "before"
        assert (app.messages[1]["type"], app.messages[1]["code"]) == (DISCONNECT, code)
        assert not served.seen(ApplicationFailed)


@on_both_loops
async def test_text_that_is_not_utf8_fails_before_its_message_is_complete() -> None:
    async with serving(echo) as served:
        client = await served.connect()
        client.write(client_frame(TEXT, b"good ", fin=False))
        client.write(client_frame(0, b"\xc3\xa4 \xe2\x28" + b"x" * 1000, fin=False)[:20])
        assert await client.closed() == (1007, "text is not UTF-8")


@on_both_loops
async def test_a_client_that_goes_on_sending_after_its_violation_can_read_the_close_frame() -> None:
    async with serving(echo) as served:
        client = await served.connect()
        client.write(b"\x82\xff" + struct.pack("!Q", 1 << 30) + b"mask")
        for _ in range(200):
            client.write(bytes(50_000))
            await asyncio.sleep(0)
        assert (await client.closed())[0] == 1009
        await served.pass_time(1.6)
        client.leave()
        assert books(await served.ended())[0] == "ws_message_too_big"


# --- the application fails


@on_both_loops
async def test_a_crash_after_accept_is_1011_and_reported_once() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await accept(receive, send)
            raise KeyError("secret")

    async with serving(app) as served:
        client = await served.connect("/crash")
        assert await client.closed() == (1011, "")
        client.close_frame(1011)
        assert books(await served.ended()) == ("error_after_starting_response", "AW", 1011, 1011)
        failure = await served.next(ApplicationFailed)
        assert (failure.reason, failure.path) == ("error_after_starting_response", "/crash")


@on_both_loops
async def test_an_application_that_cancels_itself_has_failed() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await accept(receive, send)
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await receive()

    async with serving(app) as served:
        client = await served.connect()
        assert await client.closed() == (1011, "")
        assert isinstance((await served.next(ApplicationFailed)).error, asyncio.CancelledError)


class WebSocketDisconnect(Exception):
    """As Starlette and others call it."""


@pytest.mark.parametrize(
    ("error", "reported"),
    [
        (ClientDisconnected("ws_client_closed"), False),
        (WebSocketDisconnect(1000), False),
        (ExceptionGroup("tasks", [WebSocketDisconnect(1000), ClientDisconnected("x")]), False),
        (ExceptionGroup("tasks", [WebSocketDisconnect(1000), KeyError("x")]), True),
        (KeyError("in the clean-up"), True),
    ],
)
@on_both_loops
async def test_an_error_that_says_only_that_the_client_left_is_none_and_any_other_is_reported(
    error: Exception, reported: bool
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await accept(receive, send)
            await receive()
            raise error

    async with serving(app) as served:
        client = await served.connect()
        client.close_frame()
        assert books(await served.ended())[0] == "ws_client_closed"
        await until(lambda: not served.server.work.running)
        assert [failure.error for failure in served.seen(ApplicationFailed)] == ([error] if reported else [])


@on_both_loops
async def test_send_after_the_end_raises_an_oserror_that_says_why_and_is_not_reported() -> None:
    errors: list[OSError] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await accept(receive, send)
            if scope["path"] == "/own":
                await send({"type": "websocket.close"})
            else:
                await receive()
            try:
                await send({"type": "websocket.send", "text": "late"})
            except OSError as error:
                errors.append(error)
                await send({"type": "websocket.close"})  # no error: it is closed
                raise

    async with serving(app) as served:
        client = await served.connect("/left")
        client.leave()
        await served.ended()
        await until(lambda: errors)
        client = await served.connect("/closed")
        client.close_frame(1001)
        await served.ended(2)
        await until(lambda: len(errors) == 2)
        client = await served.connect("/own")
        await until(lambda: len(errors) == 3)
        client.close_frame()
        await served.ended(3)
        assert [str(error).rpartition(": ")[2] for error in errors] == [
            "ws_eof_no_close",
            "ws_client_going_away",
            "ws_closed_by_app",
        ]
        assert all(isinstance(error, ClientDisconnected) for error in errors)
        assert not served.seen(ApplicationFailed)


# --- an application that does not notice


@on_both_loops
async def test_an_application_that_never_receives_is_cancelled_after_the_grace() -> None:
    ends: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await accept(receive, send)
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError as error:
                ends.append(str(error))
                raise

    async with serving(app, Config(timeouts=Timeouts(disconnect_grace=3.0))) as served:
        client = await served.connect()
        client.leave()
        await served.ended()
        await served.pass_time(2.8)
        assert ends == []
        await served.pass_time(0.8)
        await until(lambda: ends)
        assert ends == ["ws_eof_no_close"]
        assert not served.seen(ApplicationFailed)


@on_both_loops
async def test_an_application_that_resists_its_cancellation_is_named_with_its_stack() -> None:
    give_up = asyncio.Event()

    async def stubborn(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await accept(receive, send)
            while not give_up.is_set():
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    continue

    async with serving(stubborn) as served:
        client = await served.connect("/stubborn")
        client.leave()
        await served.ended()
        await served.pass_time(7)
        survived = served.seen(TaskSurvived)[0]
        assert survived.owner == "connection 1 WEBSOCKET /stubborn"
        assert "in stubborn" in survived.stack
        give_up.set()
        (task,) = served.server.work.running
        task.cancel()
        await until(lambda: not served.server.work.running)


# --- ends by policy


@on_both_loops
async def test_an_idle_websocket_is_closed_and_only_messages_count() -> None:
    app = Told()
    config = Config(websocket=WebSocket(idle=10.0, ping_interval=2.0))
    async with serving(app, config) as served:
        client = await served.connect()
        for _ in range(2):
            await served.pass_time(8)
            client.send("here")
            await until(lambda: len(app.messages) and served.connection.last_read == served.server.runtime.ticker.now)
        for _ in range(4):
            await served.pass_time(2)
            client.write(client_frame(PONG, b""))
            client.write(client_frame(PING, b""))
            await until(lambda: served.connection.last_read == served.server.runtime.ticker.now)
        await served.pass_time(2.8)
        while (frame := await client.frame()).opcode in (PING, PONG):
            pass
        assert frame[:2] == (CLOSE, b"\x03\xe9idle")
        client.close_frame(1001)
        assert books(await served.ended()) == ("ws_idle", "cW", 1001, 1001)
        assert (await served.next(DeadlineMissed)).deadline == "websocket.idle"
        await until(lambda: app.messages[-1]["type"] == DISCONNECT)
        assert app.messages[-1]["code"] == 1001


@on_both_loops
async def test_a_websocket_the_application_sends_on_is_not_idle() -> None:
    go = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await accept(receive, send)
            while True:
                await go.wait()
                go.clear()
                await send({"type": "websocket.send", "text": "tick"})

    async with serving(app, Config(websocket=WebSocket(idle=10.0, ping_interval=None))) as served:
        client = await served.connect()
        for _ in range(4):
            await served.pass_time(8)
            go.set()
            assert await client.text() == "tick"
        await served.pass_time(10.6)
        assert await client.closed() == (1001, "idle")


@on_both_loops
async def test_a_lifetime_ends_with_1001() -> None:
    config = Config(timeouts=Timeouts(lifetime=100.0), websocket=WebSocket(ping_interval=None))
    async with serving(Told(), config) as served:
        client = await served.connect()
        await served.pass_time(89.6)
        assert served.connection.phase is Phase.WEBSOCKET
        for _ in range(105):  # it is jittered by a tenth
            if served.connection.phase is Phase.WEBSOCKET:
                await served.pass_time(0.2)
        assert await client.closed() == (1001, "lifetime")
        client.close_frame(1001)
        assert books(await served.ended())[0] == "max_connection_duration"


@on_both_loops
async def test_a_server_that_stops_says_1012_and_waits_for_the_answer() -> None:
    app = Told()
    async with serving(app) as served:
        clients = [await served.connect() for _ in range(3)]
        served.server.stop()
        for client in clients:
            assert await client.closed() == (1012, "service restart")
        assert len(served.server.runtime.registry) == 3
        for client in clients:
            client.close_frame(1012)
            assert await client.rest() == b""
        ended = await served.ended(3)
        assert books(ended) == ("drain_goodbye", "DW", 1012, 1012)
        assert len(app.messages) >= 1


@on_both_loops
async def test_an_application_that_returns_because_the_server_stops_sends_its_client_to_another() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await accept(receive, send)
            await scope["extensions"]["sojourn"].draining.wait()

    async with serving(app) as served:
        clients = [await served.connect() for _ in range(3)]
        served.server.drain(0.0)
        for client in clients:
            assert await client.closed() == (1012, "service restart")
            client.close_frame(1012)
        assert books(await served.ended(3))[0] == "drain_goodbye"


@on_both_loops
async def test_an_end_from_elsewhere_tells_the_client_the_code_of_its_reason() -> None:
    from sojourn.ending import Ending

    app = Told()
    async with serving(app) as served:
        client = await served.connect()
        served.connection.end(Ending("admin_kill", Phase.WEBSOCKET))
        assert await client.closed() == (4503, "")
        assert await client.rest() == b""
        assert books(await served.ended()) == ("admin_kill", "KW", 4503, None)
        await until(lambda: app.messages)
        assert app.messages == [{"type": DISCONNECT, "code": 4503, "reason": ""}]
