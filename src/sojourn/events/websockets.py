"""WebSockets. That one ended is told by ``RequestEnded``."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["WebSocketOpened"]


class WebSocketOpened(NamedTuple):
    """A WebSocket was accepted."""

    connection: int
    peer: str
    target: bytes
    subprotocol: str | None
