"""Looks at what there may be too little of, and takes measures: the ladder of ``policy.pressure`` on a real worker."""

from __future__ import annotations

import random
import resource
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from sojourn.asgi.admission import Admission
from sojourn.asgi.http import HttpHandler
from sojourn.asgi.site import Site
from sojourn.asgi.websocket import WebSocketHandler
from sojourn.clock import NEVER
from sojourn.config import Config
from sojourn.ending import Ending, How, Phase
from sojourn.events import PressureChanged
from sojourn.net.connection import Connection
from sojourn.observe.metrics.process import Descriptors
from sojourn.observe.process import resident_bytes
from sojourn.policy.pressure import Ladder, Measure

__all__ = ["Pressure", "PressureInfo", "no_pressure"]

#: Seconds between two looks at the event loop and the queue, and looks of the kind between two at the rest.
_LOOK: Final = 0.5
_SLOW: Final = 4
#: Part of the connections that are behind which are closed in one look, and how many at least.
_CLOSED: Final = 0.05
_FEW: Final = 4
_LOW_ON: Final = {"processor": ("lag", "queue"), "space": ("memory", "buffered", "descriptors")}


class PressureInfo(NamedTuple):
    """How one worker stands.

    Attributes:
        levels: By cause.
        measures: What is done now.
        signals: How much there is of each, as a share of what is allowed.
        requests_limit: Requests that may run at once, as found out.
        requests_running: Those that do.
        requests_waiting: Those that wait for a slot.
        loop_wait: Seconds that the event loop lets wait what is ready: the median when it was judged last.
    """

    levels: dict[str, int]
    measures: tuple[str, ...]
    signals: dict[str, float]
    requests_limit: int
    requests_running: int
    requests_waiting: int
    loop_wait: float


class Pressure:
    """Made on the event loop, where ``admission.mode`` is ``adaptive``, after whoever else asks how late ticks are.

    Args:
        site: What the worker serves.
        admission: Lets requests in.

    Attributes:
        ladders: One for each cause.
        signals: What was seen last, each as a share of what is allowed.
    """

    def __init__(self, site: Site, admission: Admission) -> None:
        self._site = site
        self._admission = admission
        self._settings = site.config.admission
        self._ticker = site.ticker
        self._descriptors = Descriptors()
        self._late = 0.0
        self._looks = 0
        self.ladders = {cause: Ladder(cause) for cause in _LOW_ON}
        self.signals: dict[str, float] = {}
        # The one way to be taken back: the same bound method.
        self._hook = self._ticked
        self._before = self._ticker.lagged
        self._ticker.lagged = self._hook
        site.followers.append(self._follow)
        self._call = self._ticker.call_together(_LOOK, self._each_look)

    def close(self) -> None:
        """Look no more, and take everything back. Calling it twice does nothing."""
        self._call.cancel()
        if self._ticker.lagged is self._hook:
            self._ticker.lagged = self._before
        if self._follow in self._site.followers:
            self._site.followers.remove(self._follow)
        self._descriptors.close()
        for ladder in self.ladders.values():
            ladder.level = 0
        self._act()

    @property
    def measures(self) -> frozenset[Measure]:
        """What is done now."""
        return frozenset().union(*(ladder.measures for ladder in self.ladders.values()))

    def look(self) -> None:
        """Look once; called twice a second."""
        site, now = self._site, self._site.monotonic()
        self._processor(now)
        if not self._looks % _SLOW:
            self._space()
        self._looks += 1
        for cause, ladder in self.ladders.items():
            before = ladder.level
            if ladder.look(now, {name: self.signals[name] for name in _LOW_ON[cause] if name in self.signals}):
                self._act()
                if PressureChanged in site.observers:
                    words = tuple(sorted(measure.value for measure in ladder.measures))
                    site.runtime.bus.emit(PressureChanged(cause, ladder.level, before, ladder.why, words))
        if Measure.CLOSE_SLOWEST in self.measures:
            self._close_slowest()

    def _ticked(self, late: float) -> None:
        self._late = max(self._late, late)
        if self._before is not None:
            self._before(late)

    def _each_look(self) -> None:
        self._call = self._ticker.call_together(_LOOK, self._each_look)
        self.look()
        if self._admission.slots.waits:
            # Nobody may have come since; who waits must not depend on that.
            self._admission.measure(self._site.monotonic())

    def _processor(self, now: float) -> None:
        late, self._late = self._late, 0.0
        if self._settings.lag is not None:
            self.signals["lag"] = late / self._settings.lag
        self.signals["queue"] = 1.0 if self._admission.slots.stands(now) else 0.0

    def _space(self) -> None:
        settings, signals = self._settings, self.signals
        if settings.memory is not None:
            signals["memory"] = resident_bytes() / settings.memory
        if settings.buffered is not None:
            signals["buffered"] = sum(each.buffered for each in _behind(self._site)) / settings.buffered
        if settings.descriptors is not None and (share := self._open_descriptors()) is not None:
            signals["descriptors"] = share / settings.descriptors

    def _open_descriptors(self) -> float | None:
        """Share of the file descriptors that is open; None when it is not known (yet)."""
        try:
            found = self._descriptors.count()
        except OSError:
            return None  # a system that does not list them
        return None if found is None else found / resource.getrlimit(resource.RLIMIT_NOFILE)[0]

    def _follow(self, config: Config) -> None:
        """The settings have changed: what a measure has put in their place stays."""
        self._settings = config.admission
        self._shorten(Measure.SHORT_IDLE in self.measures)

    def _act(self) -> None:
        """Do what the levels ask for, and nothing else."""
        measures = self.measures
        self._admission.measures(
            no_keep_alive=Measure.NO_KEEP_ALIVE in measures,
            no_streams=Measure.NO_STREAMS in measures,
            shed_low=Measure.SHED_LOW in measures,
        )
        self._shorten(Measure.SHORT_IDLE in measures)

    def _shorten(self, short: bool) -> None:
        site = self._site
        configured = site.config.timeouts.keep_alive
        whole = NEVER if configured is None else configured
        before, site.keep_alive = site.keep_alive, min(whole, self._settings.idle) if short else whole
        if site.keep_alive < before:
            for connection in site.runtime.registry:
                if connection.phase is Phase.IDLE and connection.ending is None:
                    left = connection.due.keep_alive - self._ticker.now
                    # Spread, so that those who have to connect again do not do it together.
                    connection.arm("keep_alive", min(left, site.keep_alive * random.uniform(0.5, 1.0)))

    def _close_slowest(self) -> None:
        """End some of those for whom most waits."""
        behind = [each for each in _behind(self._site) if each.phase is not Phase.CLOSING]
        behind.sort(key=lambda connection: connection.buffered, reverse=True)
        for connection in behind[: max(_FEW, int(len(behind) * _CLOSED))]:
            _close(connection)

    async def list(self, arguments: Mapping[str, Any]) -> Sequence[PressureInfo]:
        """How this worker stands, as the admin listener asks for it. It takes no arguments.

        Cancel: safe.
        """
        limit = self._admission.limit
        return [
            PressureInfo(
                levels={cause: ladder.level for cause, ladder in self.ladders.items()},
                measures=tuple(sorted(measure.value for measure in self.measures)),
                signals=dict(self.signals),
                requests_limit=limit.limit,
                requests_running=self._admission.slots.running,
                requests_waiting=self._admission.slots.waits,
                loop_wait=limit.wait,
            )
        ]


async def no_pressure(arguments: Mapping[str, Any]) -> Sequence[PressureInfo]:
    """What a worker says for which ``admission.mode`` is off."""
    return []


def _behind(site: Site) -> list[Connection]:
    """Connections whose client does not take what waits for it."""
    return [each for each in site.runtime.registry if each.outbox is not None and each.ending is None]


def _close(connection: Connection) -> None:
    handler = connection.handler
    if isinstance(handler, WebSocketHandler):
        handler.close(1013, "overload", Ending("shed", Phase.WEBSOCKET))
    elif isinstance(handler, HttpHandler) and (cycle := handler.cycle) is not None:
        cycle.fail(Ending("shed", Phase.RESPONSE, How.LOCAL_ABORT), 503)
        cycle.cancel("shed")
    else:
        connection.end(Ending("shed", connection.phase, How.LOCAL_ABORT), abort=True)
