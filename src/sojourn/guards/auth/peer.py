"""Who is at the other end of the connection."""

from __future__ import annotations

from sojourn.asgi.control import RequestControl
from sojourn.policy.trust import UNIX
from sojourn.typing import Scope

__all__ = ["control_of", "peer_of"]


def control_of(scope: Scope) -> RequestControl | None:
    """The server's side of a request; None under another server."""
    control = scope.get("extensions", {}).get("sojourn")
    return control if isinstance(control, RequestControl) else None


def peer_of(scope: Scope) -> str:
    """Address of who is connected to us, which behind a proxy is the proxy; ``unix`` without one.

    ``scope["client"]`` is whom a trusted proxy speaks for. Another server may have put that in its place: then a proxy
    is not recognized, and not believed.
    """
    control = control_of(scope)
    peer = control.connection.peer if control is not None else scope.get("client")
    return peer[0] if peer else UNIX
