"""The page: what all workers have counted, what the supervisor knows of them, and the applications' own metrics.

It is made from memory alone, so it answers while a worker hangs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from sojourn.bus import Bus
from sojourn.events import ConfigChanged, WorkerEnded, WorkerHung, WorkerReady, WorkerRetired
from sojourn.observe.metrics.exposition import OPENMETRICS, TEXT, joined, rendered, wants_openmetrics
from sojourn.observe.metrics.families import PREFIX
from sojourn.observe.metrics.memory import MetricsMemory
from sojourn.observe.metrics.merging import merged_texts
from sojourn.observe.metrics.meter import Meter

__all__ = ["SupervisorMetrics", "WorkerState"]

#: Why workers are replaced: the words of events, and what the page calls them.
_CAUSES: Final = {
    "restart": "restart",
    "upgrade": "upgrade",
    "max_requests": "max_requests",
    "max_lifetime": "max_lifetime",
    "max_memory": "max_memory",
    "stopped from outside": "stopped",
}
_RESTARTS: Final = (*_CAUSES.values(), "crash", "hung", "failed")


class WorkerState(NamedTuple):
    """A worker as the page shows it.

    Attributes:
        number: Its number: the label ``worker``.
        row: Its row of the board, and its block of the memory.
        up: Whether it serves.
        beat_age: Seconds since its event loop gave a sign of life; None before the first.
    """

    number: int
    row: int
    up: bool
    beat_age: float | None


class SupervisorMetrics:
    """Counts what happens to workers, and makes the page.

    A process that serves without workers has it as well: for its page, with one worker.

    Args:
        bus: Where the events of workers come from.
        memory: What workers count in.
    """

    def __init__(self, bus: Bus, memory: MetricsMemory) -> None:
        self.memory = memory
        self._meter = Meter(memory.ended)
        self._version = 1
        #: Workers whose end was counted before it came.
        self._counted: set[int] = set()
        for cause in _RESTARTS:
            self._meter.place("worker_restarts_total", cause)
        self._forget: list[Callable[[], None]] = [
            bus.observe(WorkerReady, self._ready),
            bus.observe(WorkerRetired, self._retired),
            bus.observe(WorkerHung, self._hung),
            bus.observe(WorkerEnded, self._ended),
            bus.observe(ConfigChanged, self._config_changed),
        ]

    def close(self) -> None:
        """End the subscriptions."""
        for forget in self._forget:
            forget()
        self._forget.clear()

    def retire(self, row: int) -> None:
        """The worker of a row has ended: to be called once, before the row is given to another."""
        self.memory.retire(row)

    def page(
        self, accept: str, workers: Sequence[WorkerState], application_texts: Mapping[int, str]
    ) -> tuple[str, bytes]:
        """All metrics as they are now.

        Args:
            accept: The Accept header of the request; "" when it has none.
            workers: Those that are there.
            application_texts: What workers have answered to the errand ``application_metrics``, by their number.

        Returns:
            Content type and body.
        """
        openmetrics = wants_openmetrics(accept)
        counted = {str(each.number): self.memory.block(each.row).read() for each in workers}
        families = joined(counted, self.memory.ended.read())
        families[PREFIX + "worker_up"] = {(str(each.number),): (float(each.up),) for each in workers}
        families[PREFIX + "worker_beat_age_seconds"] = {
            (str(each.number),): (each.beat_age,) for each in workers if each.beat_age is not None
        }
        version = families[PREFIX + "config_version"]
        version[()] = (max(self._version, *version.get((), (0.0,))),)
        texts = {str(number): text for number, text in application_texts.items() if text}
        body = rendered(families, openmetrics=openmetrics) + merged_texts(texts, openmetrics=openmetrics)
        if openmetrics:
            return OPENMETRICS, f"{body}# EOF\n".encode()
        return TEXT, body.encode()

    def _ready(self, event: WorkerReady) -> None:
        self._meter.observe("worker_start_seconds", event.seconds)

    def _retired(self, event: WorkerRetired) -> None:
        self._counted.add(event.worker)
        self._meter.count("worker_restarts_total", cause=_CAUSES.get(event.why, "restart"))

    def _hung(self, event: WorkerHung) -> None:
        self._counted.add(event.worker)
        self._meter.count("worker_restarts_total", cause="hung")

    def _ended(self, event: WorkerEnded) -> None:
        counted = event.worker in self._counted
        self._counted.discard(event.worker)
        if not event.expected and not counted:
            self._meter.count("worker_restarts_total", cause="failed" if event.problem else "crash")

    def _config_changed(self, event: ConfigChanged) -> None:
        self._version = event.version
