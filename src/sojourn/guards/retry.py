"""Trying again: only what may be done twice, not all at once, not too often in all, and never past the deadline."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Final, ParamSpec, TypeVar

from sojourn.clock import Clock, SystemClock
from sojourn.guards.decorator import decorated
from sojourn.guards.registry import GUARDS, Figures, Guards, met
from sojourn.policy.retry import Backoff, RetryBudget, retry_after_of
from sojourn.scopes.deadline import remaining

__all__ = ["Retry", "Retryable"]

P = ParamSpec("P")
T = TypeVar("T")

#: Errors after which to try again, or a function that says whether to.
Retryable = type[Exception] | tuple[type[Exception], ...] | Callable[[Exception], bool]

_OUTCOMES: Final = ("first", "retried", "final", "attempts", "deadline", "budget", "retry_after", "cancelled")


class Retry:
    """Tries a call again when it fails: ``await retry.call(function, ...)``, or ``@retry``.

    It says nothing about what may be tried twice, so you do: guard only what is idempotent, and name the errors after
    which another try makes sense. The wait grows with each try and is different for each caller; where the error says
    how long to wait (``Retry-After``, :class:`sojourn.CircuitOpen`), no less than that. The last error is raised, with
    a note that says why there was no other try:

    - ``attempts``: there were as many as there may be.
    - ``deadline``: the wait does not fit into what is left of the ambient deadline. It is not begun then.
    - ``retry_after``: whoever refused asks to wait for longer than ten times the longest backoff.
    - ``budget``: too many of all calls are retries already.

    Args:
        name: Of the dependency; metrics call it so.
        on: Errors after which to try again: a type, several, or a function that is asked. A cancellation is none.
        attempts: Tries in all, the first included.
        backoff: How long to wait; None takes :class:`sojourn.Backoff` as it is.
        budget: How many retries all calls together are given; None takes a :class:`sojourn.RetryBudget` of its own.
        clock: Where time comes from.

    Attributes:
        name: As given.
        running: Calls that have not ended.
        chance: Returns a number from 0 to 1; ``random.random``.

    Example:
        >>> import asyncio
        >>> prices = Retry("prices", on=ConnectionError)
        >>> @prices
        ... async def price(item):
        ...     return 12
        >>> asyncio.run(price("tea"))
        12
    """

    __slots__ = (
        "__weakref__",
        "_attempts",
        "_backoff",
        "_budget",
        "_clock",
        "_counts",
        "_guards",
        "_on",
        "_waiting",
        "chance",
        "name",
        "running",
    )

    kind: Final = "retry"

    def __init__(
        self,
        name: str,
        on: Retryable,
        *,
        attempts: int = 3,
        backoff: Backoff | None = None,
        budget: RetryBudget | None = None,
        clock: Clock | None = None,
    ) -> None:
        if attempts < 1:
            raise ValueError(f"retry {name!r}: {attempts!r} attempts; at least one is needed")
        self.name = name
        self.running = self._waiting = 0
        self.chance: Callable[[], float] = random.random
        self._on = on
        self._attempts = attempts
        self._backoff = backoff or Backoff()
        self._budget = budget or RetryBudget()
        self._clock: Clock = clock or SystemClock()
        self._counts = dict.fromkeys(_OUTCOMES, 0)
        self._guards: Guards | None = None

    def figures(self) -> Figures:
        """For the metrics. Calls ``first`` and ``retried`` succeeded; ``final`` ones failed by another error."""
        return Figures(self._counts, self.running, self._waiting)

    async def call(self, function: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Await ``function(*args, **kwargs)``, and again while it fails as it may.

        Raises:
            Exception: What the last try raised.

        Cancel: safe, also while it waits.
        """
        guards = GUARDS.get()
        if guards is not self._guards:
            self._guards = met(guards, self)
        self._budget.called()
        self.running += 1
        tries, outcome = 1, "cancelled"
        try:
            while True:
                try:
                    result = await function(*args, **kwargs)
                except Exception as error:
                    verdict = self._judge(error, tries)
                    if isinstance(verdict, str):
                        outcome = verdict
                        raise
                else:
                    outcome = "first" if tries == 1 else "retried"
                    return result
                await self._pause(verdict)
                tries += 1
        finally:
            self.running -= 1
            self._counts[outcome] += 1

    def __call__(self, function: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
        """Try all calls of an ``async def`` function again."""
        return decorated(self, function)

    def _judge(self, error: Exception, tries: int) -> float | str:
        """After how many seconds to try again; or why not, in one word."""
        on = self._on
        if not (isinstance(error, on) if isinstance(on, type | tuple) else on(error)):
            return "final"
        asked = retry_after_of(error, self._clock.wall())
        delay = max(self._backoff.delay(tries, self.chance()), asked or 0.0)
        left = remaining()
        if tries >= self._attempts:
            word, why = "attempts", "there may be no more"
        elif left is not None and delay >= left:
            word, why = "deadline", f"the next is due in {delay:.3g} s, and {left:.3g} s are left"
        elif asked is not None and asked > self._backoff.patience:
            word, why = "retry_after", f"the next is asked for in {asked:.3g} s"
        elif not self._budget.take(self._clock.monotonic()):
            word, why = "budget", "too many calls are retries"
        else:
            return delay
        error.add_note(f"retry {self.name!r} gave up after {tries} of {self._attempts} attempts ({word}): {why}")
        return word

    async def _pause(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        over = loop.create_future()
        timer = loop.call_later(seconds, _end, over)
        self._waiting += 1
        try:
            await over
        finally:
            self._waiting -= 1
            timer.cancel()


def _end(over: asyncio.Future[None]) -> None:
    # It is cancelled when its task is, whose next step takes the timer back: it may ring before.
    if not over.done():
        over.set_result(None)
