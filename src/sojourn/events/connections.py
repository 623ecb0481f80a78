"""Connections: they open, grow old and end, and accepting them pauses."""

from __future__ import annotations

from typing import NamedTuple

from sojourn.ending import Ending

__all__ = ["AcceptPaused", "AcceptResumed", "ConnectionEnded", "ConnectionGrewOld", "ConnectionOpened"]


class ConnectionOpened(NamedTuple):
    """A socket was accepted and registered."""

    connection: int
    peer: str
    listener: str


class ConnectionGrewOld(NamedTuple):
    """A connection has lived for ``log.long_connection`` seconds; it will be logged again when it ends."""

    connection: int
    peer: str
    protocol: str
    path: str
    age: float
    bytes_in: int
    bytes_out: int


class ConnectionEnded(NamedTuple):
    """A connection left the registry. Exactly one per ConnectionOpened.

    Attributes:
        connection: Its id.
        peer: ``address:port`` of the client, after PROXY protocol.
        protocol: ``http``, ``websocket``, or ``""`` when no request came.
        path: Path of its last request; "" when none came.
        ending: The first cause.
        duration: Seconds since accept.
        bytes_in: Bytes received.
        bytes_out: Bytes handed to the kernel.
        unsent: Bytes that were still waiting for the peer.
        requests: Requests begun on it.
        ws_sent: WebSocket close code sent; None when no close frame was.
        ws_received: WebSocket close code received; None when none was.
        long: Whether ConnectionGrewOld was emitted for it.
        idle: Seconds since the last byte went either way.
    """

    connection: int
    peer: str
    protocol: str
    path: str
    ending: Ending
    duration: float
    bytes_in: int
    bytes_out: int
    unsent: int
    requests: int
    ws_sent: int | None
    ws_received: int | None
    long: bool
    idle: float = 0.0


class AcceptPaused(NamedTuple):
    """Accepting stopped for a while; what is open is served on."""

    listener: str
    cause: str


class AcceptResumed(NamedTuple):
    """Accepting goes on."""

    listener: str
    seconds: float
