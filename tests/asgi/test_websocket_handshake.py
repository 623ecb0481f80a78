"""The opening handshake: accepted, denied by the application, refused by the server, or never answered."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from sojourn.config import Config, Log, Route, WebSocket
from sojourn.ending import How, Phase
from sojourn.errors import ApplicationError, ClientDisconnected
from sojourn.events import ApplicationFailed, ConnectionEnded, DeadlineMissed, RequestEnded, WebSocketOpened
from tests.asgi.ws_harness import TEXT, Client, echo, on_both_loops, serving, until
from tests.wire.websocket_client import client_frame

Message = dict[str, Any]


def answering(*messages: Message, hold: asyncio.Event | None = None) -> Any:
    """An application that answers the handshake with these messages, and waits for the end."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return
        await receive()
        for message in messages:
            await send(message)
        while (await receive())["type"] != "websocket.disconnect":
            pass
        if hold is not None:
            await hold.wait()

    return app


def start(status: int, *headers: tuple[bytes, bytes]) -> Message:
    return {"type": "websocket.http.response.start", "status": status, "headers": list(headers)}


def body(data: bytes, more: bool = False) -> Message:
    return {"type": "websocket.http.response.body", "body": data, "more_body": more}


async def problem_of(client: Client) -> Message:
    assert client.headers["content-type"] == "application/problem+json"
    assert client.headers["cache-control"] == "no-store"
    document = json.loads(await client.rest())
    assert document["status"] == client.status
    return document


# --- accepted


@on_both_loops
async def test_nothing_is_answered_before_the_application_accepts() -> None:
    go = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await receive()
            await go.wait()
            await send({"type": "websocket.accept"})
            await receive()

    async with serving(app) as served:
        connecting = asyncio.ensure_future(served.connect())
        await until(lambda: len(served.server.runtime.registry) and served.connection.phase is Phase.UPGRADE)
        assert served.connection.bytes_out == 0
        assert "ws_open" in served.connection.due.armed()
        go.set()
        client = await connecting
        assert client.status == 101
        assert client.headers == {
            "upgrade": "websocket",
            "connection": "Upgrade",
            "sec-websocket-accept": "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",  # RFC 6455 section 1.3
        }


@on_both_loops
async def test_firefox_says_keep_alive_and_upgrade() -> None:
    async with serving(echo) as served:
        client = await served.connect(headers={"Connection": "keep-alive, Upgrade"})
        client.send("hello")
        assert await client.text() == "hello"


@on_both_loops
async def test_a_subprotocol_is_chosen_among_those_offered() -> None:
    app = answering({"type": "websocket.accept", "subprotocol": "graphql-ws"})
    async with serving(app) as served:
        client = await served.connect(headers={"Sec-WebSocket-Protocol": "mqtt, graphql-ws"})
        assert client.headers["sec-websocket-protocol"] == "graphql-ws"
        assert (await served.next(WebSocketOpened)).subprotocol == "graphql-ws"


@on_both_loops
async def test_the_headers_of_accept_arrive_in_order_and_repeated() -> None:
    headers = [(b"X-One", b"1"), (b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")]
    async with serving(answering({"type": "websocket.accept", "headers": headers})) as served:
        client = await served.dial()
        client.write(
            b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        head = await client.reader.readuntil(b"\r\n\r\n")
        assert head.endswith(b"\r\nX-One: 1\r\nset-cookie: a=1\r\nset-cookie: b=2\r\n\r\n")


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        ({"subprotocol": "never"}, "did not offer subprotocol 'never'"),
        ({"headers": [(b"Sec-WebSocket-Accept", b"x")]}, "header Sec-WebSocket-Accept is the server's"),
        ({"headers": [(b"Sec-WebSocket-Extensions", b"x")]}, "is the server's"),
        ({"headers": [(b"Content-Length", b"0")]}, "is the server's"),
        ({"headers": [(b"transfer-encoding", b"chunked")]}, "is the server's"),
        ({"headers": [(b"x", b"a\r\nset-cookie: b=2")]}, "CR, LF or NUL"),
        ({"headers": [(b"x y", b"a")]}, "is not a token"),
    ],
)
@on_both_loops
async def test_an_accept_that_can_not_be_sent_is_an_error_of_the_application_and_500(more: Any, complaint: str) -> None:
    async with serving(answering({"type": "websocket.accept", **more})) as served:
        client = await served.connect(headers={"Sec-WebSocket-Protocol": "offered"})
        assert client.status == 500
        assert (await problem_of(client))["reason"] == "invalid_response"
        failure = await served.next(ApplicationFailed)
        assert isinstance(failure.error, ApplicationError)
        assert complaint in str(failure.error)


@on_both_loops
async def test_frames_that_come_with_the_handshake_wait_until_the_application_accepts() -> None:
    go = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await go.wait()
            await echo(scope, receive, send)

    async with serving(app) as served:
        early = b"".join(client_frame(TEXT, str(number).encode()) for number in range(1000))
        connecting = asyncio.ensure_future(served.connect(early=early[:3000]))
        await until(lambda: len(served.server.runtime.registry) and served.connection.phase is Phase.UPGRADE)
        served.clients[0].write(early[3000:])
        assert served.connection.reading_paused
        go.set()
        client = await connecting
        for number in range(1000):
            assert await client.text() == str(number)


@on_both_loops
async def test_a_close_frame_that_comes_with_the_handshake_is_answered() -> None:
    async with serving(echo) as served:
        client = await served.connect(early=client_frame(8, b"\x03\xe9"))
        assert client.status == 101
        assert await client.closed() == (1001, "")
        assert (await served.ended()).ending.reason == "ws_client_going_away"


# --- denied by the application


@on_both_loops
async def test_close_before_accept_is_403() -> None:
    async with serving(answering({"type": "websocket.close", "code": 1008})) as served:
        client = await served.connect()
        assert client.status == 403
        assert (client.headers["content-length"], client.headers["connection"]) == ("0", "close")
        assert "date" in client.headers
        assert await client.rest() == b""
        client.leave()
        assert (await served.ended()).ending.reason == "upgrade_denied"
        (request,) = served.seen(RequestEnded)
        assert (request.status, request.ending.reason, request.ending.who.value) == (403, "upgrade_denied", "-")


@on_both_loops
async def test_a_denial_is_the_applications_response() -> None:
    app = answering(start(401, (b"www-authenticate", b"Bearer"), (b"content-length", b"5")), body(b"token"))
    async with serving(app) as served:
        client = await served.connect()
        assert client.status == 401
        assert client.headers.items() >= {
            ("www-authenticate", "Bearer"),
            ("content-length", "5"),
            ("connection", "close"),
        }
        assert await client.rest() == b"token"
        client.leave()
        assert (await served.ended()).ending.reason == "upgrade_denied"
        assert served.seen(RequestEnded)[0].status == 401
        assert not served.seen(ApplicationFailed)


@on_both_loops
async def test_a_denial_without_a_length_gets_one_or_is_chunked() -> None:
    async with serving(answering(start(429), body(b"later"))) as served:
        client = await served.connect()
        assert (client.status, client.headers["content-length"]) == (429, "5")
        assert await client.rest() == b"later"
    async with serving(answering(start(429), body(b"one", True), body(b"", True), body(b"two"))) as served:
        client = await served.connect()
        assert client.headers["transfer-encoding"] == "chunked"
        assert await client.rest() == b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"


@pytest.mark.parametrize("status", [204, 304])
@on_both_loops
async def test_a_denial_whose_status_has_no_body_sends_none(status: int) -> None:
    async with serving(answering(start(status), body(b"ignored"))) as served:
        client = await served.connect()
        assert client.status == status
        assert "content-length" not in client.headers
        assert await client.rest() == b""


@on_both_loops
async def test_a_large_denial_waits_for_its_reader() -> None:
    pieces = [body(bytes([number]) * 100_000, True) for number in range(20)]
    async with serving(answering(start(503), *pieces, body(b"")), send_buffer=8192) as served:
        client = await served.connect(receive_buffer=8192)
        await until(lambda: served.connection.blocked)
        assert served.connection.buffered < 300_000
        data = await client.rest()
        assert sum(data.count(bytes([number])) for number in range(20)) >= 2_000_000
        assert data.endswith(b"0\r\n\r\n")


@pytest.mark.parametrize("sent", [b"1234", b"123456"])
@on_both_loops
async def test_a_denial_with_a_wrong_length_is_500_while_nothing_of_it_is_out(sent: bytes) -> None:
    async with serving(answering(start(401, (b"content-length", b"5")), body(sent))) as served:
        client = await served.connect()
        assert client.status == 500
        assert (await problem_of(client))["reason"] == "invalid_response"


@pytest.mark.parametrize("second", [body(b"45678"), body(b"4")])
@on_both_loops
async def test_a_denial_that_turns_out_wrong_midway_is_cut_and_not_complete(second: Message) -> None:
    app = answering(start(401, (b"content-length", b"5")), body(b"123", True), second)
    async with serving(app) as served:
        client = await served.connect()
        assert client.status == 401
        with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
            await client.reader.readexactly(5)
        ended = await served.ended()
        assert (ended.ending.reason, served.seen(RequestEnded)[0].status) == ("invalid_response", 401)


@on_both_loops
async def test_a_crash_between_start_and_body_of_a_denial_is_500() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await receive()
            await send(start(401))
            raise KeyError("secret")

    async with serving(app) as served:
        client = await served.connect()
        assert client.status == 500
        assert (await problem_of(client))["reason"] == "app_error_before_head"


# --- failed by the application


@on_both_loops
async def test_a_crash_before_accept_is_500_and_says_nothing_of_the_inside() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            raise KeyError("secret")

    async with serving(app) as served:
        client = await served.connect()
        assert client.status == 500
        document = await problem_of(client)
        assert document["reason"] == "app_error_before_head"
        assert "secret" not in str(document)
        failure = await served.next(ApplicationFailed)
        assert isinstance(failure.error, KeyError)
        client.leave()
        ended = await served.ended()
        assert (ended.ending.reason, ended.ending.detail) == ("app_error_before_head", "'secret'")
        assert served.seen(RequestEnded)[0].status == 500


@on_both_loops
async def test_an_application_that_returns_without_an_answer_is_500() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await receive()

    async with serving(app) as served:
        client = await served.connect()
        assert client.status == 500
        assert (await problem_of(client))["reason"] == "app_returned_without_response"
        assert "without an answer to the handshake" in str((await served.next(ApplicationFailed)).error)


@on_both_loops
async def test_an_application_that_does_not_answer_in_time_is_504_and_cancelled() -> None:
    cancelled: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError as error:
                cancelled.append(str(error))
                raise

    async with serving(app) as served:
        connecting = asyncio.ensure_future(served.connect())
        await until(lambda: len(served.server.runtime.registry) and served.connection.phase is Phase.UPGRADE)
        await served.pass_time(9.6)
        assert not connecting.done()
        await served.pass_time(0.8)
        client = await connecting
        assert client.status == 504
        assert (await problem_of(client))["reason"] == "handshake_timeout"
        await until(lambda: cancelled)
        assert cancelled == ["handshake_timeout"]
        missed = await served.next(DeadlineMissed)
        assert (missed.deadline, missed.seconds) == ("websocket.open", 10.0)
        client.leave()
        assert (await served.ended()).ending.how is How.TIMEOUT


@on_both_loops
async def test_a_client_that_reset_unnoticed_while_it_was_not_read_is_answered_into_the_void() -> None:
    never = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await never.wait()

    async with serving(app) as served:
        connecting = asyncio.ensure_future(served.connect(early=client_frame(TEXT, b"early")))
        await until(lambda: len(served.server.runtime.registry) and served.connection.reading_paused)
        served.clients[0].reset()
        await asyncio.gather(connecting, return_exceptions=True)
        await served.pass_time(10.6)
        assert (await served.ended()).ending.reason == "handshake_timeout"


@on_both_loops
async def test_a_denial_that_does_not_end_in_time_is_cut() -> None:
    never = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await send(start(401))
            await send(body(b"first", True))
            await never.wait()

    async with serving(app) as served:
        client = await served.connect()
        assert await client.reader.readexactly(10) == b"5\r\nfirst\r\n"
        await served.pass_time(10.6)
        with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
            await client.reader.readexactly(1)
        assert (await served.ended()).ending.reason == "handshake_timeout"


@on_both_loops
async def test_a_client_that_leaves_before_the_answer_is_noticed() -> None:
    told: list[Any] = []
    never = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return
        await receive()
        told.append(await receive())
        with pytest.raises(ClientDisconnected) as caught:
            await send({"type": "websocket.accept"})
        told.append(caught.value)
        await send({"type": "websocket.close"})  # is no error: both sides closed
        await never.wait()

    async with serving(app) as served:
        connecting = asyncio.ensure_future(served.connect())
        await until(lambda: len(served.server.runtime.registry) and served.connection.phase is Phase.UPGRADE)
        served.clients[0].leave()
        await asyncio.gather(connecting, return_exceptions=True)
        ended = await served.ended()
        assert (ended.ending.reason, ended.ending.code) == ("client_closed_request", "CU")
        assert served.seen(RequestEnded)[0].status == 499
        await until(lambda: len(told) == 2)
        assert told[0] == {"type": "websocket.disconnect", "code": 1006, "reason": ""}
        assert isinstance(told[1], OSError)
        assert served.server.work.running
        await served.pass_time(3.6)
        await until(lambda: not served.server.work.running)
        assert not served.seen(ApplicationFailed)


# --- refused by the server


@pytest.mark.parametrize(
    ("headers", "status", "more"),
    [
        ({"Sec-WebSocket-Version": "8"}, 426, {"sec-websocket-version": "13", "upgrade": "websocket"}),
        ({"Sec-WebSocket-Version": None}, 426, {"sec-websocket-version": "13", "connection": "Upgrade, close"}),
        ({"Sec-WebSocket-Key": None}, 400, {"connection": "close"}),
        ({"Sec-WebSocket-Key": "dG9vc2hvcnQ="}, 400, {}),
        ({"Sec-WebSocket-Protocol": "a b"}, 400, {}),
        ({"Sec-WebSocket-Extensions": "permessage-deflate; =1"}, 400, {}),
    ],
)
@on_both_loops
async def test_a_handshake_that_is_not_acceptable_is_refused_before_the_application(
    headers: Any, status: int, more: Any
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "lifespan", "the application must not see it"

    async with serving(app) as served:
        client = await served.connect(headers=headers)
        assert client.status == status
        assert client.headers.items() >= more.items()
        assert (await problem_of(client))["reason"] == "upgrade_rejected"
        client.leave()
        assert (await served.ended()).ending.reason == "upgrade_rejected"
        assert served.seen(RequestEnded)[0].status == status
        assert not served.seen(ApplicationFailed)


@pytest.mark.parametrize(
    ("allowed", "origin", "status"),
    [
        (None, "https://anywhere.example", 101),
        (("https://good.example",), "https://good.example", 101),
        (("https://good.example",), "https://evil.example", 403),
        (("https://good.example",), None, 101),
        (("same-origin",), "http://testserver", 101),
        (("same-origin",), "http://other", 403),
    ],
)
@on_both_loops
async def test_a_page_of_another_origin_may_not_connect(allowed: Any, origin: str | None, status: int) -> None:
    async with serving(echo, Config(websocket=WebSocket(origins=allowed))) as served:
        client = await served.connect(headers={"Origin": origin})
        assert client.status == status
        if status == 403:
            assert (await problem_of(client))["reason"] == "origin_not_allowed"


@on_both_loops
async def test_a_server_that_stops_refuses_handshakes_that_wait_for_their_answer() -> None:
    async with serving(answering()) as served:
        connecting = asyncio.ensure_future(served.connect())
        await until(lambda: len(served.server.runtime.registry) and served.connection.phase is Phase.UPGRADE)
        served.server.stop()
        client = await connecting
        assert client.status == 503
        assert client.headers["retry-after"].isdigit()
        assert (await problem_of(client))["reason"] == "drain_goodbye"
        client.leave()
        await served.next(ConnectionEnded)


@on_both_loops
async def test_answers_carry_the_date_and_the_server_only_where_configured() -> None:
    for log, present in ((Log(), {"date"}), (Log(date_header=False, server_header=True), {"server"})):
        for app in (answering({"type": "websocket.close"}), answering(start(401), body(b"x"))):
            async with serving(app, Config(log=log)) as served:
                client = await served.connect()
                assert client.headers.keys() & {"date", "server"} == present
        async with serving(echo, Config(log=log)) as served:
            client = await served.connect(headers={"Sec-WebSocket-Key": None})
            assert client.headers.keys() & {"date", "server"} == present


# --- routes


@on_both_loops
async def test_a_route_has_its_own_settings() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket" and scope["path"] == "/fast":
            await asyncio.Event().wait()
        if scope["type"] == "websocket":
            await echo(scope, receive, send)

    routes = (
        Route(path="/plain/*", websocket={"compression": False, "message": 10}),
        Route(path="/fast", websocket={"open": 1.0}),
        Route(path="/silent", websocket={"ping_interval": "none", "idle": 5.0}),
    )
    offer = {"Sec-WebSocket-Extensions": "permessage-deflate"}
    async with serving(app, Config(routes=routes)) as served:
        client = await served.connect("/other", offer)
        assert client.headers["sec-websocket-extensions"].startswith("permessage-deflate")
        client = await served.connect("/plain/x", offer)
        assert "sec-websocket-extensions" not in client.headers
        client.send("0123456789+")
        assert (await client.closed())[0] == 1009
        client = await served.connect("/silent")
        assert served.server.runtime.registry.get(3).due.armed().keys() == {"long", "ws_idle"}
        connecting = asyncio.ensure_future(served.connect("/fast"))
        await until(lambda: served.server.runtime.registry.get(4))
        await until(lambda: served.server.runtime.registry.get(4).phase is Phase.UPGRADE)
        await served.pass_time(1.6)
        assert (await connecting).status == 504
        assert (await served.next(DeadlineMissed)).seconds == 1.0
