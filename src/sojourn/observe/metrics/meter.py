"""The worker's own counting: for each request a look-up and two additions, the rest goes by name."""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

from sojourn.asgi.scope import route_of
from sojourn.ending import REASONS, Ending
from sojourn.observe.methods import METHODS
from sojourn.observe.metrics.families import PREFIX, TABLE, Family, Kind
from sojourn.observe.metrics.memory import Block
from sojourn.typing import Scope

__all__ = ["Meter", "declare"]

_REQUEST: Final = TABLE["http_server_request_duration_seconds"]
_BOUNDS: Final = _REQUEST.buckets
_FIRST: Final = _BOUNDS[0]
_SUM: Final = len(_BOUNDS) + 1
_ZEROS: Final = (0.0,) * _REQUEST.width
#: Look-ups that are remembered at most. A method, a status and a route make one each.
_REMEMBERED: Final = 4000


class Meter:
    """Counts into a block.

    Args:
        block: The worker's own.

    Attributes:
        received: Messages of WebSockets that have ended; those of open ones are added by who looks at them.
        sent: As ``received``, in the other direction.
    """

    __slots__ = (
        "_block",
        "_completed",
        "_completed_at",
        "_places",
        "_plain",
        "_routed",
        "_rows",
        "_values",
        "received",
        "sent",
    )

    def __init__(self, block: Block) -> None:
        self._block = block
        self._values = block.values
        self._places: dict[tuple[str, tuple[str, ...]], int] = {}
        #: Requests whose route is not known, by status and method. They are counted in lists, which takes half the time
        #: of the block, and brought there at each tick.
        self._plain: dict[int, dict[str, list[float]]] = {}
        self._rows: dict[int, list[float]] = {}
        #: Places of requests of a known route.
        self._routed: dict[tuple[str, str, int], int] = {}
        self._completed = 0
        self.received = self.sent = 0
        self._completed_at = self._place(PREFIX + "requests_ended_total", ("completed", "none"))

    # Hot paths; see asgi.site.Meter

    def answered(self, scope: Scope, status: int, duration: float) -> None:
        """A request ended with the whole answer of its application, which is no event stream."""
        if "route" in scope or "path_template" in scope:
            self._answered_routed(scope, status, duration)
            return
        try:
            row = self._plain[status][scope["method"]]
        except KeyError:
            row = self._learn_plain(scope["method"], status)
        # Most answers are this quick: a comparison in place of a call.
        row[0 if duration <= _FIRST else bisect_left(_BOUNDS, duration)] += 1.0
        row[_SUM] += duration

    def _answered_routed(self, scope: Scope, status: int, duration: float) -> None:
        self._completed += 1
        key = (route_of(scope), scope["method"], status)
        at = self._routed.get(key) or self._learn_routed(*key)
        values = self._values
        values[at + bisect_left(_BOUNDS, duration)] += 1.0
        values[at + _SUM] += duration

    def request_ended(self, scope: Scope, status: int, ending: Ending, duration: float, event_stream: bool) -> None:
        """A request ended in any other way, or an event stream did."""
        reason = ending.reason
        self.count("requests_ended_total", reason=reason, fault=REASONS[reason].fault.value)
        if event_stream:
            self.count("event_streams_total", route=route_of(scope), reason=reason)
            self.observe("event_stream_duration_seconds", duration)
        else:
            error = "" if reason == "completed" else reason
            self._add(self._request(route_of(scope), scope["method"], status, error), _REQUEST, duration)

    def websocket_ended(
        self, scope: Scope, ending: Ending, duration: float, received: int, sent: int, opened: bool
    ) -> None:
        """A WebSocket ended after so many messages, or its handshake was refused."""
        self.received += received
        self.sent += sent
        self.count("websockets_total", route=route_of(scope), reason=ending.reason)
        if opened:
            self.observe("websocket_duration_seconds", duration)

    def handshake(self, kind: str, duration: float) -> None:
        """A handshake is complete: ``tls`` or ``websocket``."""
        self.observe("handshake_duration_seconds", duration, kind=kind)

    def queue_left(self, waited: float) -> None:
        """A request got its slot after it had waited."""
        self.observe("request_queue_wait_seconds", waited)

    def shed(self, priority: str, reason: str) -> None:
        """A request was not begun because of overload."""
        self.count("requests_shed_total", priority=priority, reason=reason)

    def pong(self, round_trip: float) -> None:
        """A client answered our ping."""
        self.observe("ping_round_trip_seconds", round_trip)

    def pong_missed(self) -> None:
        """A client did not answer our ping in time."""
        self.count("pongs_missed_total")

    # By name, without the prefix; for what is rarer

    def count(self, name: str, amount: float = 1.0, **labels: str) -> None:
        """Add to a counter.

        Args:
            name: Its name without ``sojourn_``.
            amount: What to add; nothing below zero.
            labels: All its labels.

        Raises:
            KeyError: There is no such metric, or it has other labels.
        """
        if amount < 0.0:
            raise ValueError(f"a counter never goes down: {name} by {amount}")
        self._values[self._named(PREFIX + name, labels)] += amount

    def gauge(self, name: str, value: float, **labels: str) -> None:
        """Set a gauge; arguments as for ``count``."""
        self._values[self._named(PREFIX + name, labels)] = value

    def total(self, name: str, value: float, **labels: str) -> None:
        """Set a counter to what was counted elsewhere, unless that is less; arguments as for ``count``."""
        at = self._named(PREFIX + name, labels)
        if value > self._values[at]:
            self._values[at] = value

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Note a value in a histogram; arguments as for ``count``."""
        self._add(self._named(PREFIX + name, labels), TABLE[PREFIX + name], value)

    def place(self, name: str, *labels: str) -> int:
        """Where the first number of a series is in :attr:`values`, for who counts often."""
        return self._place(PREFIX + name, labels)

    @property
    def values(self) -> memoryview[float]:
        """The numbers of the block."""
        return self._values

    def flush(self) -> None:
        """Bring the counts that were kept apart to the block. To be called at each tick."""
        values = self._values
        completed, self._completed = float(self._completed), 0
        for place, row in self._rows.items():
            count = sum(row[:_SUM])
            if count:
                completed += count
                for index, number in enumerate(row):
                    values[place + index] += number
                row[:] = _ZEROS
        values[self._completed_at] += completed

    def _add(self, at: int, family: Family, value: float) -> None:
        bounds, values = family.buckets, self._values
        values[at + bisect_left(bounds, value)] += 1.0
        values[at + len(bounds) + 1] += value

    def _named(self, name: str, labels: dict[str, str]) -> int:
        wanted = TABLE[name].labels
        if len(labels) != len(wanted):
            raise KeyError(f"{name} has the labels {wanted}, not {tuple(labels)}")
        return self._place(name, tuple([labels[label] for label in wanted]))

    def _place(self, name: str, values: tuple[str, ...]) -> int:
        place = self._places.get((name, values))
        if place is None:
            place = self._block.place(TABLE[name], values)
            if len(self._places) < _REMEMBERED:
                self._places[name, values] = place
        return place

    def _learn_plain(self, method: str, status: int) -> list[float]:
        row = self._rows.setdefault(self._request("", method, status, ""), list(_ZEROS))
        self._plain.setdefault(status, {})[method] = row  # there are 800 statuses and 35 methods
        return row

    def _learn_routed(self, route: str, method: str, status: int) -> int:
        place = self._request(route, method, status, "")
        if len(self._routed) < _REMEMBERED:
            self._routed[route, method, status] = place
        return place

    def _request(self, route: str, method: str, status: int, error: str) -> int:
        """Where the durations of such requests are; ``error`` is OpenTelemetry's ``error.type``."""
        if not error and status >= 500:
            error = str(status)
        return self._place(_REQUEST.name, (method if method in METHODS else "_OTHER", route, str(status), error))


def declare(block: Block) -> None:
    """Make the series that are there from the beginning, so that a rate is known before the first event."""
    for family in TABLE.values():
        if family.supervised:
            continue
        if not family.labels and family.kind is not Kind.GAUGE:
            block.place(family)
        for labels in family.known:
            block.place(family, labels)
