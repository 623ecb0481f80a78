"""Spans for OpenTelemetry. See README.md."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sojourn.errors import ConfigError

if TYPE_CHECKING:
    from sojourn.asgi.site import Site
    from sojourn.observe.traces.traces import Traces

__all__ = ["open_traces"]


def open_traces(site: Site) -> Traces:
    """Trace what a site serves from now on.

    Raises:
        ConfigError: OpenTelemetry is not installed, or not the exporter that is asked for.
    """
    try:
        from sojourn.observe.traces.traces import Traces
    except ImportError as error:
        message = f"needs OpenTelemetry ({error}): pip install 'sojourn[traces]'"
        raise ConfigError(message, key="traces.enabled") from error
    return Traces(site)
