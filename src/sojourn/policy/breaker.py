"""When calls to a dependency are not worth trying: closed, open, half-open.

    state      what happens                                          becomes
    closed     enough calls of the window failed, or were slow       open, for ``open_seconds``
    open       somebody asks before that is over                     refused
    open       somebody asks afterwards                              half-open; the one who asks is a probe
    half-open  somebody asks, and a probe's place is free            a probe
    half-open  somebody asks, and none is free                       refused
    half-open  a probe failed, or was slow                           open, for ``open_seconds``
    half-open  as many probes as there are places went well          closed, with nothing remembered
    half-open  the same, ``open_seconds`` after the round began      half-open anew: the places are given away

Each of these changes begins a new round. A call belongs to the round it was let through in; how one of an earlier round
ends changes nothing: a crowd that went through before the breaker opened must not fail its probes for them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from sojourn.policy.window import Window

__all__ = ["Breaker", "BreakerState", "BreakerThresholds"]


class BreakerState(Enum):
    """What a breaker does with calls."""

    CLOSED = "closed"
    HALF_OPEN = "half_open"
    OPEN = "open"


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerThresholds:
    """When a circuit breaker opens.

    Args:
        failure_share: Share of the calls of the window that failed, above 0 and up to 1.
        slow_share: Share of those that were slow.
        slow_seconds: From so many seconds a call is slow, also one that was cancelled meanwhile. None: no call is.
        minimum: Fewer calls than this in the window say nothing.
        window: Seconds it looks back.
        buckets: Parts of the window; it is exact to one of them.
    """

    failure_share: float = 0.5
    slow_share: float = 0.5
    slow_seconds: float | None = 5.0
    minimum: int = 20
    window: float = 60.0
    buckets: int = 12

    def __post_init__(self) -> None:
        if not 0 < self.failure_share <= 1 or not 0 < self.slow_share <= 1:
            raise ValueError(f"a share is above 0 and at most 1: {self.failure_share!r}, {self.slow_share!r}")
        if self.minimum < 1:
            raise ValueError(f"a minimum of {self.minimum!r} calls: at least one is needed")
        if self.slow_seconds is not None and not self.slow_seconds > 0:
            raise ValueError(f"slow from {self.slow_seconds!r} s: above zero, or None")


class Breaker:
    """Decides who may call.

    Args:
        thresholds: When it opens.
        open_seconds: How long it stays open; above zero.
        probes: Calls that are let through at once when that is over, and how many must go well; at least one.

    Attributes:
        state: What it does now. It is half-open from the first call that asks, not by itself.
        round: Number of the present round.
        until: Until when it is open, or the places of its probes are theirs.
        window: How the calls went.
    """

    __slots__ = ("_free", "_good", "_needed", "_open_seconds", "round", "state", "thresholds", "until", "window")

    def __init__(self, thresholds: BreakerThresholds, open_seconds: float, probes: int) -> None:
        if not open_seconds > 0 or probes < 1:
            raise ValueError(f"open for {open_seconds!r} s with {probes!r} probes: above zero, and one or more")
        self.thresholds = thresholds
        self.window = Window(thresholds.window, thresholds.buckets)
        self.state = BreakerState.CLOSED
        self.round = 0
        self.until = 0.0
        self._open_seconds = open_seconds
        self._needed = probes
        #: Of the present half-open round: places that are free, and probes that went well.
        self._free = self._good = 0

    def enter(self, now: float) -> int:
        """Somebody asks whether to call.

        Returns:
            The round, for :meth:`leave`, which must follow; -1 when it is refused: try again in ``until - now``.
        """
        if self.state is BreakerState.CLOSED:
            return self.round
        if now >= self.until and (self.state is BreakerState.OPEN or self._free == 0):
            self._become(BreakerState.HALF_OPEN, now)
            self._free, self._good = self._needed, 0
        if self.state is BreakerState.OPEN or self._free == 0:
            return -1
        self._free -= 1
        return self.round

    def leave(self, entered: int, now: float, failed: bool, slow: bool) -> None:
        """A call that was let through has ended, and says something about the dependency.

        Args:
            entered: What :meth:`enter` returned.
            now: Monotonic seconds.
            failed: Whether the dependency failed.
            slow: Whether it took too long.
        """
        if entered != self.round:
            return
        if self.state is BreakerState.CLOSED:
            window = self.window
            window.add(now, failed, slow)
            if (window.failures or window.slow) and self._too_many(window):
                self.trip(now)
        elif failed or slow:
            self.trip(now)
        else:
            self._good += 1
            if self._good >= self._needed:
                self.reset()

    def withdraw(self, entered: int) -> None:
        """A call that was let through has ended, and says nothing: a probe's place is free again."""
        if entered == self.round and self.state is BreakerState.HALF_OPEN:
            self._free += 1

    def trip(self, now: float) -> None:
        """Open, whatever it is now."""
        self._become(BreakerState.OPEN, now)

    def reset(self) -> None:
        """Close, and forget how the calls went."""
        self.state = BreakerState.CLOSED
        self.round += 1
        self.window.clear()

    def _too_many(self, window: Window) -> bool:
        calls, limits = window.calls, self.thresholds
        return calls >= limits.minimum and (
            window.failures >= limits.failure_share * calls or window.slow >= limits.slow_share * calls
        )

    def _become(self, state: BreakerState, now: float) -> None:
        self.state = state
        self.round += 1
        self.until = now + self._open_seconds
