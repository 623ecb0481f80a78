"""How long one call may take, and what is said when that was not enough: what all clients here share.

A call may take the shortest of three: what its client allows it, the budget that the operator gave to the dependency,
and what the ambient deadline leaves. That is in total, from the wait for a connection to the last byte of the answer.
"""

from __future__ import annotations

import asyncio
import sys
from types import CodeType, TracebackType
from typing import Any, Final

from sojourn.clock import NEVER
from sojourn.errors import DeadlineExceeded, PoolWaitExceeded
from sojourn.scopes.budget import BUDGETS
from sojourn.scopes.deadline import Deadline, Limit, current_limit, passed

__all__ = ["PoolWait", "Total", "clamped"]

#: Whose frames are not where a call was made.
_LIBRARIES: Final = frozenset("sojourn aiohttp asyncio asyncpg contextlib grpc httpx redis sqlalchemy".split())
#: Frames between a client and who calls it, at most.
_NEAR: Final = 40


def _caller() -> tuple[CodeType, int]:
    """Where a call was made: the innermost frame that is not of a library."""
    first = frame = sys._getframe(2)
    for _ in range(_NEAR):
        if frame.f_globals.get("__name__", "").partition(".")[0] not in _LIBRARIES:
            return frame.f_code, frame.f_lasti
        if frame.f_back is None:
            break
        frame = frame.f_back
    return first.f_code, first.f_lasti


def clamped(dependency: str, own: float | None = None) -> Deadline:
    """What a call of a dependency may take; only ever tightens what is around it.

    Args:
        dependency: Its name, in ``deadlines.budgets`` of the configuration and in errors.
        own: What the client allows the call, in seconds. None: no limit of its own.
    """
    budgets = BUDGETS.get(None)
    seconds = NEVER if budgets is None else budgets.seconds.get(dependency, NEVER)
    if own is not None and own < seconds:
        seconds = own
    code, instruction = (clamped.__code__, 0) if seconds == NEVER else _caller()
    return Deadline(seconds, NEVER, dependency, code, instruction)


class Total:
    """One moment for all steps of a call, of which the last are taken by whoever reads the answer.

    Between the steps the caller's own code runs and is not cancelled.

    Args:
        dependency: Name of what is called.

    Attributes:
        limit: What bounds the call; None when nothing does. There from the time the first step is entered.
    """

    __slots__ = ("_code", "_instruction", "first", "limit")

    def __init__(self, dependency: str) -> None:
        #: The deadline of the first step.
        self.first = clamped(dependency)
        self._code, self._instruction = self.first._code, self.first._instruction
        self.limit: Limit | None = None

    def begin(self) -> float | None:
        """Call it inside :attr:`first`. Returns the seconds that are left for all; None without any limit."""
        self.limit = current_limit()
        return self.first.remaining

    def step(self) -> Deadline:
        """The deadline of a further step."""
        limit = self.limit
        if limit is None:
            return Deadline(NEVER, NEVER, self.first.name, self._code, self._instruction)
        return Deadline(limit.seconds, limit.moment, limit.name, self._code, self._instruction)


class PoolWait:
    """Inside, a deadline that passes is told as what it is: a wait for a connection of a pool.

    Args:
        pool: Name of the pool.

    Raises:
        PoolWaitExceeded: In place of a DeadlineExceeded, or of the cancellation by which a deadline around it ends.
    """

    __slots__ = ("_cancelling", "_pool", "_task")

    def __init__(self, pool: str) -> None:
        self._pool = pool

    def __enter__(self) -> None:
        self._task: asyncio.Task[Any] | None = asyncio.current_task()
        self._cancelling = 0 if self._task is None else self._task.cancelling()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, DeadlineExceeded):
            if not isinstance(error, PoolWaitExceeded):
                raise PoolWaitExceeded(self._pool, error.deadline, error.seconds, error.where) from error
        elif isinstance(error, asyncio.CancelledError) and self._task is not None:
            limit = current_limit()
            # One cancellation, and a deadline that has passed: it is the deadline's. With a second one somebody else
            # wants the task to end as well, and that must not be lost.
            if limit is not None and passed(limit) and self._task.cancelling() == self._cancelling + 1:
                raise PoolWaitExceeded(self._pool, limit.name, limit.seconds, limit) from error
