"""One span for each request, from the application's start to the end of the answer; and one for each durable run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context
from opentelemetry.sdk.trace import Tracer as SdkTracer
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, SpanKind, TraceFlags, TraceState

from sojourn.asgi.site import Site
from sojourn.events import RequestEnded, ServerStarted
from sojourn.observe.traces.attributes import Beginning, finish, method_of
from sojourn.observe.traces.messages import Messages
from sojourn.observe.traces.provider import Provider
from sojourn.observe.traces.runs import RunSpans
from sojourn.observe.traces.sampling import DrawnIds, Sampling, Unsampled
from sojourn.typing import Headers, Receive, Scope, Send
from sojourn.wire.traceparent import is_unsampled, parse_headers

__all__ = ["Traces"]

_SCHEMA: Final = "https://opentelemetry.io/schemas/1.29.0"
_ROOT: Final = Context()
_BAGGAGE: Final = W3CBaggagePropagator()


class Traces:
    """Stands before the application of a site and makes the spans.

    Args:
        site: What is traced, from now on until ``close``.
        provider: Where the spans go; None for the process's provider, which is made when the application made none.

    Raises:
        ConfigError: An exporter is asked for that is not there.
    """

    def __init__(self, site: Site, provider: trace.TracerProvider | None = None) -> None:
        self._site = site
        self._provider = Provider() if provider is None else None
        self._ids = DrawnIds()
        self._find_tracer(provider or trace.get_tracer_provider())
        self._limit = site.config.traces.events
        #: Spans that are sampled and open, by connection: each has one request in hand.
        self._open: dict[int, _Open] = {}
        self._forget: Callable[[], None] | None = None
        self._forget_start = site.runtime.bus.observe(ServerStarted, self._started)
        self._runs = RunSpans(site.runtime.bus, lambda: self._tracer)
        self._app = site.app
        self._standing = self._serve
        site.app = self._standing

    def close(self) -> None:
        """Step aside, end what is open and hand the last spans on, for two seconds at most. Idempotent."""
        if self._site.app == self._standing:
            self._site.app = self._app
        self._forget_start()
        self._runs.close()
        for each in self._open.values():
            each.span.end()
        self._open.clear()
        self._listen()
        if self._provider is not None:
            self._provider.close()

    def _started(self, event: ServerStarted) -> None:
        """The application has had its chance to set up a provider."""
        if self._provider is not None:
            self._provider.ensure()
            self._find_tracer(trace.get_tracer_provider())

    def _find_tracer(self, provider: trace.TracerProvider) -> None:
        self._tracer = tracer = trace.get_tracer("sojourn", tracer_provider=provider, schema_url=_SCHEMA)
        self._sampling = Sampling(provider)
        if isinstance(tracer, SdkTracer):
            tracer.id_generator = self._ids  # of this tracer, which is ours alone

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        site = self._site
        if scope["type"] == "lifespan" or (site.probes is not None and site.probes.asked(scope)):
            await self._app(scope, receive, send)
            return
        span = self._span(scope)
        if span is None:
            await self._app(scope, receive, send)
            return
        number = scope["extensions"]["sojourn"].connection_id
        self._open[number] = each = _Open(span)
        self._listen()
        messages = Messages(span, receive, send, self._limit)
        each.messages = messages
        try:
            await self._app(scope, messages.receive, messages.send)
        except Exception as error:
            # Recorded while the span is open; an error because the client left comes when it has ended.
            span.record_exception(error)
            raise
        finally:
            each.returned = True
            if each.over:
                span.end()

    def _span(self, scope: Scope) -> Span | None:
        """Make the span of a request the current one.

        Returns:
            The span; None when it is not sampled.
        """
        control, headers = scope["extensions"]["sojourn"], scope["headers"]
        sampling, sent = self._sampling, dict(headers).get
        caller = sent(b"traceparent")
        context = _ROOT
        span: Span | None = None
        if caller is None:
            self._ids.drawn = drawn = sampling.draw()
            if sampling.drops(drawn):
                span = Unsampled(None, drawn)
                _tell(control, drawn)
        elif sampling.follows and is_unsampled(caller):
            span = Unsampled(headers)  # the log reads its trace id from the header
        if span is None:
            context = _parent(headers)
            number = control.connection_id
            span = self._tracer.start_span(method_of(scope), context, SpanKind.SERVER, Beginning(scope, number))
            _tell(control, span.get_span_context().trace_id)
        self._ids.drawn = 0
        baggage = sent(b"baggage")
        if baggage is not None:
            context = _BAGGAGE.extract({"baggage": baggage.decode("latin-1")}, context)
        # Never detached: the context is this request's own, and ends with its task.
        contexts.attach(trace.set_span_in_context(span, context))
        return span if span.is_recording() else None

    def _ended(self, event: RequestEnded) -> None:
        each = self._open.pop(event.connection, None)
        if each is None:
            return
        finish(each.span, event)
        if each.messages is not None:
            each.messages.finish()
        if event.status >= 500 and not each.returned:
            each.over = True  # frameworks answer with 500 first and raise the error then: it belongs to the span
        else:
            each.span.end()
        self._listen()

    def _listen(self) -> None:
        """Be told of ends as long as a span is open: without one, no event is made for us."""
        if self._open and self._forget is None:
            self._forget = self._site.runtime.bus.observe(RequestEnded, self._ended)
        elif not self._open and self._forget is not None:
            self._forget()
            self._forget = None


class _Open:
    """A span that is open.

    Attributes:
        span: The span.
        messages: What passes on it; None before the application runs.
        returned: Whether the application has returned.
        over: Whether the request has ended, and the span ends when the application returns.
    """

    __slots__ = ("messages", "over", "returned", "span")

    def __init__(self, span: Span) -> None:
        self.span = span
        self.messages: Messages | None = None
        self.returned = False
        self.over = False


def _tell(control: Any, trace_id: int) -> None:
    """Let the log know."""
    if trace_id:
        control.trace_id = f"{trace_id:032x}"


def _parent(headers: Headers) -> Context:
    """The context that a request brings; the empty one when it brings none."""
    caller = parse_headers(headers)
    if caller is None:
        return _ROOT
    state = TraceState.from_header([caller.state]) if caller.state else None
    flags = TraceFlags(caller.flags & 3)
    remote = SpanContext(int(caller.trace_id, 16), int(caller.span_id, 16), True, flags, state)
    return trace.set_span_in_context(NonRecordingSpan(remote), _ROOT)
