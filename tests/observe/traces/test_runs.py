"""A span for each run of a durable task, in the trace of who started it."""

from __future__ import annotations

from contextvars import copy_context
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from sojourn.bus import Bus
from sojourn.events import TaskBegan, TaskEnded
from sojourn.observe.traces.runs import RunSpans

TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


class Bench:
    def __init__(self) -> None:
        self.bus = Bus()
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = provider.get_tracer("test")
        self.spans = RunSpans(self.bus, lambda: self.tracer)

    @property
    def done(self) -> tuple[Any, ...]:
        return self.exporter.get_finished_spans()


def began(traceparent: str = "", **more: Any) -> TaskBegan:
    return TaskBegan("export", "t1", 3, 2, 1, 0.5, traceparent, "node")._replace(**more)


def test_a_run_is_a_child_of_who_started_it_and_the_parent_of_what_it_does() -> None:
    bench = Bench()

    def runs() -> None:
        bench.bus.emit(began(f"00-{TRACE}-{CALLER}-01"))
        bench.tracer.start_span("query").end()

    copy_context().run(runs)
    assert not trace.get_current_span().get_span_context().is_valid, "nothing is left outside of the run"
    bench.bus.emit(TaskEnded("export", "t1", "completed", 2, 1.0, "", 3))
    query, run = bench.done
    assert (run.name, run.kind) == ("task export", SpanKind.CONSUMER)
    assert (f"{run.context.trace_id:032x}", f"{run.parent.span_id:016x}") == (TRACE, CALLER)
    assert query.parent.span_id == run.context.span_id
    assert run.attributes["messaging.message.id"] == "t1"
    assert run.attributes["messaging.destination.name"] == "export"
    assert (run.attributes["sojourn.task.attempt"], run.attributes["sojourn.task.state"]) == (2, "completed")
    assert run.status.status_code is StatusCode.UNSET
    assert bench.bus.failures == 0


@pytest.mark.parametrize("traceparent", ["", "nonsense", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", "\u20ac"])
def test_without_a_trace_of_who_started_it_a_run_begins_its_own(traceparent: str) -> None:
    bench = Bench()
    copy_context().run(bench.bus.emit, began(traceparent))
    bench.bus.emit(TaskEnded("export", "t1", "completed", 2, 1.0, "", 3))
    (run,) = bench.done
    assert run.parent is None
    assert bench.bus.failures == 0


def test_a_failure_is_an_error_with_its_type() -> None:
    bench = Bench()
    copy_context().run(bench.bus.emit, began())
    bench.bus.emit(TaskEnded("export", "t1", "retry", 2, 1.0, "OSError: full", 3, 4.0))
    (run,) = bench.done
    assert (run.status.status_code, run.status.description) == (StatusCode.ERROR, "OSError: full")
    assert run.attributes["error.type"] == "OSError"


def test_each_claim_has_its_own_span_and_what_is_open_at_the_end_is_ended() -> None:
    bench = Bench()
    for epoch in (3, 4):
        copy_context().run(bench.bus.emit, began(epoch=epoch))
    bench.bus.emit(TaskEnded("export", "t1", "handover", 2, 1.0, "", 3))
    bench.bus.emit(TaskEnded("export", "t1", "handover", 2, 1.0, "", 3))
    assert len(bench.done) == 1
    bench.spans.close()
    bench.spans.close()
    assert len(bench.done) == 2
    assert not bench.bus.wants(TaskBegan)
