"""Where a task comes from: who acts as it is started, and under which trace."""

from __future__ import annotations

import sys

from sojourn.asgi.site import CURRENT
from sojourn.scopes.context import SecurityContext, entered, security
from sojourn.tasks.spec import Actor
from sojourn.wire.traceparent import parse_headers

__all__ = ["actor", "owner_here", "trace"]


def owner_here() -> str:
    """Who acts here, by :attr:`SecurityContext.qualified`; "" for nobody.

    Raises:
        SecurityContextError: One whose time is over.
    """
    context = _who()
    return "" if context is None else context.qualified


def actor() -> Actor | None:
    """Who acts here, without what is secret; None for nobody.

    Raises:
        SecurityContextError: One whose time is over.
    """
    context = _who()
    if context is None:
        return None
    return Actor(context.principal, tuple(sorted(context.roles)), context.tenant, context.authn, context.policy_version)


def trace() -> str:
    """The ``traceparent`` of what is done here; "" for none."""
    telemetry = sys.modules.get("opentelemetry.trace")
    if telemetry is not None:
        span = telemetry.get_current_span().get_span_context()
        if span.is_valid:
            return f"00-{span.trace_id:032x}-{span.span_id:016x}-{span.trace_flags & 0xFF:02x}"
    request = CURRENT.get(None)
    scope = getattr(request, "scope", None)
    found = parse_headers(scope["headers"]) if scope else None
    return "" if found is None else found.traceparent.decode()


def _who() -> SecurityContext | None:
    return security() if entered() is not None else None
