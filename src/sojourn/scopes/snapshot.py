"""What surrounds the present code, to be taken along: who acts, how long there is time, and what else was set."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Context, copy_context
from typing import Final, Literal, NamedTuple, ParamSpec, TypeVar

from sojourn.clock import SystemClock
from sojourn.scopes import deadline
from sojourn.scopes.context import SecurityContext, current_security, entered, reenter
from sojourn.scopes.deadline import Limit, bound_by, current_limit, free

__all__ = ["INHERIT", "Inherit", "Snapshot", "inherited", "snapshot"]

P = ParamSpec("P")
T = TypeVar("T")

Inherit = Literal["none", "deadline", "security", "all"]
INHERIT: Final = ("none", "deadline", "security", "all")

_monotonic: Final = SystemClock.monotonic


class _Fixed(NamedTuple):
    """A limit that came from elsewhere."""

    moment: float
    name: str
    seconds: float
    where: str

    def bound(self) -> Limit:
        return self


class Snapshot:
    """What surrounded the code that took it. Make one with :func:`snapshot`.

    It can be pickled, for another process of this machine: then who acts goes along, without claims, and how much time
    is left; other context variables stay behind.
    """

    __slots__ = ("_context",)

    def __init__(self, context: Context) -> None:
        self._context = context

    @property
    def security(self) -> SecurityContext | None:
        """Who acted; None when nobody did."""
        return self._context.copy().run(current_security)

    def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function as if it were called where the snapshot was taken, in any thread, as often as it is wanted.

        Returns:
            What the function returns. What it sets is seen by nobody else.
        """
        return self._context.copy().run(function, *args, **kwargs)

    def __reduce__(self) -> tuple[object, ...]:
        limit = self._context.copy().run(current_limit)
        left = None
        if limit is not None:
            left = (limit.moment - _monotonic(), limit.name, limit.seconds, limit.where)
        return _restored, (self.security, left)


def _restored(security: SecurityContext | None, left: tuple[float, str, float, str] | None) -> Snapshot:
    context = Context()
    context.run(reenter, security)
    if left is not None:
        # Seconds and not the moment: that of another machine, or of another clock, would mean nothing here.
        context.run(bound_by, None, _Fixed(_monotonic() + left[0], *left[1:]))
    return Snapshot(context)


def snapshot() -> Snapshot:
    """What surrounds the present code: who acts, the ambient deadline, all context variables.

    Raises:
        SecurityContextError: A generator has leaked who acts here.

    Example:
        >>> from sojourn.scopes.context import acting_as, security
        >>> with acting_as(SecurityContext("alice")):
        ...     taken = snapshot()
        >>> taken.run(security).principal
        'alice'
    """
    entered()
    return Snapshot(copy_context())


def inherited(inherit: Inherit, clean: Context, *, outlives: bool) -> Context:
    """A context for work that is begun here.

    Args:
        inherit: What it takes along: ``none``; ``deadline``, what bounds the present code; ``security``, who acts;
            ``all``, every context variable.
        clean: What it has besides, unless it is ``all``.
        outlives: Whether it may run on when what surrounds it here is over. Then ``all`` is without the deadline.

    Raises:
        ValueError: There is no such ``inherit``.
        SecurityContextError: A generator has leaked who acts here.
    """
    if inherit not in INHERIT:
        raise ValueError(f"inherit is one of {', '.join(INHERIT)}, not {inherit!r}")
    scope = entered()
    if inherit == "all":
        context = copy_context()
        if outlives:
            context.run(free)
        return context
    context = clean
    if inherit == "security":
        context.run(reenter, scope)
    elif inherit == "deadline":
        deadline.inherit(context)
    return context
