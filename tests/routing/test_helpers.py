"""Request, Response, WebSocket: what a handler gets and gives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from sojourn.errors import ClientDisconnected, ProtocolError, RouteError
from sojourn.routing.request import Request
from sojourn.routing.response import Response
from sojourn.routing.router import Router
from tests.routing.calls import ask, ask_later, scope_of, talk


class User(msgspec.Struct):
    name: str
    age: int = 0


def answering(call: Any) -> Router:
    router = Router()
    router.add("/", call, methods=["GET", "POST"])
    return router


def returning(value: Any) -> Router:
    async def handler(request: Any) -> Any:
        return value

    return answering(handler)


@pytest.mark.parametrize(
    ("value", "status", "media", "body"),
    [
        ("hällo", 200, "text/plain; charset=utf-8", "hällo".encode()),
        (b"\x00", 200, "application/octet-stream", b"\x00"),
        ({"a": [1, None]}, 200, "application/json", b'{"a":[1,null]}'),
        ([], 200, "application/json", b"[]"),
        (User("Ada"), 200, "application/json", b'{"name":"Ada","age":0}'),
        (None, 204, None, b""),
        (Response("x", 201, {"X-A": "1"}), 201, "text/plain; charset=utf-8", b"x"),
        (Response("<p>", headers={"Content-Type": "text/html"}), 200, "text/html", b"<p>"),
    ],
)
def test_what_a_handler_returns_is_the_answer(value: Any, status: int, media: str | None, body: bytes) -> None:
    answer = ask(returning(value), "GET", "/")
    assert (answer.status, answer.headers.get("content-type"), answer.body) == (status, media, body)
    assert answer.headers.get("content-length") == (None if status == 204 else str(len(body)))


def test_a_body_comes_in_pieces_and_is_closed() -> None:
    closed = []

    async def pieces() -> AsyncIterator[str | bytes]:
        try:
            yield "one"
            yield b"two"
        finally:
            closed.append(True)

    answer = ask(returning(Response(pieces(), headers={"content-type": "text/x"})), "GET", "/")
    assert (answer.body, answer.headers) == (b"onetwo", {"content-type": "text/x"})
    assert closed == [True]


def test_a_body_in_pieces_is_closed_when_the_client_is_gone() -> None:
    closed = []

    async def pieces() -> AsyncIterator[bytes]:
        try:
            yield b"one"
            yield b"two"
        finally:
            closed.append(True)

    async def gone(message: Any) -> None:
        if message.get("body"):
            raise ClientDisconnected("client_closed_mid_response")

    async def main() -> None:
        with pytest.raises(ClientDisconnected):
            await Response(pieces()).send(scope_of("GET", "/"), gone)
        assert closed == [True]  # not left to the garbage collector

    asyncio.run(main())


@pytest.mark.parametrize("headers", [{"x-a": "1\r\nset-cookie: a=b"}, {"x\n": "1"}, {"x": "\0"}])
def test_a_header_with_a_line_break_is_refused(headers: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="a line break or NUL"):
        Response("x", headers=headers)


def test_what_json_can_not_express_is_the_handlers_error() -> None:
    with pytest.raises(TypeError, match="unsupported"):
        ask(returning(object()), "GET", "/")


def test_a_request_is_read() -> None:
    async def handler(request: Request) -> Any:
        return [request.header("X-Key"), request.header("none", "-"), request.query, request.query_lists["a"]]

    answer = ask(answering(handler), "GET", "/", query_string=b"a=1&a=2&b=%20x&c=", headers=[(b"x-key", b"\xe9")])
    assert answer.json == ["é", "-", {"a": "2", "b": " x", "c": ""}, ["1", "2"]]


def test_a_body_is_read_once_and_kept() -> None:
    async def handler(request: Request) -> Any:
        return [await request.text(), len(await request.body()), await request.json()]

    assert ask(answering(handler), "POST", "/", [b'{"a"', b"", b":1}"]).json == ['{"a":1}', 7, {"a": 1}]


def test_a_body_can_be_streamed() -> None:
    async def handler(request: Request) -> Any:
        return [len(piece) async for piece in request.stream()]

    assert ask(answering(handler), "POST", "/", [b"abc", b"", b"de"]).json == [3, 2]


@pytest.mark.parametrize(
    ("body", "status", "detail"),
    [
        (b"{", 400, "the body is no JSON"),
        (b'{"name": 1}', 422, "Expected `str`, got `int` - at `$.name`"),
        (b'{"name": "Ada", "age": "old"}', 422, "Expected `int`"),
        (b"\xff", 400, "the body is no JSON"),
    ],
)
def test_a_body_of_another_kind_is_refused_with_the_reason(body: bytes, status: int, detail: str) -> None:
    async def handler(request: Request) -> Any:
        return (await request.json(User)).name

    answer = ask(answering(handler), "POST", "/", body)
    assert answer.status == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert detail in answer.json["detail"]


def test_json_as_deep_as_a_client_likes_is_400() -> None:
    async def handler(request: Request) -> Any:
        return await request.json()

    assert ask(answering(handler), "POST", "/", b"[" * 100_000).status == 400


def test_a_body_has_a_limit() -> None:
    async def handler(request: Request) -> Any:
        return await request.body(limit=5)

    assert ask(answering(handler), "POST", "/", [b"abc", b"de"]).body == b"abcde"
    assert ask(answering(handler), "POST", "/", [b"abc", b"def"]).status == 413


def test_text_that_is_no_text_and_a_query_without_end_are_400() -> None:
    async def text(request: Request) -> Any:
        return await request.text()

    async def query(request: Request) -> Any:
        return request.query

    assert ask(answering(text), "POST", "/", b"\xff").status == 400
    assert ask(answering(query), "GET", "/", query_string=b"a&" * 2000).status == 400


def test_a_client_that_leaves_in_the_middle_of_its_body_is_told_to_the_server() -> None:
    async def handler(request: Request) -> Any:
        return await request.body()

    async def main() -> None:
        async def receive() -> Any:
            return {"type": "http.disconnect"}

        with pytest.raises(ClientDisconnected):
            await answering(handler)(scope_of("POST", "/"), receive, None)

    asyncio.run(main())


def test_reading_a_body_can_be_cancelled_at_every_piece() -> None:
    async def main() -> None:
        for stop in range(3):
            reached = asyncio.Event()
            count = 0

            async def receive(reached: asyncio.Event = reached, stop: int = stop) -> Any:
                nonlocal count
                if count == stop:
                    reached.set()
                    await asyncio.Event().wait()
                count += 1
                return {"type": "http.request", "body": b"x", "more_body": True}

            reading = asyncio.ensure_future(Request(scope_of("POST", "/"), receive).body())
            await reached.wait()
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading

    asyncio.run(main())


def test_an_error_of_the_body_that_is_streamed_is_not_answered_twice() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"x"
        raise ProtocolError(400, "invalid_request_body", "late")

    async def main() -> None:
        with pytest.raises(ProtocolError):
            await ask_later(returning(Response(pieces())), "GET", "/")

    asyncio.run(main())


def test_a_request_without_a_router_has_no_addresses() -> None:
    with pytest.raises(RouteError, match="came through no sojourn"):
        Request(scope_of("GET", "/"), None).url_for("x")  # type: ignore[arg-type]


def sockets(call: Any) -> Router:
    router = Router()
    router.websocket("/")(call)
    return router


def test_a_websocket_accepts_speaks_json_and_is_closed_at_the_end() -> None:
    async def handler(socket: Any) -> None:
        await socket.accept("chat")
        await socket.send_json({"got": await socket.receive_json()})
        await socket.send(await socket.receive())

    assert talk(sockets(handler), "/", "[1]", b"\x01") == [
        {"type": "websocket.accept", "subprotocol": "chat"},
        {"type": "websocket.send", "text": '{"got":[1]}'},
        {"type": "websocket.send", "bytes": b"\x01"},
        {"type": "websocket.close", "code": 1000, "reason": ""},
    ]


def test_a_websocket_that_the_client_closed_is_not_closed_again() -> None:
    seen = []

    async def handler(socket: Any) -> None:
        await socket.accept()
        async for message in socket:
            seen.append(message)  # noqa: PERF401 the loop is what is tested
        with pytest.raises(ClientDisconnected):
            await socket.receive()

    assert [message["type"] for message in talk(sockets(handler), "/", "a", "b")] == ["websocket.accept"]
    assert seen == ["a", "b"]


def test_a_message_that_is_no_json_is_the_handlers_to_answer() -> None:
    async def handler(socket: Any) -> None:
        await socket.accept()
        try:
            await socket.receive_json()
        except ProtocolError as error:
            await socket.close(1007, error.detail[:20])

    assert talk(sockets(handler), "/", "{")[-1]["code"] == 1007
