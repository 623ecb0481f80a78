"""What becomes a number by way of an event: the ends of connections, deadlines, stalls, leaks, pauses, settings."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from typing import Final

from sojourn.bus import Bus
from sojourn.ending import REASONS
from sojourn.events import (
    AcceptPaused,
    AcceptResumed,
    CallerDeadline,
    ConfigChanged,
    ConnectionEnded,
    DeadlineMissed,
    LeakFound,
    LeaseOverdue,
    LoopStalled,
    PressureChanged,
    TaskFailed,
    TaskSurvived,
)
from sojourn.observe.metrics.families import PREFIX, TABLE
from sojourn.observe.metrics.meter import Meter

__all__ = ["NO_PROTOCOL", "Observed"]

#: The label of connections on which nothing was spoken (yet).
NO_PROTOCOL: Final = "none"
#: Ends of connections that were over a limit.
_REFUSED: Final = frozenset({"connection_limit", "address_limit", "fd_exhausted"})
_BOUNDS: Final = TABLE[PREFIX + "connection_duration_seconds"].buckets
_SUM: Final = len(_BOUNDS) + 1


class Observed:
    """Counts events.

    Args:
        bus: Where they come from.
        meter: Where they are counted.

    Attributes:
        bytes_in: Received by connections that have ended.
        bytes_out: Sent by them.
    """

    def __init__(self, bus: Bus, meter: Meter) -> None:
        self._meter = meter
        self._values = meter.values
        self.bytes_in = self.bytes_out = 0
        #: By protocol and reason: where these ends are counted, and where these durations.
        self._ends: dict[tuple[str, str], tuple[int, int]] = {}
        self._paused: set[str] = set()
        meter.gauge("accept_paused", 0.0)
        meter.gauge("config_version", 1.0)
        self._forget: list[Callable[[], None]] = [
            bus.observe(ConnectionEnded, self._connection_ended),
            bus.observe(DeadlineMissed, self._deadline_missed),
            bus.observe(CallerDeadline, self._caller_deadline),
            bus.observe(LoopStalled, self._stalled),
            bus.observe(PressureChanged, self._pressure_changed),
            bus.observe(TaskFailed, self._failed),
            bus.observe(TaskSurvived, self._survived),
            bus.observe(LeakFound, self._leak),
            bus.observe(LeaseOverdue, self._lease_overdue),
            bus.observe(AcceptPaused, self._accept_paused),
            bus.observe(AcceptResumed, self._accept_resumed),
            bus.observe(ConfigChanged, self._config_changed),
        ]

    def close(self) -> None:
        """End the subscriptions."""
        for forget in self._forget:
            forget()
        self._forget.clear()

    def _connection_ended(self, event: ConnectionEnded) -> None:
        ending = event.ending
        places = self._ends.get((event.protocol, ending.reason))
        if places is None:
            places = self._learn(event.protocol, ending.reason)
        values = self._values
        values[places[0]] += 1.0
        values[places[1] + bisect_left(_BOUNDS, event.duration)] += 1.0
        values[places[1] + _SUM] += event.duration
        self.bytes_in += event.bytes_in
        self.bytes_out += event.bytes_out
        if ending.reason in _REFUSED:
            self._meter.count("connections_refused_total", reason=ending.reason)

    def _learn(self, protocol: str, reason: str) -> tuple[int, int]:
        spoken = protocol or NO_PROTOCOL
        places = self._ends[protocol, reason] = (
            self._meter.place("connections_ended_total", spoken, reason, REASONS[reason].fault.value),
            self._meter.place("connection_duration_seconds", spoken),
        )
        return places

    def _deadline_missed(self, event: DeadlineMissed) -> None:
        self._meter.count("deadlines_missed_total", deadline=event.deadline)

    def _caller_deadline(self, event: CallerDeadline) -> None:
        self._meter.count("caller_deadlines_total", outcome=event.outcome)

    def _stalled(self, event: LoopStalled) -> None:
        self._meter.count("loop_stalls_total", cause=event.cause or "unknown")
        self._meter.count("loop_stalled_seconds_total", event.seconds)

    def _pressure_changed(self, event: PressureChanged) -> None:
        self._meter.gauge("pressure_level", float(event.level), cause=event.cause)

    def _failed(self, _: TaskFailed) -> None:
        self._meter.count("tasks_failed_total")

    def _survived(self, event: TaskSurvived) -> None:
        if not event.ended:
            self._meter.count("tasks_survived_total")

    def _leak(self, event: LeakFound) -> None:
        self._meter.count("leaks_found_total", kind=event.kind)

    def _lease_overdue(self, event: LeaseOverdue) -> None:
        self._meter.count("lease_overdue_total", pool=event.pool)

    def _accept_paused(self, event: AcceptPaused) -> None:
        self._paused.add(event.listener)
        self._meter.gauge("accept_paused", float(len(self._paused)))

    def _accept_resumed(self, event: AcceptResumed) -> None:
        self._paused.discard(event.listener)
        self._meter.gauge("accept_paused", float(len(self._paused)))

    def _config_changed(self, event: ConfigChanged) -> None:
        self._meter.gauge("config_version", float(event.version))
