"""A circuit breaker: a dependency that fails is not called for a while, so it can recover and nobody waits for it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Final, ParamSpec, TypeVar

from sojourn.clock import NEVER, Clock, SystemClock
from sojourn.errors import CircuitOpen
from sojourn.events import CircuitChanged
from sojourn.guards.blame import Failures, is_failure
from sojourn.guards.decorator import decorated
from sojourn.guards.registry import GUARDS, Figures, Guards, met
from sojourn.policy.breaker import Breaker, BreakerState, BreakerThresholds

__all__ = ["CircuitBreaker"]

P = ParamSpec("P")
T = TypeVar("T")

_CLOSED: Final = BreakerState.CLOSED
_NUMBERS: Final = {BreakerState.CLOSED: 0, BreakerState.HALF_OPEN: 1, BreakerState.OPEN: 2}
_OUTCOMES: Final = ("success", "failure", "slow", "undecided", "refused")

#: The ``async with`` blocks of breakers that the present context is in, innermost first: breaker, round, when it was
#: entered, and the next one. A breaker is shared by many calls at once, so it can't keep that itself.
_Entry = tuple["CircuitBreaker", int, float, Any]
_ENTRIES: Final[ContextVar[_Entry | None]] = ContextVar("sojourn_breakers", default=None)


class CircuitBreaker:
    """Lets calls to a dependency through, until too many fail or take too long; then refuses them for a while.

    After ``open_seconds`` a few calls are let through as probes: if all go well, it closes; if one does not, it stays
    open for as long again. ``async with breaker:``, ``await breaker.call(...)`` and ``@breaker`` do the same.

    What counts is how the dependency did, not how the caller did:

    - An error of ``failures`` is a failure, any other is an answer, such as "not found".
    - A :class:`sojourn.DeadlineExceeded` is a failure if the deadline bears the breaker's name, or begins with that and
      a dot, as ``payments.charge`` does: it says what this dependency may take (:func:`sojourn.budget`).
    - A cancellation, because the client left or a deadline around it all passed, says nothing, and neither does another
      deadline's DeadlineExceeded. But if the call had taken ``slow_seconds`` by then it was slow, whoever ended it:
      else a dependency that never answers would never be found out where only requests have deadlines.
    - What a guard inside refused says nothing.

    Args:
        name: Of the dependency; errors and metrics call it so.
        thresholds: When it opens; None takes :class:`sojourn.BreakerThresholds` as it is.
        open_seconds: How long it stays open.
        probes: How many calls must go well before it closes, and may run at once until then.
        failures: Errors that mean that the dependency failed: a type, several, or a function that is asked.
        clock: Where time comes from.

    Attributes:
        name: As given.
        running: Calls that are let through and have not ended.

    Belongs to one event loop, as what it guards does.

    Example:
        >>> import asyncio
        >>> payments = CircuitBreaker("payments")
        >>> async def main():
        ...     async with payments:
        ...         await asyncio.sleep(0)
        >>> asyncio.run(main())
        >>> payments.state
        'closed'
    """

    __slots__ = tuple("__weakref__ _counts _failures _guards _machine _monotonic _slow _told name running".split())

    kind: Final = "breaker"

    def __init__(
        self,
        name: str,
        thresholds: BreakerThresholds | None = None,
        *,
        open_seconds: float = 10.0,
        probes: int = 3,
        failures: Failures = Exception,
        clock: Clock | None = None,
    ) -> None:
        self.name = name
        self.running = 0
        self._machine = Breaker(thresholds or BreakerThresholds(), open_seconds, probes)
        slow = self._machine.thresholds.slow_seconds
        self._slow = NEVER if slow is None else slow
        self._failures = failures
        self._monotonic = (clock or SystemClock()).monotonic
        self._counts = dict.fromkeys(_OUTCOMES, 0)
        self._guards: Guards | None = None
        #: Whether it was told that it is open.
        self._told = False

    @property
    def state(self) -> str:
        """``closed``, ``open`` or ``half_open``; it is half-open from the first call that asks."""
        return self._machine.state.value

    def trip(self) -> None:
        """Open, by hand."""
        self._machine.trip(self._monotonic())
        self._tell("by hand")

    def reset(self) -> None:
        """Close, and forget how the calls went."""
        self._machine.reset()
        self._tell("by hand")

    def figures(self) -> Figures:
        """For the metrics."""
        return Figures(self._counts, self.running, state=_NUMBERS[self._machine.state])

    async def __aenter__(self) -> CircuitBreaker:
        now = self._monotonic()
        _ENTRIES.set((self, self._enter(now), now, _ENTRIES.get()))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        entry = _ENTRIES.get()
        if entry is not None and entry[0] is self:
            _ENTRIES.set(entry[3])
            self._leave(entry[1], entry[2], error)
        else:
            # Left in another context than entered, as a generator is that somebody else closes: when it was entered is
            # not known. If it was a probe, its place becomes free with the next round.
            self.running -= 1
            self._counts["undecided"] += 1

    async def call(self, function: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Await ``function(*args, **kwargs)``, if it is let through.

        Raises:
            CircuitOpen: It is not.

        Cancel: safe.
        """
        began = self._monotonic()
        entered = self._enter(began)
        try:
            result = await function(*args, **kwargs)
        except BaseException as error:
            self._leave(entered, began, error)
            raise
        self._leave(entered, began, None)
        return result

    def __call__(self, function: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
        """Guard all calls of an ``async def`` function."""
        return decorated(self, function)

    def _enter(self, now: float) -> int:
        guards = GUARDS.get()
        if guards is not self._guards:
            self._guards = met(guards, self)
        entered = self._machine.enter(now)
        if entered < 0:
            self._counts["refused"] += 1
            machine = self._machine
            left = max(0.0, machine.until - now)
            what = "is open" if machine.state is BreakerState.OPEN else "tries whether it can close"
            raise CircuitOpen(self.name, f"the circuit {what}; try again in {left:.3g} s", left)
        self.running += 1
        return entered

    def _leave(self, entered: int, began: float, error: BaseException | None) -> None:
        self.running -= 1
        now = self._monotonic()
        slow = now - began >= self._slow
        failed = False
        if error is not None:
            verdict = is_failure(error, self.name, self._failures)
            if verdict is None and not slow:
                self._counts["undecided"] += 1
                self._machine.withdraw(entered)
                return
            failed = verdict is True
        self._counts["failure" if failed else "slow" if slow else "success"] += 1
        self._machine.leave(entered, now, failed, slow)
        if (self._machine.state is _CLOSED) is self._told:
            self._tell()

    def _tell(self, why: str = "") -> None:
        """Tell that it has opened, or closed; half-open it is neither."""
        machine = self._machine
        is_open = machine.state is not _CLOSED
        if is_open is self._told:
            return
        self._told = is_open
        if self._guards is not None:
            seen = str(machine.window) if is_open else "the dependency answers again"
            self._guards.bus.emit(CircuitChanged(self.name, is_open, why or seen))
