"""Where spans go: to the provider the application has set up, or else to one made from the OTEL_* variables."""

from __future__ import annotations

import os
from typing import Final

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter

from sojourn.errors import ConfigError

__all__ = ["Provider"]

#: Milliseconds for the last spans when the server ends.
_FAREWELL: Final = 2000


class Provider:
    """Finds or makes the provider of spans.

    An exporter is made before the application starts, because its imports take a moment and may fail; it begins to work
    only when the application has set up nothing itself.

    Raises:
        ConfigError: ``OTEL_TRACES_EXPORTER`` names an exporter that is not known or not installed.
    """

    def __init__(self) -> None:
        self._exporter = None if self.is_set else _exporter(os.environ.get("OTEL_TRACES_EXPORTER", "otlp"))
        self._own: TracerProvider | None = None

    @property
    def is_set(self) -> bool:
        """Whether somebody has set up the process's provider."""
        return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)

    def ensure(self) -> None:
        """The application has started: if it has set up nothing, our exporter gets its spans and the server's."""
        if self._exporter is None or self._own is not None or self.is_set:
            return
        self._own = TracerProvider(shutdown_on_exit=False)  # service.name and the sampler: OTEL_* variables
        self._own.add_span_processor(BatchSpanProcessor(self._exporter))
        trace.set_tracer_provider(self._own)

    def close(self) -> None:
        """Hand the last spans on, for two seconds at most. An application's own provider is left to it."""
        if self._own is not None:
            self._own.force_flush(_FAREWELL)


def _exporter(name: str) -> SpanExporter | None:
    if name == "none":
        return None
    if name == "console":
        return ConsoleSpanExporter()
    if name != "otlp":
        raise ConfigError(
            f"OTEL_TRACES_EXPORTER is {name!r}; there are otlp, console and none (the application sets up its own)",
            key="traces.enabled",
        )
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError as error:
        message = (
            "needs opentelemetry-exporter-otlp-proto-http, or OTEL_TRACES_EXPORTER=none and a provider of your own"
        )
        raise ConfigError(message, key="traces.enabled") from error
    return OTLPSpanExporter()
