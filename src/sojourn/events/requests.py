"""Requests: their ends, their limits, and what an application did to them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sojourn.ending import Ending

__all__ = ["ApplicationFailed", "CallerDeadline", "DeadlineMissed", "RequestEnded", "RequestLimited"]


class RequestEnded(NamedTuple):
    """A request ended: its answer is complete, or never will be. A WebSocket: it closed, or its handshake was refused.

    What most observers never ask for is kept as it came and worked out by a property.

    Attributes:
        connection: Id of its connection.
        client: Host and port of the client; None for a Unix socket.
        method: Request method; ``WEBSOCKET`` for a WebSocket.
        target: Raw path with query, as received.
        version: ``1.0`` or ``1.1``.
        status: Status sent; the reason's status (such as 499) when none was.
        ending: The first cause.
        duration: Seconds from the end of the head to the end of the answer.
        bytes_in: Body bytes received.
        bytes_out: Bytes of head and body sent.
        headers: The request's headers, as ASGI has them.
        kind: ``http``, ``event_stream`` (an answer of server-sent events) or ``websocket``.
        route: The pattern that the application's router matched, such as ``/items/{id}``; "" when it does not say.
        trace_id: Trace id that tracing gave it (W3C Trace Context), 32 hex digits; "" without tracing.
    """

    connection: int
    client: tuple[str, int] | None
    method: str
    target: bytes
    version: str
    status: int
    ending: Ending
    duration: float
    bytes_in: int
    bytes_out: int
    headers: Sequence[tuple[bytes, bytes]]
    kind: str = "http"
    route: str = ""
    trace_id: str = ""

    @property
    def peer(self) -> str:
        """The client as ``host:port``; ``unix`` for a Unix socket."""
        return f"{self.client[0]}:{self.client[1]}" if self.client is not None else "unix"

    def header(self, name: bytes) -> bytes:
        """The last value of a request header, b"" when absent."""
        value = b""
        for key, found in self.headers:
            if key == name:
                value = found
        return value


class RequestLimited(NamedTuple):
    """A request was refused because ``quotas`` allow no more; they would in ``retry_after`` seconds."""

    connection: int
    client: str
    path: str
    quotas: tuple[str, ...]
    retry_after: float


class DeadlineMissed(NamedTuple):
    """An armed deadline passed and ended a request or connection."""

    connection: int
    deadline: str
    seconds: float
    path: str


class CallerDeadline(NamedTuple):
    """A request came with a deadline of its caller.

    Attributes:
        connection: Its connection.
        header: Which header said so.
        seconds: How long the caller waits; 0.0 for no longer.
        outcome: ``bound``; ``refused``, because nothing was left; ``let_through``, because too many were refused; or
            ``dark``, because deadlines are only counted.
    """

    connection: int
    header: str
    seconds: float
    outcome: str


class ApplicationFailed(NamedTuple):
    """The application raised or broke the ASGI contract; the server goes on."""

    connection: int
    method: str
    path: str
    reason: str
    error: BaseException
