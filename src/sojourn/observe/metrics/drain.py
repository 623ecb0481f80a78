"""The drain in numbers: which phase it is, how long each lasted, how much time is left, what became of everybody."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from sojourn.bus import Bus
from sojourn.clock import Clock
from sojourn.events import DrainCounted, DrainPhaseChanged, DrainReported
from sojourn.observe.metrics.meter import Meter

__all__ = ["DrainMetrics"]

#: What the report says of each kind of connection.
_OUTCOMES: Final = ("open", "told", "finished", "cut")


class DrainMetrics:
    """Follows one drain.

    Args:
        bus: Where its events come from.
        meter: Where they are counted.
        clock: Times the phases.
    """

    def __init__(self, bus: Bus, meter: Meter, clock: Clock) -> None:
        self._meter = meter
        self._now = clock.monotonic
        #: The phase it is, since when, and when everything will be cut, in monotonic seconds.
        self._phase = ""
        self._since = 0.0
        self._ends: float | None = None
        self._forget: list[Callable[[], None]] = [
            bus.observe(DrainPhaseChanged, self._changed),
            bus.observe(DrainCounted, self._counted),
            bus.observe(DrainReported, self._reported),
        ]

    def sample(self) -> None:
        """Bring the time that is left up to date."""
        if self._ends is not None:
            self._meter.gauge("drain_left_seconds", max(0.0, self._ends - self._now()))

    def close(self) -> None:
        """End the subscriptions, and the phase that it is."""
        self._enter("")
        for forget in self._forget:
            forget()
        self._forget.clear()

    def _changed(self, event: DrainPhaseChanged) -> None:
        self._enter(event.phase.partition(" ")[0])  # "cut requests" and "cut streams" are the phase in which is cut
        self._ends = self._now() + event.left
        self.sample()

    def _counted(self, event: DrainCounted) -> None:
        self._ends = self._now() + event.left
        self.sample()

    def _reported(self, event: DrainReported) -> None:
        self._enter("")
        for kind, tally in event.kinds.items():
            for outcome in _OUTCOMES:
                self._meter.gauge("drain_connections", float(tally.get(outcome, 0)), kind=kind, outcome=outcome)

    def _enter(self, phase: str) -> None:
        if phase == self._phase:
            return
        now = self._now()
        if self._phase:
            self._meter.gauge("drain_phase", 0.0, phase=self._phase)
            self._meter.gauge("drain_phase_seconds", now - self._since, phase=self._phase)
        if phase:
            self._meter.gauge("drain_phase", 1.0, phase=phase)
        else:
            self._ends = None
        self._phase, self._since = phase, now
