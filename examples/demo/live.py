"""What the page shows of the server: open connections with their next deadline, last endings, counters.

Everything is read from what the server keeps anyway. A request finds it through its scope::

    runtime = scope["extensions"]["sojourn"].connection.runtime
    runtime.registry  # the only list of connections; all counts are read from it
    runtime.bus  # delivers events to whoever observes them
"""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import Any, Final

from examples.demo.channels import MEASURING
from sojourn.ending import Ending
from sojourn.events import ConnectionEnded, RequestEnded
from sojourn.net.connection import Connection
from sojourn.net.registry import Registry
from sojourn.observe.connections import next_deadline
from sojourn.typing import Scope

__all__ = ["Live"]

_ROWS: Final = 50
_ENDINGS: Final = 12


class Live:
    """Reads the server that runs this application; empty under another one."""

    def __init__(self) -> None:
        self._requests: deque[RequestEnded] | None = None

    def follow(self, scope: Scope) -> None:
        """Remember how requests end, from the first one on. Connections are remembered by the registry."""
        control = scope.get("extensions", {}).get("sojourn")
        if self._requests is None and control is not None:
            self._requests = deque(maxlen=_ENDINGS)
            control.connection.runtime.bus.observe(RequestEnded, self._request_ended)

    def _request_ended(self, ended: RequestEnded) -> None:
        if self._requests is not None and ended.target != MEASURING.encode():
            self._requests.append(ended)

    def snapshot(self, scope: Scope) -> dict[str, Any] | None:
        """Everything the page shows; None when another server runs this."""
        control = scope.get("extensions", {}).get("sojourn")
        if control is None:
            return None
        registry: Registry = control.connection.runtime.registry
        measuring = {connection for connection in registry if connection.path == MEASURING}
        newest = (connection for connection in reversed(list(registry)) if connection not in measuring)
        endings = (ended for ended in reversed(registry.recent) if ended.path != MEASURING)
        return {
            "you": control.connection_id,
            "counters": {"accepted": registry.accepted, "open": len(registry), "ended": registry.ended},
            "reasons": dict(registry.ended_by.most_common()),
            "connections": [_connection(connection) for connection in islice(newest, _ROWS)],
            "measuring": len(measuring),
            "requests": [_request(ended) for ended in reversed(self._requests or ())],
            "endings": [_ended(ended) for ended in islice(endings, _ENDINGS)],
        }


def _connection(connection: Connection) -> dict[str, Any]:
    slot, due = next_deadline(connection)
    left = max(0.0, due - connection.runtime.ticker.now)
    return {
        "id": connection.id,
        "peer": connection.peer_name,
        "protocol": connection.handler.protocol if connection.handler is not None else "",
        "path": connection.path,
        "phase": connection.phase.name.lower(),
        "age": round(connection.age, 1),
        "deadline": {"slot": slot, "left": round(left, 1)} if slot else None,
        "bytes_in": connection.bytes_in,
        "bytes_out": connection.bytes_out,
        "requests": connection.requests,
        "buffered": connection.buffered,
    }


def _request(ended: RequestEnded) -> dict[str, Any]:
    return {
        "what": f"{ended.method} {ended.target.decode('latin-1')}",
        "connection": ended.connection,
        "status": ended.status,
        "duration": round(ended.duration, 4),
        **_ending(ended.ending),
    }


def _ended(ended: ConnectionEnded) -> dict[str, Any]:
    return {
        "what": " ".join(filter(None, (ended.protocol, ended.path))) or "no request came",
        "connection": ended.connection,
        "status": ended.ws_sent or ended.ws_received,
        "duration": round(ended.duration, 4),
        **_ending(ended.ending),
    }


def _ending(ending: Ending) -> dict[str, Any]:
    return {
        "code": ending.code,
        "reason": ending.reason,
        "who": ending.who.name.lower(),
        "phase": ending.phase.name.lower(),
        "how": ending.how.value if ending.how is not None else "",
        "advice": ending.row.advice,
    }
