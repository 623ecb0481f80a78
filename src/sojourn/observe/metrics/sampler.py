"""What is not counted but looked at: at each tick or second what is at hand, more rarely what takes a walk over all
connections.

It comes when others come as well (``Ticker.call_together``), so an idle server wakes no more often for it. The walk
goes in slices and takes no more than a thousandth of the processor, however many connections there are: then it comes
more rarely.
"""

from __future__ import annotations

import resource
from bisect import bisect_left
from collections.abc import Callable
from math import ceil
from typing import Final

from sojourn.asgi.site import Site
from sojourn.net.ticker import Call
from sojourn.observe.metrics.drain import DrainMetrics
from sojourn.observe.metrics.families import PREFIX, TABLE
from sojourn.observe.metrics.meter import Meter
from sojourn.observe.metrics.observed import Observed
from sojourn.observe.metrics.process import Descriptors
from sojourn.observe.metrics.walk import Walk
from sojourn.observe.process import processor_seconds, resident_bytes

__all__ = ["Sampler"]

#: Seconds between two looks at what is at hand, between two walks, and between two counts of descriptors.
_SECOND: Final = 1.0
_WALK: Final = 5.0
_DESCRIPTORS: Final = 15.0
#: Share of the processor that walks may take.
_SHARE: Final = 0.0003
_RUNNING: Final = frozenset({"request", "stream", "event_stream"})
_LAG: Final = TABLE[PREFIX + "loop_lag_seconds"].buckets


class Sampler:
    """Keeps the gauges of a worker, and the counters that others keep.

    Args:
        site: What it looks at.
        meter: Where the numbers go.
        observed: Knows the bytes of connections that have ended.
        drain: Knows how much time a drain has left.
    """

    def __init__(self, site: Site, meter: Meter, observed: Observed, drain: DrainMetrics) -> None:
        self._site = site
        self._meter = meter
        self._observed = observed
        self._drain = drain
        self._ticker = site.runtime.ticker
        self._registry = site.runtime.registry
        self._values = meter.values
        self._lag_at = meter.place("loop_lag_seconds")
        self._accepted_at = meter.place("connections_accepted_total")
        self._accepted = 0
        self._descriptors = Descriptors()
        self._walk: Walk | None = None
        #: Seconds that the present walk has taken so far.
        self._walked = 0.0
        self._states: set[tuple[str, str]] = set()
        self._calls: dict[Callable[[], None], Call] = {}
        self._ticker.lagged = self._ticked
        self._each_second()
        self._go_walking()
        self._count_descriptors()

    def close(self) -> None:
        """Look a last time, and then no more; calling it twice does nothing."""
        if self._ticker.lagged is None:
            return
        self._ticker.lagged = None
        for call in self._calls.values():
            call.cancel()
        self._calls.clear()
        self._descriptors.close()
        self._bring()
        self._look()
        walk = Walk(self._site, self._meter, self._observed)
        while not walk.go_on():
            pass
        self._note(walk)

    def _again(self, interval: float, call: Callable[[], None]) -> None:
        """Call at the next shared moment; with 0, in the next tick."""
        ticker = self._ticker
        self._calls[call] = ticker.call_together(interval, call) if interval else ticker.call_later(0.0, call)

    def _ticked(self, late: float) -> None:
        """A tick came so many seconds later than it was due."""
        values, at = self._values, self._lag_at
        values[at + bisect_left(_LAG, late)] += 1.0
        if late > 0.0:  # a timer may come a little early
            values[at + len(_LAG) + 1] += late
        self._bring()

    def _bring(self) -> None:
        """What was counted elsewhere since the last tick."""
        self._meter.flush()
        accepted = self._registry.accepted
        self._values[self._accepted_at] += accepted - self._accepted
        self._accepted = accepted

    def _each_second(self) -> None:
        self._look()
        self._again(_SECOND, self._each_second)

    def _look(self) -> None:
        """What is at hand."""
        meter, site = self._meter, self._site
        meter.gauge("requests_queued", float(site.waiting))
        if site.admission is not None:
            meter.gauge("requests_limit", float(site.admission.slots.limit))
        self._drain.sample()

    def _go_walking(self) -> None:
        """The next slice of a walk, or the first of a new one."""
        began = self._site.monotonic()
        walk = self._walk
        if walk is None:
            walk = self._walk = Walk(self._site, self._meter, self._observed)
            self._walked = 0.0
        over = walk.go_on()
        self._walked += self._site.monotonic() - began
        if not over:
            self._again(0.0, self._go_walking)
            return
        self._walk = None
        self._note(walk)
        self._again(_WALK * max(1, ceil(self._walked / _SHARE / _WALK)), self._go_walking)

    def _note(self, walk: Walk) -> None:
        """What a walk has found, and what costs as much as one."""
        meter, states, registry = self._meter, walk.states, self._registry
        self._states.update(states)
        for spoken, doing in self._states:
            meter.gauge("connections", float(states[spoken, doing]), protocol=spoken, state=doing)
        running = sum(count for (spoken, doing), count in states.items() if spoken == "http" and doing in _RUNNING)
        meter.gauge("requests_running", float(running))
        meter.total("bytes_total", float(walk.bytes_in), direction="in")
        meter.total("bytes_total", float(walk.bytes_out), direction="out")
        meter.total("websocket_messages_total", float(walk.received), direction="in")
        meter.total("websocket_messages_total", float(walk.sent), direction="out")
        meter.gauge("connections_behind", float(walk.behind))
        meter.gauge("buffered_bytes", float(walk.buffered))
        meter.gauge("outbox_high_bytes", float(max(walk.highest, registry.buffered_high)))
        registry.buffered_high = 0
        self._note_limit()
        meter.gauge("memory_resident_bytes", float(resident_bytes()))
        meter.total("processor_seconds_total", processor_seconds())

    def _note_limit(self) -> None:
        """This worker's share of the limits of connections; they may change."""
        limits, workers = self._site.config.limits, max(1, self._site.config.app.workers)
        shares = [float(limits.connections)] if limits.connections is not None else []
        if limits.connections_total is not None:
            shares.append(limits.connections_total / workers)
        if shares:
            self._meter.gauge("connections_limit", min(shares))

    def _count_descriptors(self) -> None:
        try:
            found = self._descriptors.count()
        except OSError:
            return  # a system that does not list them: there is nothing to tell
        if found is None:
            self._again(0.0, self._count_descriptors)
            return
        self._meter.gauge("fds", float(found))
        self._meter.gauge("fds_limit", float(resource.getrlimit(resource.RLIMIT_NOFILE)[0]))
        self._again(_DESCRIPTORS, self._count_descriptors)
