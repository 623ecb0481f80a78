"""What a span says: names of the OpenTelemetry semantic conventions for HTTP spans."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from opentelemetry.trace import Span, Status, StatusCode
from opentelemetry.util.types import AttributeValue

from sojourn.ending import REASONS, Fault
from sojourn.events import RequestEnded
from sojourn.observe.methods import METHODS
from sojourn.typing import Scope

__all__ = ["Beginning", "finish", "method_of"]

_DEFAULT_PORTS: Final = {"http": 80, "https": 443, "ws": 80, "wss": 443}
_LONGEST: Final = 512
#: Whose fault makes the span an error. That a client left does not.
_ERRORS: Final = frozenset({Fault.APP, Fault.SERVER, Fault.OVERLOAD})


def method_of(scope: Scope) -> str:
    """The method as it may be a name: that of a WebSocket's handshake is GET, an unusual one ``_OTHER``."""
    method = scope.get("method", "GET")
    return method if method in METHODS else "_OTHER"


class Beginning(Mapping[str, AttributeValue]):
    """What is known when a request begins. Worked out when somebody looks: nobody does when the span is not sampled.

    Args:
        scope: Of the request.
        connection: Number of its connection.
    """

    __slots__ = ("_connection", "_made", "_scope")

    def __init__(self, scope: Scope, connection: int) -> None:
        self._scope = scope
        self._connection = connection
        self._made: dict[str, AttributeValue] | None = None

    def __getitem__(self, name: str) -> AttributeValue:
        return self._all()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def _all(self) -> dict[str, AttributeValue]:
        if self._made is None:
            self._made = _beginning(self._scope, self._connection)
        return self._made


def _beginning(scope: Scope, connection: int) -> dict[str, AttributeValue]:
    method, scheme = method_of(scope), scope["scheme"]
    headers = dict(scope["headers"])
    host = headers.get(b"host", b"").decode("latin-1")
    name, _, port = host.rpartition(":") if host[-1:] != "]" and ":" in host else (host, "", "")
    server = scope["server"]
    if not name and server is not None:
        name, port = server[0], server[1] or ""
    attributes: dict[str, AttributeValue] = {
        "http.request.method": method,
        "url.scheme": {"ws": "http", "wss": "https"}.get(scheme, scheme),
        "url.path": scope["path"][: 4 * _LONGEST],
        "server.address": name.strip("[]"),
        "network.protocol.name": "http",
        "network.protocol.version": scope["http_version"],
        "sojourn.connection": connection,
    }
    if method == "_OTHER":
        attributes["http.request.method_original"] = scope["method"]
    attributes["server.port"] = int(port) if str(port).isdecimal() else _DEFAULT_PORTS[scheme]
    client = scope["client"]
    if client is not None:
        attributes["client.address"] = client[0]
    agent = headers.get(b"user-agent")
    if agent:
        attributes["user_agent.original"] = agent[:_LONGEST].decode("utf-8", "backslashreplace")
    return attributes


def finish(span: Span, event: RequestEnded) -> None:
    """Write how it ended: name, status, reason."""
    ending = event.ending
    row = REASONS[ending.reason]
    method = event.method if event.method in METHODS else "GET" if event.kind == "websocket" else "HTTP"
    if event.route:
        span.update_name(f"{method} {event.route}")
        span.set_attribute("http.route", event.route)
    span.set_attributes(
        {
            "http.response.status_code": event.status,
            "http.response.size": event.bytes_out,
            "sojourn.kind": event.kind,
            "sojourn.reason": ending.reason,
            "sojourn.phase": ending.phase.name.lower(),
        }
    )
    if event.bytes_in:
        span.set_attribute("http.request.size", event.bytes_in)
    if row.fault is not Fault.NONE:
        span.set_attribute("error.type", ending.reason)
    elif event.status >= 500 and ending.reason == "completed":
        span.set_attribute("error.type", str(event.status))
    if row.fault in _ERRORS or event.status >= 500:
        span.set_status(Status(StatusCode.ERROR, ending.detail or None))
