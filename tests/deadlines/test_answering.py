"""An application that keeps its client waiting, and a client that leaves before it has its answer."""

from __future__ import annotations

import asyncio
import time

import pytest

import sojourn
from sojourn.config import Limits, Route, Timeouts
from sojourn.ending import How, Phase
from sojourn.events import TaskSurvived
from sojourn.testing import Outcome
from sojourn.typing import Receive, Scope, Send
from tests.deadlines.serving import app_of, hello, on_asyncio, on_uvloop, problem_of, serving


class Sleeper:
    """Sleeps before its answer, and remembers how that ended."""

    def __init__(
        self, seconds: float = 60.0, *, head_first: bool = False, headers: tuple[tuple[bytes, bytes], ...] = ()
    ) -> None:
        self.seconds = seconds
        self.head_first = head_first
        self.headers = list(headers)
        self.log: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        if scope["path"] == "/hello":
            await hello(scope, receive, send)
            return
        try:
            if self.head_first:
                await send({"type": "http.response.start", "status": 200, "headers": self.headers})
                await send({"type": "http.response.body", "body": b"first", "more_body": True})
            await asyncio.sleep(self.seconds)
            if not self.head_first:
                await send({"type": "http.response.start", "status": 200, "headers": self.headers})
            await send({"type": "http.response.body", "body": b"last"})
        except asyncio.CancelledError as error:
            self.log.append(f"cancelled: {error}")
            raise
        except OSError:
            self.log.append("send raised")
            raise


@pytest.mark.parametrize(
    ("name", "reason"), [("response_start", "response_start_timeout"), ("handler", "handler_deadline")]
)
@on_uvloop
async def test_an_answer_that_does_not_begin_becomes_a_504_and_its_task_is_cancelled(name: str, reason: str) -> None:
    app = Sleeper()
    async with serving(app, timeouts=Timeouts(**{name: 0.4})) as s, await s.client() as client:
        began = time.monotonic()
        await client.get()
        answer = await client.response()
        assert 0.4 <= time.monotonic() - began < 5.0
        document = problem_of(answer)
        assert (answer.status, document["deadline"], document["reason"]) == (504, name, reason)
        s.request_ended(reason, 504)
        assert s.missed(name).seconds == 0.4
        await s.until(lambda: app.log)
        assert app.log == [f"cancelled: {reason}"]
        await client.get("/hello")  # the connection itself is sound
        assert (await client.response()).body == b"hello"


@on_uvloop
async def test_a_head_that_is_held_back_counts_as_no_answer() -> None:
    @app_of
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await asyncio.sleep(60)

    async with serving(app, timeouts=Timeouts(response_start=0.3)) as s, await s.client() as client:
        await client.get()
        assert problem_of(await client.response())["deadline"] == "response_start"


@on_uvloop
async def test_an_answer_cut_by_the_handler_deadline_never_looks_complete_whatever_its_framing() -> None:
    async def scene(version: bytes, *headers: tuple[bytes, bytes]) -> None:
        app = Sleeper(head_first=True, headers=headers)
        async with serving(app, timeouts=Timeouts(handler=0.4)) as s, await s.client() as client:
            await client.send(b"GET / HTTP/%b\r\nhost: test\r\n\r\n" % version)
            answer = await client.response()
            assert answer.outcome is Outcome.RESET
            ended = await s.ended("handler_deadline", "handler")
            assert (ended.ending.phase, ended.ending.how) == (Phase.RESPONSE, How.TIMEOUT)
            s.request_ended("handler_deadline", 200)
            await s.until(lambda: app.log)
            assert app.log == ["cancelled: handler_deadline"]

    length = (b"content-length", b"9")
    await asyncio.gather(scene(b"1.1"), scene(b"1.0"), scene(b"1.1", length), scene(b"1.0", length))


@on_asyncio
async def test_a_cut_answer_never_looks_complete_on_asyncio_either() -> None:
    async with serving(Sleeper(head_first=True), timeouts=Timeouts(handler=0.3)) as s, await s.client() as client:
        await client.send(b"GET / HTTP/1.0\r\n\r\n")  # the end of the connection is the end of the body
        assert (await client.response()).outcome is Outcome.RESET


@on_uvloop
async def test_a_crash_inside_an_answer_never_looks_complete() -> None:
    @app_of
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise ValueError("a bug")

    async with serving(app) as s, await s.client() as client:
        await client.send(b"GET / HTTP/1.0\r\n\r\n")
        assert (await client.response()).outcome is Outcome.RESET
        await s.ended("error_after_starting_response")


@on_uvloop
async def test_a_stream_without_a_byte_is_cut_after_stream_idle() -> None:
    async with serving(Sleeper(head_first=True), timeouts=Timeouts(stream_idle=0.4)) as s, await s.client() as client:
        await client.get()
        answer = await client.response()
        assert (answer.outcome, answer.body) == (Outcome.RESET, b"first")
        await s.ended("stream_idle", "stream_idle")
        s.request_ended("stream_idle", 200)


@on_uvloop
async def test_a_stream_that_moves_lives_longer_than_stream_idle() -> None:
    @app_of
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(8):
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
            await asyncio.sleep(0.12)
        await send({"type": "http.response.body"})

    async with serving(app, timeouts=Timeouts(stream_idle=0.5, response_start=0.5)) as s, await s.client() as client:
        await client.get()
        answer = await client.response()
        assert (answer.complete, answer.body) == (True, b"x" * 8)


@on_uvloop
async def test_a_request_waits_for_its_turn_no_longer_than_queue_wait() -> None:
    limits = Limits(requests=1, queue=5, queue_wait=0.4)
    async with serving(Sleeper(1.5), limits=limits) as s, await s.client() as first, await s.client() as second:
        await first.get()
        await s.until(lambda: len(s.server.runtime.registry) == 2)
        await second.get()
        answer = await second.response()
        assert (answer.status, problem_of(answer)["reason"], answer.header("retry-after")) == (
            503,
            "queue_timeout",
            "1",
        )
        s.missed("queue_wait")
        assert (await first.response()).status == 200


# --- settings of its own


@on_uvloop
async def test_a_route_has_its_own_deadlines_and_the_others_keep_theirs() -> None:
    app = Sleeper(1.3)
    routes = (
        Route(path="/quick/*", timeouts={"response_start": 0.3}),
        Route(path="/quick", methods=("POST",), timeouts={"handler": 0.3}),
        Route(path="/patient", timeouts={"response_start": "none"}),
    )
    async with serving(app, timeouts=Timeouts(response_start=0.6), routes=routes) as s:

        async def ask(method: str, path: str) -> object:
            async with await s.client() as client:
                await client.get(path, method=method)
                answer = await client.response()
                return problem_of(answer)["deadline"] if answer.status == 504 else answer.status

        asked = [("GET", "/quick/1"), ("POST", "/quick"), ("GET", "/quick"), ("GET", "/patient")]
        answers = dict(zip(asked, await asyncio.gather(*[ask(*each) for each in asked]), strict=True))
        assert answers == {
            ("GET", "/quick/1"): "response_start",
            ("POST", "/quick"): "handler",
            ("GET", "/quick"): "response_start",
            ("GET", "/patient"): 200,
        }


@on_uvloop
async def test_the_decorator_gives_an_endpoint_its_own_deadline() -> None:
    @app_of
    @sojourn.timeouts(handler=0.4, response_start=None)
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(60)

    async with serving(app, timeouts=Timeouts(response_start=20.0)) as s, await s.client() as client:
        await client.get()
        assert problem_of(await client.response())["deadline"] == "handler"
        assert s.missed("handler").seconds == 0.4


@on_uvloop
async def test_the_scope_extension_gives_a_request_its_own_deadlines() -> None:
    seen: list[float | None] = []

    @app_of
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        request = scope["extensions"]["sojourn"]
        seen.append(request.remaining)
        request.set_timeout("response_start", 0.4)
        seen.append(request.remaining)
        await asyncio.sleep(60)

    async with serving(app, timeouts=Timeouts(response_start=20.0)) as s, await s.client() as client:
        await client.get()
        assert problem_of(await client.response())["deadline"] == "response_start"
        assert seen == pytest.approx([20.0, 0.4], abs=0.2)


@on_uvloop
async def test_an_extension_in_the_middle_of_a_request_can_prolong_it() -> None:
    @app_of
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        request = sojourn.current_request()
        assert request is not None
        for _ in range(4):
            request.set_timeout("handler", 0.6)
            await asyncio.sleep(0.25)
        await hello(scope, receive, send)

    async with serving(app, timeouts=Timeouts(handler=0.5)) as s, await s.client() as client:
        await client.get()
        assert (await client.response()).status == 200


# --- the client leaves


@pytest.mark.parametrize("how", ["close", "reset"])
@on_uvloop
async def test_an_application_whose_client_left_is_told_and_then_cancelled(how: str) -> None:
    log: list[object] = []

    @app_of
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        log.append((await receive())["type"])
        began = time.monotonic()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            log.append(time.monotonic() - began)
            raise

    async with serving(app, timeouts=Timeouts(disconnect_grace=0.4)) as s, await s.client() as client:
        await client.get()
        await s.until(lambda: s.server.runtime.registry.get(1) and s.server.runtime.registry.get(1).requests)
        getattr(client, how)()
        await s.until(lambda: len(log) == 2)
        told, seconds = log
        assert told == "http.disconnect"
        assert isinstance(seconds, float)
        assert 0.2 <= seconds < 5.0
        ended = await s.ended("client_reset" if how == "reset" else "client_closed_request")
        assert ended.ending.phase is Phase.HANDLER
        s.request_ended(ended.ending.reason, 499)


@on_uvloop
async def test_an_application_that_ends_within_the_grace_is_not_cancelled() -> None:
    log: list[str] = []

    @app_of
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        await asyncio.sleep(0.3)
        log.append("saved")

    async with serving(app, timeouts=Timeouts(disconnect_grace=2.0)) as s, await s.client() as client:
        await client.get()
        await s.until(lambda: s.seen(sojourn.events.ConnectionOpened))
        client.reset()
        await s.until(lambda: log)
        await s.until(lambda: not s.server.work.running)
        assert s.seen(TaskSurvived) == []
