"""Applications that break the contract: a 500 before the head, a cut after it, never a whole answer by mistake."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import httpx
import pytest

from sojourn.errors import ApplicationError, ClientDisconnected
from sojourn.events import ApplicationFailed, ConnectionEnded, RequestEnded
from tests.asgi.harness import Cut, answer, get, on_both_loops, read_body, serving, settings

START = {"type": "http.response.start", "status": 200, "headers": []}
BODY = {"type": "http.response.body", "body": b"hello"}
MORE = {**BODY, "more_body": True}


def start(*headers: tuple[bytes, bytes], status: Any = 200) -> dict[str, Any]:
    return {"type": "http.response.start", "status": status, "headers": headers}


LENGTH = (b"content-length", b"5")


async def crash(*_: Any) -> None:
    raise RuntimeError("the application has a bug")


async def leave(*_: Any) -> None:
    sys.exit(3)


async def cancel_itself(*_: Any) -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(10)


async def group(*_: Any) -> None:
    raise BaseExceptionGroup("several", [asyncio.CancelledError(), ValueError("x")])


#: What is sent, or called, before the head is out: title -> (steps, reason).
BEFORE: dict[str, tuple[list[Any], str]] = {
    "a crash": ([crash], "app_error_before_head"),
    "a crash after start": ([START, crash], "app_error_before_head"),
    "sys.exit": ([leave], "app_error_before_head"),
    "a group of exceptions": ([group], "app_error_before_head"),
    "its own cancellation": ([cancel_itself], "app_error_before_head"),
    "nothing at all": ([], "app_returned_without_response"),
    "nothing but start": ([START], "app_returned_without_response"),
    "a body without start": ([BODY], "invalid_response"),
    "trailers without start": ([{"type": "http.response.trailers"}], "invalid_response"),
    "two starts": ([START, START], "invalid_response"),
    "an unknown message": ([{"type": "http.response.push"}], "invalid_response"),
    "a message of a WebSocket": ([{"type": "websocket.accept"}], "invalid_response"),
    "a message without type": ([{}], "app_error_before_head"),
    "a start without status": ([{"type": "http.response.start"}], "app_error_before_head"),
    "a status that is none": ([start(status=99)], "invalid_response"),
    "a status in words": ([start(status="200 OK")], "invalid_response"),
    "headers of text": ([start(("x", "y"))], "invalid_response"),  # type: ignore[arg-type]
    "a header that splits the response": ([start((b"x", b"y\r\n\r\n<html>"))], "invalid_response"),
    "a name that is no token": ([start((b"x y", b"z"))], "invalid_response"),
    "a body of text": ([START, {**BODY, "body": "text"}], "app_error_before_head"),
    "more than its length": ([start((b"content-length", b"4")), BODY], "response_content_length_mismatch"),
    "less than its length": ([start((b"content-length", b"6")), BODY], "response_content_length_mismatch"),
    "a length and nothing": ([start(LENGTH), {"type": "http.response.body"}], "response_content_length_mismatch"),
    "two lengths": ([start(LENGTH, (b"content-length", b"6")), BODY], "invalid_response"),
}  # fmt: skip
#: The same after the head is out.
AFTER: dict[str, tuple[list[Any], str]] = {
    "a crash": ([START, MORE, crash], "error_after_starting_response"),
    "a crash in a body with a length": (
        [start((b"content-length", b"10")), MORE, crash],
        "error_after_starting_response",
    ),
    "a crash right at the end": ([start((b"content-length", b"5")), MORE, crash], "error_after_starting_response"),
    "sys.exit": ([START, MORE, leave], "error_after_starting_response"),
    "its own cancellation": ([START, MORE, cancel_itself], "error_after_starting_response"),
    "no end": ([START, MORE], "app_returned_without_response"),
    "no end of a body with a length": ([start((b"content-length", b"10")), MORE], "app_returned_without_response"),
    "another start": ([START, MORE, START], "invalid_response"),
    "an early hint": ([START, MORE, {"type": "http.response.early_hint", "links": []}], "invalid_response"),
    "more than its length": ([start((b"content-length", b"7")), MORE, BODY], "response_content_length_mismatch"),
    "less than its length": ([start((b"content-length", b"11")), MORE, BODY], "response_content_length_mismatch"),
    "no trailers": ([{**START, "trailers": True}, BODY], "app_returned_without_response"),
    "a trailer that splits": (
        [{**START, "trailers": True}, BODY, {"type": "http.response.trailers", "headers": [(b"x", b"y\r\nz: 1")]}],
        "invalid_response",
    ),
    "a body after the trailers began": ([{**START, "trailers": True}, BODY, BODY], "invalid_response"),
    "a body of text": ([START, MORE, {**BODY, "body": "text"}], "error_after_starting_response"),
}


def steps_app(steps: list[Any], caught: bool = False) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/good":
            await answer(send, b"good")
            return
        for step in steps:
            if callable(step):
                await step()
                continue
            try:
                await send(dict(step))
            except ApplicationError:
                if not caught:
                    raise

    return app


@on_both_loops
@pytest.mark.parametrize("title", BEFORE)
def test_before_the_head_is_out_it_becomes_a_500_and_the_connection_lives_on(title: str, loop: str) -> None:
    steps, reason = BEFORE[title]
    with serving(steps_app(steps), loop=loop) as served, served.connect() as client:
        client.send(get("/bad") + get("/good"))
        got = client.answer()
        assert (got.status, got["content-type"]) == (500, "application/problem+json")
        assert b"bug" not in got.body
        assert client.answer().body == b"good"
        bad, good = served.wait(RequestEnded, 2)
        assert (bad.status, bad.ending.reason) == (500, reason)
        assert (good.status, good.ending.reason) == (200, "completed")
        (failed,) = served.of(ApplicationFailed)
        assert (failed.method, failed.path, failed.reason) == ("GET", "/bad", reason)


@pytest.mark.parametrize("title", [title for title, (steps, _) in BEFORE.items() if steps and not callable(steps[-1])])
def test_an_application_that_catches_its_error_and_returns_is_answered_for_all_the_same(title: str) -> None:
    steps, _ = BEFORE[title]
    if title in ("a message without type", "a start without status", "a body of text", "nothing but start"):
        return  # not errors of ours, so it can't catch them as such
    with serving(steps_app(steps, caught=True)) as served, served.connect() as client:
        client.send(get("/bad") + get("/good"))
        assert client.answer().status == 500
        assert client.answer().body == b"good"


@on_both_loops
@pytest.mark.parametrize("title", AFTER)
@pytest.mark.parametrize("version", ["1.1", "1.0"])
def test_after_the_head_is_out_the_client_sees_a_cut(title: str, version: str, loop: str) -> None:
    steps, reason = AFTER[title]
    with serving(steps_app(steps), loop=loop) as served:
        with served.connect() as client:
            client.send(get("/bad", "te: trailers", version=version) + get("/good", version=version))
            with pytest.raises(Cut) as cut:
                # A declared length may have been reached: what went wrong went wrong after it, and shows in the end.
                # In HTTP/1.0 a FIN is the end of the body, so it has to be a reset.
                (client.answer(), client.rest())
            if version == "1.0":
                assert cut.value.how == "rst"
        (bad,) = served.wait(RequestEnded)
        assert bad.ending.reason == reason
        ended = served.ended()
        assert ended.ending.reason == reason
        assert ended.requests == 1
        (failed,) = served.of(ApplicationFailed)
        assert failed.reason == reason


@pytest.mark.parametrize("title", AFTER)
@pytest.mark.parametrize("version", ["1.1", "1.0"])
def test_httpx_never_takes_a_cut_answer_for_a_whole_one(title: str, version: str) -> None:
    steps, _ = AFTER[title]
    if title == "a crash right at the end":
        return  # the declared bytes have all arrived: no client can see that the application went on and failed
    with serving(steps_app(steps)) as served, served.connect() as client:
        if version == "1.0":  # httpx can't; its parser h11 can
            client.send(get("/bad", version="1.0"))
            with pytest.raises(Cut):
                client.answer()
        else:
            with pytest.raises(httpx.HTTPError), httpx.Client(trust_env=False) as pool:
                pool.get(f"http://127.0.0.1:{served.port}/bad")


@on_both_loops
def test_what_is_sent_after_the_end_of_an_answer_is_refused_and_reaches_nobody(loop: str) -> None:
    errors: list[Exception] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await answer(send, scope["path"].encode())
        for message in (START, BODY, MORE, {"type": "http.response.trailers"}, {"type": "http.response.early_hint"}):
            try:
                await send(message)
            except ApplicationError as error:
                errors.append(error)
        assert await receive() == {"type": "http.disconnect"}

    with serving(app, loop=loop) as served, served.connect() as client:
        client.send(get("/1") + get("/2"))
        assert [client.answer().body for _ in range(2)] == [b"/1", b"/2"]
        served.until(lambda: len(errors) == 10)
        assert client.silent()
        assert served.of(ApplicationFailed) == []


@on_both_loops
def test_an_application_that_fails_after_its_answer_is_reported_and_nobody_else_notices(loop: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await answer(send, b"done")
        await asyncio.sleep(0.05)
        raise RuntimeError("in a background task")

    with serving(app, loop=loop) as served, served.connect() as client:
        client.send(get())
        assert client.answer().body == b"done"
        (failed,) = served.wait(ApplicationFailed)
        assert failed.reason == "error_after_response"
        assert isinstance(failed.error, RuntimeError)
        client.send(get())
        assert client.answer().body == b"done"
        assert [each.ending.reason for each in served.wait(RequestEnded, 2)] == ["completed"] * 2
        served.wait(ApplicationFailed, 2)


@on_both_loops
def test_a_send_kept_from_one_request_never_reaches_the_next(loop: str) -> None:
    kept: list[Any] = []
    errors: list[Exception] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for old in kept:
            for message in (START, BODY, MORE):
                try:
                    await old(message)
                except (ApplicationError, ClientDisconnected) as error:
                    errors.append(error)
        kept.append(send)
        if scope["path"] == "/slow":
            await asyncio.sleep(5)
        await send(START)
        for old in kept[:-1]:
            with pytest.raises((ApplicationError, ClientDisconnected)):
                await old(BODY)
        await send({**BODY, "body": scope["path"].encode()})

    config = settings(timeouts={"response_start": 0.2})
    with serving(app, config, loop) as served, served.connect() as client:
        client.send(get("/1") + get("/slow") + get("/3") + get("/4"))
        assert client.answer().body == b"/1"
        assert client.answer().status == 504
        assert client.answer().body == b"/3"
        assert client.answer().body == b"/4"
        assert len(errors) == (1 + 2 + 3) * 3
        assert served.of(ApplicationFailed) == []


@on_both_loops
def test_a_task_left_by_one_request_can_neither_read_nor_write_in_the_next(loop: str) -> None:
    seen: list[Any] = []
    tasks: list[asyncio.Task[None]] = []

    async def straggler(receive: Any, send: Any) -> None:
        seen.append(await receive())
        try:
            await send(MORE)
        except ApplicationError as error:
            seen.append(type(error))

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert await read_body(receive) == scope["path"].encode()
        tasks.append(asyncio.create_task(straggler(receive, send)))
        await asyncio.sleep(0)
        await answer(send, scope["path"].encode())

    with serving(app, loop=loop) as served, served.connect() as client:
        client.send(get("/1", method="POST", body=b"/1") + get("/2", method="POST", body=b"/2"))
        assert [client.answer().body for _ in range(2)] == [b"/1", b"/2"]
        served.until(lambda: len(seen) == 4)
        assert seen.count({"type": "http.disconnect"}) == 2


@on_both_loops
def test_a_cut_answer_does_not_disturb_other_connections(loop: str) -> None:
    with serving(steps_app([START, MORE, crash]), loop=loop) as served:
        with served.connect() as other:
            for _ in range(20):
                with served.connect() as client:
                    client.send(get("/bad"))
                    with pytest.raises(Cut):
                        client.answer()
                other.send(get("/good"))
                assert other.answer().body == b"good"
        assert len(served.wait(ConnectionEnded, 21)) == 21


@on_both_loops
def test_a_body_may_be_any_buffer(loop: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        if scope["path"] == "/whole":
            await send({"type": "http.response.body", "body": memoryview(b"hello")})
            return
        await send({"type": "http.response.body", "body": bytearray(b"he"), "more_body": True})
        await send({"type": "http.response.body", "body": memoryview(b"llo")})

    with serving(app, loop=loop) as served, served.connect() as client:
        client.send(get("/whole") + get("/parts") + get("/parts", version="1.0"))
        assert [client.answer().body for _ in range(3)] == [b"hello"] * 3


@on_both_loops
def test_what_an_application_changes_in_its_messages_and_scope_changes_nothing(loop: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-length", b"5"), (b"x", b"1")]
        message = {"type": "http.response.start", "status": 200, "headers": headers}
        await send(message)
        headers.clear()
        message["status"] = 500
        buffer = bytearray(b"hello")
        await send({"type": "http.response.body", "body": bytes(buffer)})
        buffer[:] = b"XXXXX"
        scope["headers"].clear()
        scope.clear()

    with serving(app, loop=loop) as served, served.connect() as client:
        for _ in range(4):
            client.send(get())
            got = client.answer()
            assert (got.status, got["x"], got.body) == (200, "1", b"hello")
