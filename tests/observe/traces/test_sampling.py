"""What is not sampled costs next to nothing, and still passes on the context that it has."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from opentelemetry import propagate, trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    Decision,
    ParentBased,
    Sampler,
    SamplingResult,
    TraceIdRatioBased,
)

from sojourn.config import App, Config
from sojourn.events import RequestEnded
from sojourn.observe.traces.sampling import Sampling
from sojourn.observe.traces.traces import Traces
from sojourn.testing.server import MemoryServer

TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
UNSAMPLED = f"traceparent: 00-{TRACE}-{CALLER}-00"
SAMPLED = f"traceparent: 00-{TRACE}-{CALLER}-01"
HALF = TraceIdRatioBased.get_bound_for_rate(0.5)


def serve(sampler: Sampler, requests: Sequence[Sequence[str]]) -> tuple[list[dict[str, str]], list[ReadableSpan]]:
    """What each request would pass on to a service that it calls, and the spans."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    passed_on: list[dict[str, str]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        with provider.get_tracer("shop").start_as_current_span("call"):
            carrier: dict[str, str] = {}
            propagate.inject(carrier)
            passed_on.append(carrier)
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def main() -> None:
        async with MemoryServer(app, Config(app=App(lifespan="off"))) as server:
            traces = Traces(server.site, provider)
            observers = len(server.bus.observers[RequestEnded])
            client = server.connect()
            for headers in requests:
                client.get("/orders", *headers)
                await server.settle()
            assert len(server.bus.observers[RequestEnded]) == observers
            assert server.bus.failures == 0
            traces.close()

    asyncio.run(main())
    return passed_on, list(exporter.get_finished_spans())


def parts(carrier: dict[str, str]) -> tuple[str, str, str]:
    _, trace_id, span_id, flags = carrier["traceparent"].split("-")
    return trace_id, span_id, flags


def test_what_the_caller_does_not_sample_is_passed_on_unsampled_with_its_state() -> None:
    (carrier,), spans = serve(ParentBased(ALWAYS_ON), [(UNSAMPLED, "tracestate: vendor=1", "baggage: tenant=blue")])
    trace_id, span_id, flags = parts(carrier)
    assert (trace_id, int(flags, 16) & 1) == (TRACE, 0)
    assert span_id not in (CALLER, "0" * 16)
    assert carrier["tracestate"] == "vendor=1"
    assert carrier["baggage"] == "tenant=blue"
    assert spans == []


def test_a_ratio_is_decided_by_the_trace_id_so_that_all_services_decide_alike() -> None:
    passed_on, spans = serve(ParentBased(TraceIdRatioBased(0.5)), [()] * 200)
    sampled = {f"{span.context.trace_id:032x}" for span in spans}
    assert 50 < len(sampled) < 150
    for carrier in passed_on:
        trace_id, _, flags = parts(carrier)
        assert (trace_id in sampled) is bool(int(flags, 16) & 1) is ((int(trace_id, 16) & (2**64 - 1)) < HALF)
    assert len({carrier["traceparent"] for carrier in passed_on}) == 200


@pytest.mark.parametrize("sampler", [ALWAYS_OFF, ParentBased(ALWAYS_OFF), ParentBased(TraceIdRatioBased(0.0))])
def test_a_sampler_that_wants_nothing_gets_nothing(sampler: Sampler) -> None:
    passed_on, spans = serve(sampler, [(), ()])
    assert spans == []
    assert len({parts(carrier)[0] for carrier in passed_on}) == 2


@pytest.mark.parametrize(
    ("sampler", "spans"), [(ParentBased(ALWAYS_OFF), 2), (ALWAYS_OFF, 0), (TraceIdRatioBased(0.0), 0), (ALWAYS_ON, 2)]
)
def test_what_the_caller_samples_is_the_samplers_to_decide(sampler: Sampler, spans: int) -> None:
    assert len(serve(sampler, [(SAMPLED,)])[1]) == spans


def test_a_sampler_that_follows_nobody_is_asked_although_the_caller_does_not_sample() -> None:
    assert len(serve(ALWAYS_ON, [(UNSAMPLED,)])[1]) == 2


class OnlyOrders(Sampler):
    """Decides by an attribute, as samplers of applications do."""

    def should_sample(
        self, parent_context: Any, trace_id: int, name: str, kind: Any = None, attributes: Any = None, *rest: Any
    ) -> SamplingResult:
        wanted = attributes is not None and attributes.get("url.path") == "/orders"
        return SamplingResult(Decision.RECORD_AND_SAMPLE if wanted else Decision.DROP, attributes)

    def get_description(self) -> str:
        return "OnlyOrders"


def test_an_unknown_sampler_is_asked_with_the_attributes() -> None:
    _, spans = serve(OnlyOrders(), [(), (UNSAMPLED,)])
    assert [span.name for span in spans] == ["GET", "GET"]


@pytest.mark.parametrize(
    ("sampler", "bound", "follows"),
    [
        (ParentBased(TraceIdRatioBased(0.5)), HALF, True),
        (ParentBased(ALWAYS_OFF), 0, True),
        (ParentBased(ALWAYS_ON), None, True),
        (ParentBased(ALWAYS_ON, remote_parent_not_sampled=ALWAYS_ON), None, False),
        (TraceIdRatioBased(0.5), HALF, False),
        (ALWAYS_ON, None, False),
        (OnlyOrders(), None, False),
    ],
)
def test_only_what_is_known_for_sure_is_decided_here(sampler: Sampler, bound: int | None, follows: bool) -> None:
    sampling = Sampling(TracerProvider(sampler=sampler, shutdown_on_exit=False))
    assert (sampling.bound, sampling.follows) == (bound, follows)


def test_a_provider_without_a_sampler_decides_by_itself() -> None:
    sampling = Sampling(trace.NoOpTracerProvider())
    assert (sampling.bound, sampling.follows) == (None, False)
