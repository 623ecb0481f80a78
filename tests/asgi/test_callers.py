"""Deadlines that flow: from a caller's header into the request, and out as 504 when they are missed."""

from __future__ import annotations

import asyncio
import json
import time
from functools import partial
from typing import Any

import pytest

import sojourn
from sojourn.config import Config, Deadlines, Proxy
from sojourn.errors import EngineUnavailable, HubFull
from sojourn.events import ApplicationFailed, CallerDeadline, DeadlineMissed, RequestEnded, TaskSurvived
from tests.asgi.harness import answer, get, on_both_loops, serving, settings


async def budget_app(scope: Any, receive: Any, send: Any) -> None:
    """Answers with what is left, or waits, or misses a deadline of its own."""
    path = scope["path"]
    if path == "/wait":
        await asyncio.get_running_loop().create_future()
    if path == "/own":
        async with sojourn.deadline(0.03, "db.save"):
            await asyncio.get_running_loop().create_future()
    left = sojourn.remaining()
    await answer(send, b"none" if left is None else b"%f" % left)


def with_deadlines(config: Config | None = None, **deadlines: Any) -> Config:
    base = config or settings(timeouts={"response_start": 30.0})
    return Config(**{**_fields(base), "deadlines": Deadlines(**deadlines)})


def _fields(config: Config) -> dict[str, Any]:
    return {name: getattr(config, name) for name in config.__struct_fields__}


@on_both_loops
@pytest.mark.parametrize(
    "header", ["Request-Timeout-Ms: 5000", "grpc-timeout: 5000m", "X-Envoy-Expected-Rq-Timeout-Ms: 5000"]
)
def test_a_callers_deadline_is_what_the_application_has_left(loop: str, header: str) -> None:
    with serving(budget_app, with_deadlines(), loop=loop) as served:
        wire = served.connect()
        left = float(wire.send(get("/", header)).answer().body)
    assert 2.0 < left <= 5.01


@on_both_loops
def test_a_request_that_takes_longer_than_its_caller_waits_gets_504_that_names_the_header(loop: str) -> None:
    with serving(budget_app, with_deadlines(), loop=loop) as served:
        wire = served.connect()
        began = time.monotonic()
        late = wire.send(get("/wait", "Request-Timeout-Ms: 150")).answer()
        took = time.monotonic() - began
        after = wire.send(get("/")).answer()
    assert late.status == 504
    assert 0.14 <= took < 1.5
    problem = json.loads(late.body)
    assert (problem["reason"], problem["deadline"]) == ("caller_deadline", "request-timeout-ms")
    assert late["deadline-expired"] == "1"
    assert after.status == 200
    assert [event.deadline for event in served.of(DeadlineMissed)] == ["request-timeout-ms"]


def test_a_request_without_time_left_never_reaches_the_application() -> None:
    reached: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        reached.append(scope["path"])
        await answer(send, b"")

    with serving(app, with_deadlines()) as served:
        wire = served.connect()
        late = wire.send(get("/", "Request-Timeout-Ms: 0")).answer()
        assert wire.send(get("/next")).answer().status == 200
    assert late.status == 504
    assert json.loads(late.body)["reason"] == "caller_deadline_passed"
    assert late["deadline-expired"] == "1"
    assert reached == ["/next"]
    assert [event.outcome for event in served.of(CallerDeadline)] == ["refused"]


def test_a_caller_whose_requests_all_come_too_late_does_not_black_hole_the_service() -> None:
    with serving(budget_app, with_deadlines(reject_share=0.2)) as served:
        wire = served.connect()
        statuses = [wire.send(get("/", "Request-Timeout-Ms: 0")).answer().status for _ in range(50)]
    assert statuses.count(504) == 10
    assert statuses.count(200) == 40


def test_a_caller_can_only_tighten() -> None:
    config = with_deadlines(settings(timeouts={"handler": 0.5, "response_start": 30.0}))
    with serving(budget_app, config) as served:
        wire = served.connect()
        assert float(wire.send(get("/", "Request-Timeout-Ms: 60000")).answer().body) <= 0.51
        late = wire.send(get("/wait", "Request-Timeout-Ms: 60000")).answer()
    assert json.loads(late.body)["reason"] == "handler_deadline"


@pytest.mark.parametrize("header", ["Request-Timeout-Ms: soon", "grpc-timeout: 5", "Request-Timeout-Ms: -5"])
def test_a_header_that_can_not_be_read_bounds_nothing(header: str) -> None:
    with serving(budget_app, with_deadlines()) as served:
        wire = served.connect()
        assert float(wire.send(get("/", header)).answer().body) > 20


def test_who_is_not_trusted_is_not_believed() -> None:
    config = Config(**{**_fields(with_deadlines()), "proxy": Proxy(trusted=("10.1.2.3",))})
    with serving(budget_app, config) as served:
        wire = served.connect()
        assert float(wire.send(get("/", "Request-Timeout-Ms: 100")).answer().body) > 20


@pytest.mark.parametrize("how", [{"accept": False}, {"dark": True}])
def test_switched_off_or_dark_nobody_is_bound(how: dict[str, bool]) -> None:
    with serving(budget_app, with_deadlines(**how)) as served:
        wire = served.connect()
        assert float(wire.send(get("/", "Request-Timeout-Ms: 100")).answer().body) > 20
        assert wire.send(get("/", "Request-Timeout-Ms: 0")).answer().status == 200
    assert {event.outcome for event in served.of(CallerDeadline)} == ({"dark"} if "dark" in how else set())


def test_a_deadline_that_passes_in_the_queue_is_answered_and_never_begun() -> None:
    begun: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        begun.append(scope["path"])
        if scope["path"] == "/hold":
            await asyncio.sleep(0.8)
        await answer(send, b"")

    config = with_deadlines(settings(limits={"requests": 1, "queue": 5, "queue_wait": 5.0}))
    with serving(app, config) as served:
        holder, waiter = served.connect(), served.connect()
        holder.send(get("/hold"))
        served.until(lambda: begun)
        late = waiter.send(get("/late", "Request-Timeout-Ms: 100")).answer()
        assert holder.answer().status == 200
        assert waiter.send(get("/after")).answer().status == 200
    assert json.loads(late.body)["reason"] == "caller_deadline_passed"
    assert begun == ["/hold", "/after"]


@on_both_loops
def test_a_missed_deadline_of_the_application_that_nobody_catches_is_504_and_named(loop: str) -> None:
    with serving(budget_app, with_deadlines(), loop=loop) as served:
        wire = served.connect()
        late = wire.send(get("/own")).answer()
        assert wire.send(get("/")).answer().status == 200
    assert late.status == 504
    problem = json.loads(late.body)
    assert (problem["reason"], problem["deadline"]) == ("application_deadline", "db.save")
    assert served.of(RequestEnded)[0].ending.reason == "application_deadline"


def test_a_framework_that_answers_500_for_a_missed_deadline_answers_504() -> None:
    from fastapi import FastAPI
    from starlette.responses import StreamingResponse

    app = FastAPI()

    @app.get("/own")
    async def own() -> None:
        async with sojourn.deadline(0.02, "billing"):
            await asyncio.sleep(60)

    @app.get("/crash")
    async def crash() -> None:
        raise KeyError("mine")

    @app.get("/fine")
    async def fine() -> StreamingResponse:
        async def parts() -> Any:
            yield b"fine"

        return StreamingResponse(parts(), status_code=500)

    with serving(app, with_deadlines()) as served:
        wire = served.connect()
        late = wire.send(get("/own")).answer()
        assert late.status == 504
        assert json.loads(late.body)["deadline"] == "billing"
        assert wire.send(get("/fine")).answer().status == 500
        assert wire.send(get("/crash")).answer().status == 500


def test_budgets_of_dependencies_come_from_the_configuration_and_follow_it() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        async with sojourn.budget("cache", default=7.0):
            await answer(send, b"%f" % (sojourn.remaining() or -1.0))

    config = with_deadlines(budgets=("cache=50ms", "database=0.3"))
    with serving(app, config) as served:
        wire = served.connect()
        assert float(wire.send(get("/")).answer().body) <= 0.05
        served.call(lambda: served.server.site.adopt(with_deadlines(budgets=("cache=2s",))))
        assert 1 < float(wire.send(get("/")).answer().body) <= 2
        served.call(lambda: served.server.site.adopt(with_deadlines()))
        assert 6 < float(wire.send(get("/")).answer().body) <= 7


def test_a_task_that_ignores_its_deadline_is_an_event_of_the_server() -> None:
    release = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async with sojourn.deadline(0.05, "stubborn"):
            while not release.is_set():
                try:
                    await release.wait()
                except asyncio.CancelledError:
                    pass

    with serving(app, with_deadlines()) as served:
        wire = served.connect()
        wire.send(get("/"))
        survived = served.wait(TaskSurvived)
        served.call(release.set)
        assert wire.answer().status == 504
    survived = served.of(TaskSurvived)
    assert survived[0].cause.startswith("deadline 'stubborn'")
    assert [event.ended for event in survived] == [False, True]


def test_in_a_test_that_moves_the_clock_the_request_bounds_by_what_is_left_of_it() -> None:
    from sojourn.testing import MemoryServer

    async def main() -> bytes:
        async with MemoryServer(budget_app, settings(timeouts={"response_start": 30.0})) as server:
            client = server.connect()
            client.get("/")
            await server.settle()
            return client.response().body

    assert 20 < float(asyncio.run(main())) <= 31


async def refusing_app(scope: Any, receive: Any, send: Any) -> None:
    path = scope["path"]
    if path == "/open":
        raise sojourn.CircuitOpen("billing", "the circuit is open", 7.2)
    if path == "/full":
        raise sojourn.BulkheadFull("billing", "full")
    if path == "/denied":
        raise sojourn.AccessDenied("alice", "needs the role admin")
    if path == "/away":
        raise EngineUnavailable("no answer within 2 s", 3.5)
    if path == "/crowded":
        raise HubFull(300, 200)
    await answer(send, b"fine")


@pytest.mark.parametrize(
    ("path", "status", "reason", "retry"),
    [
        ("/open", 503, "guard_refused", "8"),
        ("/full", 503, "guard_refused", "1"),
        ("/denied", 403, "access_denied", ""),
        ("/away", 503, "hub_unavailable", "4"),
        ("/crowded", 503, "hub_full", "1"),
    ],
)
def test_what_a_guard_refuses_and_nobody_catches_is_no_crash(path: str, status: int, reason: str, retry: str) -> None:
    with serving(refusing_app, with_deadlines()) as served:
        wire = served.connect()
        refused = wire.send(get(path)).answer()
        if status != 503:
            assert wire.send(get("/")).answer().status == 200
    assert refused.status == status
    assert json.loads(refused.body)["reason"] == reason
    assert b"alice" not in refused.body
    assert refused.all("retry-after") == ([retry] if retry else [])
    assert served.of(ApplicationFailed) == []


def test_what_is_believed_of_callers_can_be_changed_while_serving() -> None:
    with serving(budget_app, with_deadlines()) as served:
        wire = served.connect()
        late = get("/", "Request-Timeout-Ms: 0")
        assert wire.send(late).answer().status == 504
        for change in ({"accept": False}, {"dark": True}, {"reject_share": 0.0}):
            served.call(partial(served.server.site.adopt, with_deadlines(**change)))
            assert wire.send(late).answer().status == 200, change
        served.call(partial(served.server.site.adopt, with_deadlines()))
        assert wire.send(late).answer().status == 504
