"""The access log: which events become a line, and how severe each line is.

One line per request when it ends. Besides: a WebSocket when it opens, a connection that grew old, and the end of a
connection that was old or a WebSocket, or that ended by a fault while no request was there to tell of it (a head that
never came, a failed TLS handshake).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Final

from sojourn.bus import Bus
from sojourn.clock import Clock
from sojourn.ending import REASONS, Ending, Fault, Phase
from sojourn.events import ConnectionEnded, ConnectionGrewOld, RequestEnded, WebSocketOpened
from sojourn.observe.log.ring import Destination, Ring
from sojourn.observe.log.sink import Cause

__all__ = ["SEVERITY", "Access", "AccessForm", "Line"]

#: What may become a line of the access log.
Line = RequestEnded | WebSocketOpened | ConnectionGrewOld | ConnectionEnded

#: The words of ``log.level``, as in the module logging.
SEVERITY: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}

_FAULT_LEVEL: Final = {
    Fault.NONE: "info",
    Fault.CLIENT: "info",
    Fault.NETWORK: "info",
    Fault.OVERLOAD: "warning",
    Fault.SHUTDOWN: "warning",
    Fault.APP: "error",
    Fault.SERVER: "error",
}

#: Phases in which no request is running, so that no RequestEnded tells how the connection ended.
_BETWEEN: Final = frozenset({Phase.ACCEPT, Phase.TLS, Phase.HEAD, Phase.IDLE, Phase.CLOSING})

#: How many failed requests are remembered, so that the end of their connection is not told a second time.
_REMEMBERED: Final = 1024


def is_fault_without_request(ending: Ending) -> bool:
    """Whether somebody is at fault for this end and no request was running."""
    return ending.phase in _BETWEEN and REASONS[ending.reason].fault is not Fault.NONE


class Access:
    """Hands the events of the access log to the ring. Runs on the event loop, so it only appends.

    Args:
        bus: Where the events come from.
        ring: Where the lines go.
        sink: The output they are for.
        clock: Its ``wall`` stamps the lines.
        requests_only: Leave out what is not a request and not the fault of a missing one (the combined format).
    """

    __slots__ = ("_forget",)

    def __init__(self, bus: Bus, ring: Ring, sink: Destination, clock: Clock, *, requests_only: bool = False) -> None:
        append = ring.append
        wall = clock.wall

        def observe(event: Line) -> None:
            append((sink, wall(), event))

        def ended(event: ConnectionEnded) -> None:
            lasting = event.long or event.protocol == "websocket"
            if (lasting and not requests_only) or is_fault_without_request(event.ending):
                append((sink, wall(), event))

        self._forget: list[Callable[[], None]] = [
            bus.observe(RequestEnded, observe),
            bus.observe(ConnectionEnded, ended),
        ]
        if not requests_only:
            self._forget.append(bus.observe(WebSocketOpened, observe))
            self._forget.append(bus.observe(ConnectionGrewOld, observe))

    def close(self) -> None:
        """End the subscriptions."""
        for forget in self._forget:
            forget()
        self._forget.clear()


class AccessForm(ABC):
    """What all formats of the access log share. Used by the writer thread only.

    Args:
        minimum: Least severity written, a value of :data:`SEVERITY`. Successes and faults of clients are ``info``,
            overload and shutdown ``warning``, faults of the application or the server and answers from 500 ``error``.
    """

    def __init__(self, minimum: int = SEVERITY["info"]) -> None:
        self.minimum = minimum
        self._told: dict[int, str] = {}

    def line(self, when: float, event: Line) -> bytes:
        """The line of one event, or ``b""`` when it is below the minimum or already told."""
        if isinstance(event, RequestEnded):
            level = "error" if event.status >= 500 else "info"
            if event.ending.reason == "completed":
                return self.request(when, level, event) if SEVERITY[level] >= self.minimum else b""
            self._remember(event)
        elif isinstance(event, ConnectionEnded):
            if self._is_told(event):
                return b""
            level = "info"
        else:
            return self.opened(when, event) if self.minimum <= SEVERITY["info"] else b""
        row = REASONS[event.ending.reason]
        if row.fault is not Fault.NONE:
            level = _FAULT_LEVEL[row.fault]
        if SEVERITY[level] < self.minimum:
            return b""
        return self.request(when, level, event) if isinstance(event, RequestEnded) else self.ended(when, level, event)

    @abstractmethod
    def request(self, when: float, level: str, event: RequestEnded) -> bytes:
        """The line of a request."""

    @abstractmethod
    def ended(self, when: float, level: str, event: ConnectionEnded) -> bytes:
        """The line of a connection that ended."""

    @abstractmethod
    def opened(self, when: float, event: WebSocketOpened | ConnectionGrewOld) -> bytes:
        """The line of a connection that is open."""

    @abstractmethod
    def gap(self, when: float, count: int, cause: Cause) -> bytes:
        """A line that says how many are missing here."""

    def _remember(self, event: RequestEnded) -> None:
        if len(self._told) >= _REMEMBERED:
            del self._told[next(iter(self._told))]
        self._told[event.connection] = event.ending.reason

    def _is_told(self, event: ConnectionEnded) -> bool:
        """Whether the line of a request has told this end: an answer of 400 to a head that is broken, for example."""
        told = self._told.pop(event.connection, None) == event.ending.reason
        return told and not event.long and event.protocol != "websocket"
