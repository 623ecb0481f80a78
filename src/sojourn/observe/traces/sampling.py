"""What needs no span, decided without asking OpenTelemetry: asking costs more than half of serving a small request."""

from __future__ import annotations

import re
from random import getrandbits
from typing import Final

from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import TraceIdRatioBased
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TracerProvider, TraceState

from sojourn.typing import Headers
from sojourn.wire.traceparent import parse_headers

__all__ = ["DrawnIds", "Sampling", "Unsampled"]

_PARENT_BASED: Final = re.compile(
    r"ParentBased\{root:(.+),remoteParentSampled:\w+,remoteParentNotSampled:AlwaysOffSampler,"
    r"localParentSampled:\w+,localParentNotSampled:\w+\}"
).fullmatch
_RATIO: Final = re.compile(r"TraceIdRatioBased\{([0-9.e-]+)\}").fullmatch
_LOW: Final = (1 << 64) - 1
_RANDOM: Final = TraceFlags(0x02)  # level 2: the trace id is random


class Sampling:
    """What a provider's sampler is known to decide; read from its description, whose form is specified.

    Args:
        provider: Whose sampler it is. An unknown one is asked for each request.

    Attributes:
        bound: A request without a caller's context is sampled when the low half of its trace id is less; None when the
            sampler has to be asked.
        follows: Whether what the caller does not sample is never sampled.
    """

    __slots__ = ("bound", "follows")

    def __init__(self, provider: TracerProvider) -> None:
        sampler = getattr(provider, "sampler", None)
        description = sampler.get_description() if sampler is not None else ""
        based = _PARENT_BASED(description)
        root = based[1] if based is not None else description
        self.follows = based is not None
        ratio = _RATIO(root)
        self.bound: int | None = None
        if root == "AlwaysOffSampler":
            self.bound = 0
        elif ratio is not None:
            self.bound = TraceIdRatioBased.get_bound_for_rate(float(ratio[1]))

    def draw(self) -> int:
        """A trace id for a request without a caller's context."""
        return getrandbits(128) or 1

    def drops(self, trace_id: int) -> bool:
        """Whether a request of that trace id, without a caller's context, is known not to be sampled."""
        return self.bound is not None and trace_id & _LOW >= self.bound


class DrawnIds(RandomIdGenerator):
    """Gives the next span without a parent the trace id that was drawn for it, so that its sampler decides the same.

    Attributes:
        drawn: The trace id; 0 for none, and then one is made.
    """

    drawn = 0

    def generate_trace_id(self) -> int:
        drawn, self.drawn = self.drawn, 0
        return drawn or super().generate_trace_id()


class Unsampled(NonRecordingSpan):
    """The span of a request that is not sampled. Its ids are worked out when somebody asks: most never are.

    Args:
        headers: Of the request, whose caller's context is passed on; None when it has none.
        trace_id: Its trace id when it has no caller's context.
    """

    def __init__(self, headers: Headers | None, trace_id: int = 0) -> None:
        self._headers = headers
        self._trace_id = trace_id
        self._made: SpanContext | None = None

    def get_span_context(self) -> SpanContext:
        if self._made is None:
            self._made = self._make()
        return self._made

    def _make(self) -> SpanContext:
        caller = parse_headers(self._headers) if self._headers is not None else None
        span_id = getrandbits(64) or 1
        if caller is None:
            return SpanContext(self._trace_id or getrandbits(128) or 1, span_id, False, _RANDOM)
        state = TraceState.from_header([caller.state]) if caller.state else None
        return SpanContext(int(caller.trace_id, 16), span_id, False, TraceFlags(caller.flags & 2), state)

    def __repr__(self) -> str:
        return f"Unsampled({self.get_span_context()!r})"
