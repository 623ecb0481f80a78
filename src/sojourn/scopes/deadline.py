"""The ambient deadline: set once, seen by everything that is called, only ever tightened.

A deadline belongs to the task that entered it and bounds what that task awaits. Tasks made inside see it: what they ask
for is clamped by it, and a deadline of theirs is never later. When its moment comes the task is cancelled by the ladder
of ``work``: once, then again on a timer; at the second rung what it waits for is aborted; at last it is named. Whatever
the body does with the cancellation, a deadline that was missed raises when the body ends.
"""

from __future__ import annotations

import asyncio
import sys
from contextvars import Context, ContextVar, Token
from types import CodeType, TracebackType
from typing import Any, Final, Protocol

from sojourn.clock import NEVER, SystemClock
from sojourn.errors import DeadlineExceeded
from sojourn.events import TaskSurvived
from sojourn.scopes.aborts import abort_all
from sojourn.scopes.alarms import AGAIN, alarms
from sojourn.scopes.places import place_of
from sojourn.scopes.work import LADDER, stack_of

__all__ = [
    "REQUEST",
    "Bound",
    "Deadline",
    "Limit",
    "bound_by",
    "current_limit",
    "deadline",
    "exceeded",
    "free",
    "inherit",
    "passed",
    "remaining",
    "timeout_at",
]

_monotonic: Final = SystemClock.monotonic
#: Seconds: a moment so near has come. Loops round their timers.
_SOON: Final = 0.001


class Limit(Protocol):
    """What sets a limit: a deadline, or the request that is served."""

    @property
    def moment(self) -> float:
        """When it passes, in seconds of the monotonic clock."""

    @property
    def name(self) -> str:
        """What errors call it."""

    @property
    def seconds(self) -> float:
        """Its length."""

    @property
    def where(self) -> str:
        """Where it was set, such as ``app.py:12 in save``."""


class Bound(Protocol):
    """The request that is served."""

    def bound(self) -> Limit | None:
        """What bounds it; None when nothing does, or it is over."""


#: What is served in the present context.
REQUEST: Final[ContextVar[Bound]] = ContextVar("sojourn_request")
_CURRENT: Final[ContextVar[Deadline | None]] = ContextVar("sojourn_deadline", default=None)


class Deadline:
    """A bound on what a task awaits; made by :func:`deadline`.

    Attributes:
        name: What errors and reports call it.
        seconds: Its length as it was asked for; NEVER when it only passes on what is around it.
        moment: When its own length is over, in seconds of the monotonic clock.
        left: Whether it is over.
    """

    __slots__ = (
        "__weakref__",
        "_armed",
        "_cancelling",
        "_cancels",
        "_code",
        "_instruction",
        "_missed",
        "_outer",
        "_request",
        "_since",
        "_task",
        "_token",
        "left",
        "moment",
        "name",
        "seconds",
    )

    _token: Token[Deadline | None]

    def __init__(self, seconds: float, moment: float, name: str, code: CodeType, instruction: int) -> None:
        self.name = name
        self.seconds = seconds
        self.moment = moment
        self.left = False
        self._code = code
        self._instruction = instruction
        self._outer: Deadline | None = None
        self._request: Bound | None = None
        self._task: asyncio.Task[Any] | None = None
        #: Whether it has an alarm of its own: what is around it in the same task may ring first, and does for both.
        self._armed = False
        #: How often it has cancelled its task, and which limit was missed; None: this one, which must not hold itself.
        self._cancels = 0
        self._missed: Limit | None = None

    @property
    def where(self) -> str:
        """Where it was set, such as ``app.py:12 in save``."""
        return place_of(self._code, self._instruction)

    @property
    def remaining(self) -> float | None:
        """Seconds that are left, 0.0 when it has passed; None without any limit."""
        return _left_of(self._limit())

    def tighten(self, seconds: float) -> None:
        """Let it pass ``seconds`` from now, if that is earlier.

        Raises:
            RuntimeError: It is not entered.
        """
        if self._task is None:
            raise RuntimeError(f"deadline {self.name!r} is not entered")
        moment = _monotonic() + seconds
        if moment < self.moment:
            self.moment, self.seconds = moment, seconds
            self._arm(moment)

    def _arm(self, moment: float) -> None:
        if self._armed:
            alarms().replace(moment, self)
        else:
            self._armed = True
            alarms().add(moment, self)

    def _limit(self) -> Limit | None:
        """The earliest of this one, of those around it that are not over, and of the request; None without any."""
        found: Limit | None = self if self.moment < NEVER and not self.left else None
        outer = self._outer
        if outer is None and self._request is None:
            return found
        while outer is not None:
            if not outer.left and outer.moment < NEVER and (found is None or outer.moment <= found.moment):
                found = outer
            outer = outer._outer
        if self._request is not None:
            limit = self._request.bound()
            if limit is not None and (found is None or limit.moment < found.moment):
                found = limit
        return found

    async def __aenter__(self) -> Deadline:
        if self._task is not None or self.left:
            raise RuntimeError("a deadline is entered once; make another one")
        task: asyncio.Task[Any] | None = asyncio.current_task()
        if task is None:
            raise RuntimeError("a deadline needs a task: that is what it cancels")
        now = alarms().now()
        if fresh := self.moment == NEVER:
            self.moment = now + self.seconds
        outer = _CURRENT.get()
        if outer is None:
            self._request = REQUEST.get(None)
        else:
            self._outer, self._request = outer, outer._request
        limit = self._limit()
        if limit is not None:
            # The alarm of a moment that was set before may have rung already, a little early.
            if limit.moment <= now or (not (fresh and limit is self) and passed(limit)):
                self.left = True
                raise exceeded(limit)
            if limit is self or outer is None or outer.left or outer._task is not task:
                self._arm(limit.moment)
        self._task = task
        self._cancelling = task.cancelling()
        self._token = _CURRENT.set(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.left = True
        task, self._task = self._task, None
        try:
            _CURRENT.reset(self._token)
        except ValueError:
            # A generator that somebody else ended: the variable is that one's, and who has left bounds nobody.
            pass
        del self._token  # it has the whole context, and the alarms have this one for a while
        if not self._armed or task is None:
            return
        cancels = self._cancels
        if cancels == 0:
            # If it is late nevertheless, because nothing could run: the result is here, and is not thrown away.
            alarms().leave()
            return
        cancelling = task.uncancel()
        if cancels > 1:
            for _ in range(1, min(cancels, len(LADDER))):
                cancelling = task.uncancel()
            if cancels > len(LADDER):
                self._tell(task, _monotonic(), ended=True)
            else:
                alarms().leave()
        if kind is None or (issubclass(kind, asyncio.CancelledError) and cancelling <= self._cancelling):
            raise exceeded(self._missed or self) from error

    def ring(self, now: float) -> float:
        """Its moment has come, or that of the next rung of the ladder. Returns when to ring again, or NEVER."""
        rung, task = self._cancels, self._task
        if task is None:
            return NEVER
        if rung == 0:
            limit = self._limit()
            if limit is None or limit.moment > now + _SOON:
                # It was the request's, which has answered since, or was given more time.
                self._armed = limit is not None
                return NEVER if limit is None else limit.moment
            self._since = now
            if limit is not self:
                self._missed = limit
        self._cancels = rung + 1
        if rung == len(LADDER):
            self._tell(task, now, ended=False)
            return NEVER
        if rung:
            abort_all(task)
        task.cancel(f"deadline {(self._missed or self).name}")
        return self._since + LADDER[rung] if rung else AGAIN

    def _tell(self, task: asyncio.Task[Any], now: float, *, ended: bool) -> None:
        missed = self._missed or self
        cause = f"deadline {missed.name!r} of {missed.seconds:g} s, set at {missed.where}"
        stack = "" if ended else stack_of(task)
        alarms().tell(TaskSurvived(task.get_name(), "deadline", cause, now - self._since, stack, ended))


def _free() -> Deadline:
    scope = Deadline(NEVER, NEVER, "free", _free.__code__, 0)
    scope.left = True
    return scope


#: Inside it nothing bounds: not what is around it, and not the request.
_FREE: Final = _free()


def current_limit() -> Limit | None:
    """What bounds the present code: the earliest of the deadlines it is in and of the request; None without any."""
    scope = _CURRENT.get()
    if scope is not None:
        return scope._limit()
    request = REQUEST.get(None)
    return None if request is None else request.bound()


def remaining() -> float | None:
    """Seconds until the ambient deadline.

    Returns:
        0.0 when it has passed; None when there is none. In a thread too, where the context was copied into it.

    Example:
        >>> remaining() is None
        True
    """
    return _left_of(current_limit())


def free() -> None:
    """Let nothing that is around the present context bound it any more; for what outlives its request.

    Called where a context is new: in a copy, before the task that runs in it is made.
    """
    _CURRENT.set(_FREE)


def inherit(context: Context) -> None:
    """Let what bounds the present code bound what runs in another context, too."""
    scope = _CURRENT.get()
    context.run(bound_by, scope, REQUEST.get(None) if scope is None else scope._request)


def bound_by(outer: Deadline | None, request: Bound | None) -> None:
    """Let a deadline, and a request or what stands for one, bound the present context; called where it is new."""
    scope = Deadline(NEVER, NEVER, "inherited", bound_by.__code__, 0)
    scope.left = True  # by itself it is no limit
    scope._outer, scope._request = outer, request
    _CURRENT.set(scope)


def _left_of(limit: Limit | None) -> float | None:
    return None if limit is None else max(0.0, limit.moment - _monotonic())


def exceeded(limit: Limit) -> DeadlineExceeded:
    """The error that says which deadline passed."""
    return DeadlineExceeded(limit.name, limit.seconds, limit)


def passed(limit: Limit | None) -> bool:
    """Whether its moment has come; alarms may ring so much early."""
    return limit is not None and limit.moment <= _monotonic() + _SOON


def deadline(seconds: float | None, name: str = "deadline") -> Deadline:
    """Bound everything that is awaited inside; only ever tightens.

    Inside, :func:`remaining` says what is left, and the clients of ``sojourn.clients`` wait no longer. The bound in
    force is the earliest of this one, of those around it, and of what is left of the request that is served. Works
    under any server, and without one.

    Args:
        seconds: Its length. None: only what is around it counts, also in a task that was made inside that.
        name: What errors, reports and metrics call it, such as ``"db.save"``.

    Raises:
        DeadlineExceeded: On entering, when no time is left: nothing is begun then. On leaving, when it was missed, also
            if the body swallowed the cancellation. It names the deadline that was in force, and where it was set.
        ValueError: The length is not a number.
        RuntimeError: Entered twice, or outside a task.

    Cancel: safe. A cancellation from outside is never taken for the deadline's own.

    Example:
        >>> import asyncio
        >>> async def main():
        ...     async with deadline(0.3, "db.save"):
        ...         await asyncio.sleep(0)
        >>> asyncio.run(main())
    """
    if seconds is None:
        seconds = NEVER
    elif seconds != seconds:
        raise ValueError(f"deadline {name!r} has no length: {seconds!r}")
    frame = sys._getframe(1)
    return Deadline(seconds, NEVER, name, frame.f_code, frame.f_lasti)


def timeout_at(when: float | None, name: str = "deadline") -> Deadline:
    """As :func:`deadline`, with a moment instead of a length.

    Args:
        when: A moment of ``loop.time()``, which is that of ``time.monotonic()``, as for ``asyncio.timeout_at``. None:
            only what is around it counts.
        name: What errors, reports and metrics call it.

    Raises:
        ValueError: The moment is not a number.

    Cancel: safe, as :func:`deadline`.
    """
    if when is None:
        when = NEVER
    elif when != when:
        raise ValueError(f"deadline {name!r} has no moment: {when!r}")
    frame = sys._getframe(1)
    return Deadline(max(0.0, when - _monotonic()), when, name, frame.f_code, frame.f_lasti)
