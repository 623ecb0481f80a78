"""All that watches one worker, and answers questions about it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Protocol

from sojourn.asgi.site import Site
from sojourn.guards.registry import GUARDS, Guards
from sojourn.observe.answers import Answer, Answers
from sojourn.observe.connections import Connections
from sojourn.observe.endings.endings import Endings
from sojourn.observe.hubs import HubWatch
from sojourn.observe.journals import JournalWatch
from sojourn.observe.leaks.detector import Leaks
from sojourn.observe.metrics.memory import Block
from sojourn.observe.metrics.meter import Meter
from sojourn.observe.metrics.worker import Metrics
from sojourn.observe.profiles.profilers import Profilers
from sojourn.observe.stalls.stalls import Stalls
from sojourn.observe.tasks.census import Tasks
from sojourn.observe.traces import open_traces
from sojourn.scopes.sessions import SESSIONS
from sojourn.scopes.used import Used

__all__ = ["Diagnosis"]

#: Seconds between two looks at what others count.
_LOOK: Final = 15.0


class _Part(Protocol):
    @property
    def answers(self) -> Answers: ...

    def close(self) -> None: ...


class Diagnosis:
    """The parts that ``diagnostics.*`` asks for. Made on the event loop before the application starts.

    Args:
        site: What the worker serves.
        block: Where it counts; None when it does not.

    Attributes:
        answers: What can be asked, by name.
        stalls: Who watches the event loop.
        gauges: Called every few seconds with who counts: for what is known elsewhere.
    """

    def __init__(self, site: Site, block: Block | None = None) -> None:
        self.answers: dict[str, Answer] = {}
        self.gauges: list[Callable[[Meter], None]] = []
        self._closing: list[Callable[[], None]] = []
        self._ticker = site.ticker
        self._meter: Meter | None = None
        if block is not None:
            metrics = Metrics(site, block)
            self._add(metrics)
            self._meter = metrics.meter
            self._call = site.ticker.call_together(_LOOK, self._look)
        self.stalls = Stalls(site)  # after the metrics, because both want to know how late ticks are
        self._add(self.stalls)
        self._add(Connections(site))
        self._add(HubWatch(site, self._meter))
        self._add(JournalWatch(site, self._meter))
        guards = Guards(site.runtime.bus)
        site.runtime.context.run(GUARDS.set, guards)
        self.gauges.append(guards.report)
        site.runtime.context.run(SESSIONS.set, Used(site.runtime.bus))
        tasks = Tasks(site)
        self._add(tasks)
        self._add(Profilers(site, self.stalls, tasks.profiles))
        self._add(Endings(site))
        self.gauges.append(lambda meter: _set(meter, "tasks", "owner", tasks.counts()))
        if site.config.diagnostics.leaks:
            leaks = Leaks(site, tasks)
            self._add(leaks)
            self.gauges.append(lambda meter: _count_leaks(meter, leaks))
        if site.config.traces.enabled:
            try:
                self._closing.append(open_traces(site).close)
            except BaseException:
                self.close()  # the server has not got it yet, and would not
                raise

    def _add(self, part: _Part) -> None:
        self._closing.append(part.close)
        self.answers.update(part.answers)

    def _look(self) -> None:
        self._call = self._ticker.call_together(_LOOK, self._look)
        if self._meter is not None:
            for gauge in self.gauges:
                gauge(self._meter)

    def close(self) -> None:
        """Undo everything; calling it twice does nothing."""
        if self._meter is not None:
            self._call.cancel()
            self._meter = None
        closing, self._closing = self._closing, []
        for close in reversed(closing):
            close()


def _count_leaks(meter: Meter, leaks: Leaks) -> None:
    _set(meter, "leaks", "kind", leaks.ledger.alive())
    _set(meter, "leases", "pool", leaks.leases.counts())
    meter.total("tasks_lost_total", float(leaks.lost.total))


def _set(meter: Meter, name: str, label: str, values: Mapping[str, int]) -> None:
    for value, number in values.items():
        meter.gauge(name, float(number), **{label: value})
