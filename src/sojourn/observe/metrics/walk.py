"""A walk over all connections: what they speak and do, how much waits for them, how many bytes they have moved."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from typing import Final

from sojourn.asgi.http import HttpHandler
from sojourn.asgi.site import Site
from sojourn.asgi.websocket import State, WebSocketHandler
from sojourn.net.connection import Connection
from sojourn.observe.metrics.meter import Meter
from sojourn.observe.metrics.observed import NO_PROTOCOL, Observed

__all__ = ["Walk", "spoken_and_doing"]

#: Connections looked at in one go: under a millisecond.
_SLICE: Final = 500


class Walk:
    """One walk. Connections that come meanwhile are not on it.

    Args:
        site: Whose connections.
        meter: Knows the messages of WebSockets that have ended.
        observed: Knows the bytes of connections that have ended.

    Attributes:
        states: How many connections speak what and do what.
        bytes_in: Received by all connections there ever were before the walk.
        bytes_out: Sent by them.
        received: Messages of WebSockets, in the same way.
        sent: As ``received``, in the other direction.
        behind: Connections whose client does not take what waits for it.
        buffered: Bytes that wait for them.
        highest: Most of them for one client.
    """

    def __init__(self, site: Site, meter: Meter, observed: Observed) -> None:
        # What has ended is counted as it is now. A connection that ends on the way is still seen by the walk, and is
        # not counted twice.
        self.bytes_in, self.bytes_out = observed.bytes_in, observed.bytes_out
        self.received, self.sent = meter.received, meter.sent
        self.states: Counter[tuple[str, str]] = Counter()
        self.behind = self.buffered = self.highest = 0
        self._left = iter(site.runtime.registry)

    def go_on(self) -> bool:
        """Look at some more; whether that was the end."""
        seen = 0
        for connection in islice(self._left, _SLICE):
            seen += 1
            self._look(connection)
        return seen < _SLICE

    def _look(self, connection: Connection) -> None:
        self.bytes_in += connection.bytes_in
        self.bytes_out += connection.bytes_out
        handler = connection.handler
        if isinstance(handler, WebSocketHandler):
            self.received += handler.received
            self.sent += handler.sent
        self.states[spoken_and_doing(connection)] += 1
        if connection.outbox is not None:
            waiting = connection.buffered
            self.behind += 1
            self.buffered += waiting
            self.highest = max(self.highest, waiting)


def spoken_and_doing(connection: Connection) -> tuple[str, str]:
    """What is spoken on a connection, and what it does."""
    handler = connection.handler
    spoken = handler.protocol if handler is not None and connection.requests else NO_PROTOCOL
    if connection.ending is not None:
        return spoken, "closing"
    if isinstance(handler, HttpHandler):
        cycle = handler.cycle
        if cycle is None:
            return spoken, "idle" if connection.requests else "opening"
        if not cycle.begun:
            return spoken, "queued"
        return spoken, "event_stream" if cycle.event_stream else "stream" if cycle.streaming else "request"
    if isinstance(handler, WebSocketHandler):
        state = handler.state
        return spoken, "open" if state is State.OPEN else "closing" if state is State.CLOSING else "opening"
    return spoken, "opening"
