"""The drain as a plan: which phase it is, who is to be closed or cut now, and when to look again.

    notice    serving goes on, readiness says no (drain.delay)
    finish    nobody new; requests finish, streams are told, WebSockets are closed one by one over their window
    persist   nothing is open any more: who asked to take part saves what is left (drain.persist)
    stop      the application's own shutdown

A phase ends when what it waits for is done, when its time is over, or when it is hurried. Pure: `server/lifecycle` asks
and acts. All moments are seconds of the caller's clock.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Final, NamedTuple

import msgspec

from sojourn.clock import NEVER
from sojourn.config import Drain

__all__ = ["DrainPhase", "DrainPlan", "Kind", "Step", "Times", "quick", "spread"]

#: Seconds for each kind where somebody waits at a terminal.
_QUICK: Final = 3.0


class DrainPhase(Enum):
    """Where a drain is."""

    NOTICE = "notice"
    FINISH = "finish"
    PERSIST = "persist"
    STOP = "stop"


class Kind(Enum):
    """What a connection is to the drain. Each kind has its own time; idle ones end with the requests."""

    REQUESTS = "requests"
    STREAMS = "streams"
    SOCKETS = "sockets"
    IDLE = "idle"


class Times(NamedTuple):
    """Durations that come from elsewhere.

    Attributes:
        farewell: Seconds our last bytes need; cutting begins that much before ``drain.total``.
        handshake: Seconds a WebSocket has for its close handshake; the last is told that much before
            ``drain.sockets``.
        patience: Seconds a cancelled task has until it counts as lost.
    """

    farewell: float
    handshake: float
    patience: float


class Step(NamedTuple):
    """What is to be done now.

    Attributes:
        phase: The phase it is.
        wake: When to ask again if nothing happens before; NEVER for not by time.
        close: WebSockets to close now.
        cut: Kinds whose time is over; each is named once.
        cut_tasks: Whether the time of tasks without a connection is over.
        give_up: Whether the participants of this phase, if any are left, are to be cancelled.
        abort: Whether everything that is open is to be closed as it is.
    """

    phase: DrainPhase
    wake: float = NEVER
    close: int = 0
    cut: tuple[Kind, ...] = ()
    cut_tasks: bool = False
    give_up: bool = False
    abort: bool = False


class DrainPlan:
    """One drain.

    Args:
        drain: Its settings.
        now: When it begins.
        times: What else it depends on.
        random: Returns numbers from 0 to 1, for the jitter of the closes.
        delay: Seconds of notice; None takes ``drain.delay``.
    """

    def __init__(
        self, drain: Drain, now: float, times: Times, random: Callable[[], float], *, delay: float | None = None
    ) -> None:
        self.phase = DrainPhase.NOTICE
        self._drain = drain
        self._times = times
        self._random = random
        #: When the phase ends by time, if it does.
        self._until = now + (drain.delay if delay is None else delay)
        #: When everything is cut. Until the phase ``finish`` has begun, the latest that can be.
        self.ends = self._until + drain.total
        self._hurried = False
        #: When each kind is cut; taken out when it was.
        self._limits: dict[Kind, float] = {}
        #: When each WebSocket is closed, ascending, and how many have been.
        self._closes: Sequence[float] = ()
        self._closed = 0
        #: When tasks that were cancelled after the last connection have had their patience.
        self._tasks_until = NEVER

    def hurry(self) -> None:
        """Go on to what comes next: from notice to finish, from there to cutting, then to closing as it is, ..."""
        self._hurried = True

    def sockets(self, count: int, now: float) -> None:
        """Spread the closes of so many WebSockets; to be said when the phase ``finish`` begins."""
        window = max(0.0, self._limits.get(Kind.SOCKETS, now) - self._times.handshake - now)
        rate = self._drain.close_rate
        self._closes = spread(count, now, 0.0 if rate is None else min(window, count / rate), self._random)

    def decide(self, now: float, connections: int, tasks: int, busy: int) -> Step:
        """What is to be done. To be asked again at ``wake``, and whenever one of the numbers becomes 0.

        Args:
            now: The time.
            connections: How many are open.
            tasks: Tasks that run without a connection.
            busy: Participants of this phase that are not done.
        """
        hurried, self._hurried = self._hurried, False
        match self.phase:
            case DrainPhase.NOTICE:
                if not hurried and (now < self._until or busy):
                    return Step(self.phase, self._until if now < self._until else NEVER)
                self._begin_finish(now)
                return Step(self.phase, now, give_up=hurried)
            case DrainPhase.FINISH:
                return self._finishing(now, hurried, connections, tasks, busy)
            case DrainPhase.PERSIST:
                over = hurried or now >= self._until
                if busy and not over:
                    return Step(self.phase, self._until)
                self.phase = DrainPhase.STOP
                return Step(self.phase, give_up=over)
            case DrainPhase.STOP:
                return Step(self.phase)

    def _begin_finish(self, now: float) -> None:
        drain = self._drain
        self.phase = DrainPhase.FINISH
        self.ends = now + drain.total
        last = max(drain.total - self._times.farewell, drain.total / 2)
        own = {Kind.REQUESTS: drain.requests, Kind.STREAMS: drain.streams, Kind.SOCKETS: drain.sockets}
        for kind, seconds in own.items():
            limit = {"fixed": min(seconds, last), "until_idle": last, "none": 0.0}[drain.strategy]
            self._limits[kind] = now + limit
        self._limits[Kind.IDLE] = self._limits[Kind.REQUESTS]

    def _finishing(self, now: float, hurried: bool, connections: int, tasks: int, busy: int) -> Step:
        if hurried:
            self._hurry(now)
        cut = tuple(kind for kind, limit in self._limits.items() if now >= limit)
        for kind in cut:
            del self._limits[kind]
        abort = now >= self.ends
        cut_tasks = Kind.REQUESTS in cut or abort
        if not connections and Kind.REQUESTS not in self._limits and self._tasks_until == NEVER:
            # No request can leave a task behind any more: those that run now are all there will be.
            cut_tasks, self._tasks_until = True, now + self._times.patience
        if not connections and not busy and (not tasks or now >= self._tasks_until):
            self.phase = DrainPhase.PERSIST
            self._until = now + self._drain.persist
            return Step(self.phase, now, cut=cut, cut_tasks=cut_tasks)
        due = bisect_right(self._closes, now) - self._closed
        self._closed += due
        return Step(self.phase, self._next(now), due, cut, cut_tasks, hurried or abort, abort)

    def _hurry(self, now: float) -> None:
        """Nobody gets more time; said again, not even for a farewell."""
        self.ends = now if not self._limits else min(self.ends, now + self._times.farewell)
        self._limits = dict.fromkeys(self._limits, now)
        self._closes = [now] * len(self._closes)

    def _next(self, now: float) -> float:
        moments = [*self._limits.values(), self._tasks_until, self.ends]
        if self._closed < len(self._closes):
            moments.append(self._closes[self._closed])
        return min((moment for moment in moments if moment > now), default=NEVER)


def spread(count: int, now: float, window: float, random: Callable[[], float]) -> list[float]:
    """Moments for so many closes, ascending: each at a random place of its own share of the window.

    Args:
        count: How many.
        now: When the window begins.
        window: Its length in seconds; 0 for all at once.
        random: Returns numbers from 0 to 1.
    """
    if window <= 0.0:
        return [now] * count
    share = window / count if count else 0.0
    return [now + (place + random()) * share for place in range(count)]


def quick(drain: Drain) -> Drain:
    """The drain where somebody waits at a terminal: no notice, no spread, and three seconds for each kind.

    Keys that were set to something else than their default stay.
    """
    default = Drain()
    short = {
        "delay": 0.0,
        "close_rate": None,
        "requests": _QUICK,
        "streams": _QUICK,
        "sockets": _QUICK,
        "persist": _QUICK,
    }
    changed = {name: value for name, value in short.items() if getattr(drain, name) == getattr(default, name)}
    return msgspec.structs.replace(drain, **changed)
