"""A span for each run of a durable task, in the trace of who started it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.util.types import AttributeValue

from sojourn.bus import Bus
from sojourn.events import TaskBegan, TaskEnded
from sojourn.wire.traceparent import parse

__all__ = ["RunSpans"]

#: Spans that are open; of more no span is made: their ends were never told.
_MOST: Final = 10_000
_LONGEST: Final = 512


class RunSpans:
    """Makes the spans. A run tells of itself in its own context, so its span becomes the current one there.

    Args:
        bus: Where the events come from.
        tracer: Gives the tracer, asked for each span: an application may set up its provider late.
    """

    def __init__(self, bus: Bus, tracer: Callable[[], trace.Tracer]) -> None:
        self._tracer = tracer
        #: By id and epoch of the task.
        self._open: dict[tuple[str, int], Span] = {}
        self._forget = (bus.observe(TaskBegan, self._began), bus.observe(TaskEnded, self._ended))

    def close(self) -> None:
        """End what is open, and make no more. Idempotent."""
        for forget in self._forget:
            forget()
        for span in self._open.values():
            span.end()
        self._open.clear()

    def _began(self, event: TaskBegan) -> None:
        parent = _parent(event.trace)
        span = self._tracer().start_span(f"task {event.kind}", parent, SpanKind.CONSUMER, _beginning(event))
        # Never detached: the context is this run's own, and ends with its task.
        contexts.attach(trace.set_span_in_context(span, parent))
        if span.is_recording() and len(self._open) < _MOST:
            self._open[event.id, event.epoch] = span

    def _ended(self, event: TaskEnded) -> None:
        span = self._open.pop((event.id, event.epoch), None)
        if span is None:
            return
        span.set_attribute("sojourn.task.state", event.state)
        if event.problem:
            span.set_attribute("error.type", event.problem.partition(":")[0][:_LONGEST])
            span.set_status(Status(StatusCode.ERROR, event.problem[:_LONGEST]))
        span.end()


def _beginning(event: TaskBegan) -> dict[str, AttributeValue]:
    """Names of the semantic conventions for messaging, as far as they fit."""
    return {
        "messaging.system": "sojourn",
        "messaging.operation.type": "process",
        "messaging.destination.name": event.kind,
        "messaging.message.id": event.id,
        "sojourn.task.attempt": event.attempt,
        "sojourn.task.interruptions": event.interruptions,
        "sojourn.task.waited": event.waited,
        "sojourn.node": event.node,
    }


def _parent(traceparent: str) -> Context:
    """The context of who started the task; the empty one when nobody traced that."""
    caller = parse(traceparent.encode("ascii", "replace")) if traceparent else None
    if caller is None:
        return Context()
    flags = TraceFlags(caller.flags & 3)
    remote = SpanContext(int(caller.trace_id, 16), int(caller.span_id, 16), True, flags)
    return trace.set_span_in_context(NonRecordingSpan(remote), Context())
