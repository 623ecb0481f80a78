"""Spans of a real server: one for each request, with what the conventions name, and nothing for who is not sampled."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import fastapi
import httpx
import pytest
from opentelemetry import trace
from opentelemetry.baggage import get_baggage
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased
from opentelemetry.trace import SpanKind, StatusCode
from starlette.responses import StreamingResponse
from websockets.sync.client import connect

from sojourn.config import Traces as Settings
from sojourn.events import RequestEnded
from sojourn.observe.traces.traces import Traces
from tests.frameworks.serving import Site, served

TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED = {"traceparent": f"00-{TRACE}-{CALLER}-01", "tracestate": "vendor=1"}
UNSAMPLED = {"traceparent": f"00-{TRACE}-{CALLER}-00"}


class Traced:
    """A traced service and the spans that it has finished."""

    def __init__(self, site: Site, traces: Traces, exporter: InMemorySpanExporter) -> None:
        self.site = site
        self.traces = traces
        self.exporter = exporter

    def get(self, path: str, headers: dict[str, str] | None = None) -> httpx.Response:
        with httpx.Client(trust_env=False) as client:
            return client.get(self.site.url + path, headers=headers)

    def spans(self, count: int) -> list[ReadableSpan]:
        """Those that have ended, once there are so many."""
        deadline = time.monotonic() + 10
        while len(spans := self.exporter.get_finished_spans()) < count and time.monotonic() < deadline:
            time.sleep(0.005)
        assert len(spans) == count
        return list(spans)

    def call(self, function: Callable[[], Any]) -> Any:
        """Run something on the server's loop."""

        async def run() -> Any:
            return function()

        return asyncio.run_coroutine_threadsafe(run(), self.site.loop).result(10)


def application(tracer: trace.Tracer, left: threading.Event) -> fastapi.FastAPI:
    app = fastapi.FastAPI()

    @app.get("/items/{number}")
    async def item(number: int) -> dict[str, Any]:
        with tracer.start_as_current_span("load"):
            return {"number": number, "baggage": get_baggage("tenant")}

    @app.get("/broken")
    async def broken() -> None:
        raise ValueError("no such table")

    @app.get("/unavailable")
    async def unavailable() -> fastapi.Response:
        return fastapi.Response(status_code=503)

    @app.get("/slow")
    async def slow() -> None:
        try:
            await asyncio.sleep(30)
        finally:
            left.set()

    @app.get("/events")
    async def events() -> StreamingResponse:
        async def pieces() -> Any:
            for number in range(5):
                yield f"data: {number}\n\n"

        return StreamingResponse(pieces(), media_type="text/event-stream")

    @app.websocket("/chat/{room}")
    async def chat(websocket: fastapi.WebSocket, room: str) -> None:
        await websocket.accept()
        async for text in websocket.iter_text():
            trace.get_current_span().add_link(trace.SpanContext(7, 7, is_remote=True))
            await websocket.send_text(f"{room}: {text}")

    return app


@pytest.fixture
def traced() -> Iterator[Traced]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(sampler=ParentBased(ALWAYS_ON), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with ExitStack() as stack:
        app = application(provider.get_tracer("shop"), threading.Event())
        site = stack.enter_context(served(app, traces=Settings(enabled=False, events=4)))
        made = Traced(site, None, exporter)  # type: ignore[arg-type]
        made.traces = made.call(lambda: Traces(site.served.server.site, provider))
        yield made
        made.call(made.traces.close)


def test_a_request_is_one_span_with_the_names_of_the_conventions(traced: Traced) -> None:
    assert traced.get("/items/3?secret=1", {"user-agent": "curl/8"}).status_code == 200
    child, span = traced.spans(2)
    assert (child.name, span.name, span.kind) == ("load", "GET /items/{number}", SpanKind.SERVER)
    assert dict(span.attributes or {}) == {
        "http.request.method": "GET",
        "url.scheme": "http",
        "url.path": "/items/3",
        "http.route": "/items/{number}",
        "http.response.status_code": 200,
        "http.response.size": (span.attributes or {})["http.response.size"],
        "server.address": "127.0.0.1",
        "server.port": int(traced.site.url.rpartition(":")[2]),
        "client.address": "127.0.0.1",
        "network.protocol.name": "http",
        "network.protocol.version": "1.1",
        "user_agent.original": "curl/8",
        "sojourn.connection": 1,
        "sojourn.kind": "http",
        "sojourn.reason": "completed",
        "sojourn.phase": "response",
    }
    assert span.status.status_code is StatusCode.UNSET
    assert span.parent is None


def test_the_callers_context_is_the_parent_and_the_applications_spans_are_children(traced: Traced) -> None:
    answer = traced.get("/items/3", {**SAMPLED, "baggage": "tenant=blue"})
    assert answer.json()["baggage"] == "blue"
    child, span = traced.spans(2)
    assert span.parent is not None
    assert (f"{span.context.trace_id:032x}", f"{span.parent.span_id:016x}") == (TRACE, CALLER)
    assert span.context.trace_state.to_header() == "vendor=1"
    assert child.parent is not None
    assert child.parent.span_id == span.context.span_id


def test_what_the_caller_does_not_sample_makes_no_span_anywhere(traced: Traced) -> None:
    assert traced.get("/items/3", UNSAMPLED).status_code == 200
    assert traced.get("/items/4").status_code == 200
    assert [span.context.trace_id == int(TRACE, 16) for span in traced.spans(2)] == [False, False]


def test_nobody_observes_ends_while_no_sampled_span_is_open(traced: Traced) -> None:
    """`serving` observes all events itself, once: ours comes and goes."""
    observers = traced.site.served.server.bus.observers
    traced.get("/items/3")
    traced.spans(2)
    assert len(observers[RequestEnded]) == 1


def test_an_error_is_on_the_span_although_its_answer_was_sent_before(traced: Traced) -> None:
    assert traced.get("/broken").status_code == 500
    (span,) = traced.spans(1)
    assert span.status.status_code is StatusCode.ERROR
    assert (span.attributes or {})["error.type"] == "500"
    assert [(event.name, (event.attributes or {})["exception.message"]) for event in span.events] == [
        ("exception", "no such table")
    ]


def test_an_answer_of_500_and_more_is_an_error(traced: Traced) -> None:
    traced.get("/unavailable")
    (span,) = traced.spans(1)
    assert span.status.status_code is StatusCode.ERROR
    assert (span.attributes or {})["error.type"] == "503"


def test_a_client_that_leaves_is_named_and_is_no_error_of_the_server(traced: Traced) -> None:
    with pytest.raises(httpx.ReadTimeout), httpx.Client(trust_env=False, timeout=0.2) as client:
        client.get(traced.site.url + "/slow")
    (span,) = traced.spans(1)
    attributes = dict(span.attributes or {})
    assert attributes["http.response.status_code"] == 499
    assert attributes["error.type"] == attributes["sojourn.reason"] == "client_closed_request"
    assert attributes["sojourn.phase"] == "handler"
    assert span.status.status_code is StatusCode.UNSET


def test_a_websocket_is_one_span_with_its_first_messages_and_a_count_of_the_others(traced: Traced) -> None:
    with connect(f"{traced.site.websocket}/chat/a", additional_headers=SAMPLED, proxy=None) as websocket:
        for number in range(3):
            websocket.send(f"{number}")
            websocket.recv()
    (span,) = traced.spans(1)
    attributes = dict(span.attributes or {})
    assert span.name == "GET /chat/{room}"
    assert f"{span.context.trace_id:032x}" == TRACE
    assert attributes["http.response.status_code"] == 101
    assert attributes["sojourn.kind"] == "websocket"
    assert attributes["sojourn.reason"] == "ws_client_closed"
    assert [attributes[f"sojourn.{name}"] for name in ("messages.received", "messages.sent", "events.left_out")] == [
        3, 3, 2,
    ]  # fmt: skip
    assert [event.name for event in span.events] == ["websocket.accepted", *["message"] * 4]
    assert dict(span.events[2].attributes or {}) == {"message.direction": "sent", "message.size": 4}
    assert len(span.links) == 3  # the application's own


def test_an_event_stream_is_one_span_with_its_first_pieces(traced: Traced) -> None:
    assert traced.get("/events").text.count("data") == 5
    (span,) = traced.spans(1)
    attributes = dict(span.attributes or {})
    assert attributes["sojourn.kind"] == "event_stream"
    assert attributes["sojourn.messages.sent"] == 5
    assert attributes["sojourn.events.left_out"] == 1
    assert [event.name for event in span.events] == ["message"] * 4


def test_requests_on_one_connection_are_spans_of_their_own(traced: Traced) -> None:
    with httpx.Client(trust_env=False) as client:
        for number in range(3):
            client.get(f"{traced.site.url}/items/{number}")
    spans = [span for span in traced.spans(6) if span.kind is SpanKind.SERVER]
    assert [(span.attributes or {})["url.path"] for span in spans] == ["/items/0", "/items/1", "/items/2"]
    assert len({span.context.trace_id for span in spans}) == 3
    assert {(span.attributes or {})["sojourn.connection"] for span in spans} == {1}


def test_closed_it_steps_aside_and_ends_what_is_open(traced: Traced) -> None:
    server = traced.site.served.server
    with connect(f"{traced.site.websocket}/chat/a", proxy=None) as websocket:
        websocket.send("a")
        websocket.recv()
        traced.call(traced.traces.close)
        (span,) = traced.spans(1)
        websocket.send("still served")
        assert websocket.recv() == "a: still served"
    assert isinstance(server.site.app, fastapi.FastAPI)
    assert traced.get("/items/3").status_code == 200
    assert len([each for each in traced.spans(2) if each.kind is SpanKind.SERVER]) == 1
    assert "sojourn.reason" not in (span.attributes or {})


def test_the_log_hears_of_the_trace_of_every_request(traced: Traced) -> None:
    traced.get("/items/3")
    traced.get("/items/3", SAMPLED)
    with connect(f"{traced.site.websocket}/chat/a", proxy=None):
        pass
    spans = [span for span in traced.spans(5) if span.kind is SpanKind.SERVER]
    told = [event.trace_id for event in traced.site.served.of(RequestEnded)]
    assert told == [f"{span.context.trace_id:032x}" for span in spans]
    assert told[1] == TRACE
