"""What is left of a request when it is over: nothing. No deadline, no task, no byte in the next."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref
from typing import Any

import pytest

import sojourn
from sojourn.config import Route
from sojourn.events import ApplicationFailed, DeadlineMissed, RequestEnded, TaskSurvived
from tests.asgi.harness import Cut, Served, answer, get, on_both_loops, read_body, serving, settings


def armed(served: Served) -> set[str]:
    """The deadlines of the only connection."""

    def look() -> set[str]:
        (connection,) = served.server.runtime.registry
        return set(connection.due.armed()) - {"long"}

    return served.call(look)


@on_both_loops
@pytest.mark.parametrize("how", ["decorator", "extension", "route"])
def test_a_deadline_of_one_request_never_strikes_the_next(how: str, loop: str) -> None:
    async def quick(scope: Any, receive: Any, send: Any) -> None:
        await answer(send, b"quick")

    own = sojourn.timeouts(handler=0.5, response_start=0.5, stream_idle=0.5)(quick)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/slow":
            await asyncio.sleep(0.8)
            await answer(send, b"slow")
        elif how == "decorator":
            await own(scope, receive, send)
        else:
            if how == "extension":
                control = scope["extensions"]["sojourn"]
                for name in ("handler", "response_start", "stream_idle", "body_idle", "body"):
                    control.set_timeout(name, 0.5)
            await quick(scope, receive, send)

    routes = (Route(path="/quick", timeouts={"handler": 0.5, "response_start": 0.5}),) if how == "route" else ()
    with serving(app, settings(routes=routes), loop) as served, served.connect() as client:
        client.send(get("/quick"))
        assert client.answer().body == b"quick"
        assert armed(served) == {"keep_alive"}
        client.send(get("/slow"))
        assert client.answer().body == b"slow"
        assert served.of(DeadlineMissed) == []


@on_both_loops
def test_a_deadline_set_after_the_answer_strikes_nobody(loop: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await answer(send, b"done")
        control = scope["extensions"]["sojourn"]
        control.set_timeout("handler", 0.2)
        control.set_timeout("stream_idle", 0.2)
        control.set_limit("body", 0)
        assert control.remaining is None or control.remaining > 1
        await asyncio.sleep(0.5)

    with serving(app, loop=loop) as served, served.connect() as client:
        client.send(get())
        assert client.answer().body == b"done"
        time.sleep(0.5)
        client.send(get())
        assert client.answer().body == b"done"
        assert served.of(DeadlineMissed) == []


@on_both_loops
@pytest.mark.parametrize("slot", ["response_start", "handler"])
@pytest.mark.parametrize("body", [b"", b"x" * 1000])
def test_after_a_504_the_connection_serves_on(body: bytes, slot: str, loop: str) -> None:
    cancelled: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await read_body(receive)
        if scope["path"] == "/slow":
            try:
                await asyncio.sleep(10)
            except asyncio.CancelledError as error:
                cancelled.append(str(error))
                with pytest.raises(OSError, match="connection has ended"):
                    await send({"type": "http.response.start", "status": 200})
                assert await receive() == {"type": "http.disconnect"}
                raise
        await answer(send, scope["path"].encode())

    config = settings(timeouts={slot: 0.25})
    with serving(app, config, loop) as served, served.connect() as client:
        client.send(get("/slow", method="POST", body=body) + get("/next"))
        late = client.answer()
        assert (late.status, late["content-type"]) == (504, "application/problem+json")
        assert late.all("connection") == []
        assert client.answer().body == b"/next"
        client.send(get("/again"))
        assert client.answer().body == b"/again"
        assert armed(served) == {"keep_alive"}
        reason = {"response_start": "response_start_timeout", "handler": "handler_deadline"}[slot]
        assert [(each.status, each.ending.reason) for each in served.of(RequestEnded)] == [
            (504, reason),
            (200, "completed"),
            (200, "completed"),
        ]
        assert cancelled == [reason]
        assert len(served.of(DeadlineMissed)) == 1
        assert served.of(ApplicationFailed) == served.of(TaskSurvived) == []


@on_both_loops
def test_a_504_that_the_client_said_close_to_ends_the_connection_once(loop: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(10)

    with serving(app, settings(timeouts={"response_start": 0.2}), loop) as served, served.connect() as client:
        client.send(get("/", "connection: close"))
        assert client.answer().status == 504
        assert client.closed()
        assert served.ended().ending.reason == "response_start_timeout"
        assert len(served.of(DeadlineMissed)) == 1


@on_both_loops
def test_a_head_that_is_held_back_does_not_satisfy_response_start(loop: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        await asyncio.sleep(10)

    with serving(app, settings(timeouts={"response_start": 0.2}), loop) as served, served.connect() as client:
        client.send(get())
        assert client.answer().status == 504


@on_both_loops
def test_a_handler_deadline_inside_an_answer_cuts_it(loop: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        while True:
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
            await asyncio.sleep(0.05)

    with serving(app, settings(timeouts={"handler": 0.3}), loop) as served, served.connect() as client:
        client.send(get())
        with pytest.raises(Cut):
            client.answer()
        assert served.ended().ending.reason == "handler_deadline"
        assert [(each.status, each.ending.reason) for each in served.of(RequestEnded)] == [(200, "handler_deadline")]
        assert len(served.of(DeadlineMissed)) == 1


@on_both_loops
def test_an_idle_connection_has_its_keep_alive_and_nothing_else(loop: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        body = await read_body(receive)
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": body, "more_body": True})
        await asyncio.sleep(0)
        await send({"type": "http.response.body"})

    config = settings(timeouts={"handler": 20, "body": 20, "stream_idle": 20}, limits={"requests": 5})
    with serving(app, config, loop) as served, served.connect() as client:
        for request in (
            get(),
            get("/", method="POST", body=b"x" * 200_000),
            get("/", "transfer-encoding: chunked", method="POST") + b"5\r\nhello\r\n0\r\n\r\n",
            get("/", "expect: 100-continue", method="POST", body=b"x"),
            get("/", method="HEAD"),
        ):
            client.send(request)
            client.answer("HEAD" if request.startswith(b"HEAD") else "GET")
            assert armed(served) == {"keep_alive"}


@on_both_loops
def test_an_idle_connection_is_closed_when_its_time_is_over(loop: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await answer(send, b"x")

    with serving(app, settings(timeouts={"keep_alive": 0.3}), loop) as served, served.connect() as client:
        client.send(get() + get())
        assert [client.answer().body for _ in range(2)] == [b"x"] * 2
        began = time.monotonic()
        assert client.closed()
        assert 0.2 < time.monotonic() - began < 8
        assert served.ended().ending.reason == "keep_alive_idle"


@on_both_loops
def test_a_finished_request_is_freed_without_the_collector(loop: str) -> None:
    alive: list[weakref.ref[Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        alive.append(weakref.ref(scope["extensions"]["sojourn"]))
        await read_body(receive)
        if scope["path"] == "/parts":
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
            await send({"type": "http.response.body"})
        else:
            await answer(send, b"x")

    with serving(app, loop=loop) as served, served.connect() as client:
        served.call(gc.disable)
        try:
            for path in ("/", "/parts") * 10:
                client.send(get(path, method="POST", body=b"x"))
                client.answer()
            client.send(get())
            client.answer()
            served.until(lambda: served.call(lambda: sum(each() is not None for each in alive)) <= 1)
        finally:
            served.call(gc.enable)


@on_both_loops
def test_a_request_that_ends_while_the_server_stops_says_close(loop: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await scope["extensions"]["sojourn"].draining.wait()
        await answer(send, b"goodbye")

    config = settings(drain={"requests": 8.0, "total": 10.0})
    with serving(app, config, loop) as served, served.connect() as client:
        client.send(get("/", "content-length: 5", method="POST"))
        time.sleep(0.05)
        served.call(served.server.stop)
        got = client.answer()
        assert (got.body, got["connection"]) == (b"goodbye", "close")
        assert client.closed()
        assert served.ended().ending.reason == "drain_goodbye"


@on_both_loops
def test_what_is_thrown_away_after_an_early_answer_does_not_keep_a_stopping_server(loop: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await answer(send, b"early")

    config = settings(timeouts={"linger": 5.0}, drain={"requests": 5.0, "sockets": 5.0, "total": 5.0})
    with serving(app, config, loop) as served, served.connect() as client:
        client.send(get("/", "content-length: 5", method="POST") + b"he")
        assert client.answer().body == b"early"
        served.call(served.server.stop)
        client.send(b"llo")
        assert client.closed()
