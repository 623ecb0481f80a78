"""Who acts here: an identity that follows the code that acts for it, and nothing else.

It is held in a ContextVar: tasks made inside see it, threads and processes do where :func:`snapshot` or
``sojourn.offload`` carries it. An entry is never changed by those who got a copy, so nothing a child enters is seen by
its parent. Missing means deny, and so does expired.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextvars import ContextVar, Token
from dataclasses import dataclass, field, replace
from inspect import CO_ASYNC_GENERATOR, CO_GENERATOR
from types import CodeType, FrameType, MappingProxyType, TracebackType
from typing import Any, Final, TypeVar, cast

from sojourn.clock import SystemClock
from sojourn.errors import AccessDenied, SecurityContextError
from sojourn.scopes.deadline import REQUEST
from sojourn.scopes.failures import tell_failure
from sojourn.scopes.places import place_of

__all__ = [
    "DEPTH",
    "SecurityContext",
    "acting_as",
    "current_security",
    "entered",
    "reenter",
    "require",
    "security",
    "stream_as",
]

#: So many identities may act for one another.
DEPTH: Final = 16

T = TypeVar("T")

_wall: Final = SystemClock.wall
_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})
_GENERATOR: Final = CO_GENERATOR | CO_ASYNC_GENERATOR
#: Who runs a generator as a context manager: what it enters is meant for the body of the ``with``.
_MANAGERS: Final = frozenset(
    (
        contextlib._GeneratorContextManager.__enter__.__code__,
        contextlib._AsyncGeneratorContextManager.__aenter__.__code__,
    )
)


@dataclass(frozen=True, slots=True)
class SecurityContext:
    """Who acts, and what is known of it. Frozen; pickled without its claims and its parent, so without tokens.

    Args:
        principal: Who: the subject of a token, a user, a service.
        roles: What it may act as.
        tenant: For whose data; None where there are no tenants.
        authn: How it proved who it is, such as ``jwt`` or ``mtls``.
        expires_at: Seconds since 1970 at which that stops counting; None: never.
        policy_version: Of the policy that decided.
        claims: What else was said of it; read-only.
        parent: For whom it acts; set by :func:`acting_as`, which also makes it expire no later.
        depth: How many are around it.

    Raises:
        ValueError: The principal has no name, or ``roles`` is a string.

    Example:
        >>> SecurityContext("alice", roles=frozenset({"editor"})).has_role("editor")
        True
    """

    principal: str
    roles: frozenset[str] = frozenset()
    tenant: str | None = None
    authn: str = ""
    expires_at: float | None = None
    policy_version: str = ""
    claims: Mapping[str, Any] = field(default_factory=lambda: _NOTHING, repr=False, hash=False)
    parent: SecurityContext | None = field(default=None, repr=False, compare=False)
    depth: int = field(default=0, compare=False)

    def __post_init__(self) -> None:
        if not self.principal:
            raise ValueError("a security context says who acts: principal is empty")
        if isinstance(cast(object, self.roles), str):
            raise ValueError(f"roles are a set of names, not one name: {self.roles!r}")
        object.__setattr__(self, "roles", frozenset(self.roles))
        object.__setattr__(self, "claims", MappingProxyType(dict(self.claims)) if self.claims else _NOTHING)

    def __reduce__(self) -> tuple[Any, ...]:
        known = (self.principal, self.roles, self.tenant, self.authn, self.expires_at, self.policy_version)
        return SecurityContext, known

    @property
    def qualified(self) -> str:
        """The principal as ``alice``, of a tenant as ``@acme/alice``: under this name is kept what is somebody's.

        No two of different tenants have the same: a tenant has ``/`` and ``%`` as ``%2F`` and ``%25``, and a principal
        that begins with ``@`` and has no tenant begins with ``@/`` in place of that.
        """
        if not self.tenant:
            return f"@/{self.principal[1:]}" if self.principal.startswith("@") else self.principal
        return f"@{self.tenant.replace('%', '%25').replace('/', '%2F')}/{self.principal}"

    def has_role(self, role: str) -> bool:
        """Whether it may act as this."""
        return role in self.roles

    def expired(self, now: float) -> bool:
        """Whether it has stopped to count.

        Args:
            now: Seconds since 1970.
        """
        return self.expires_at is not None and now >= self.expires_at

    def under(self, parent: SecurityContext | None) -> SecurityContext:
        """The same, acting for another: it expires no later than that.

        Raises:
            SecurityContextError: Too many act for one another already.
        """
        if parent is None:
            return self if self.parent is None and not self.depth else replace(self, parent=None, depth=0)
        if parent.depth + 1 >= DEPTH:
            raise SecurityContextError(f"{DEPTH} identities act for one another already; is one entered in a loop?")
        ends = [end for end in (self.expires_at, parent.expires_at) if end is not None]
        return replace(self, parent=parent, depth=parent.depth + 1, expires_at=min(ends, default=None))


class acting_as:
    """Let the code inside act as somebody; what is around it acts again afterwards.

    ``with acting_as(context):`` may be nested, and each is entered once. Tasks made inside keep the identity when it is
    left here. It is entered and left by the same task. An asynchronous generator must not yield inside: who consumes it
    would act as somebody else. Where that is seen, the error names the generator.

    Args:
        context: Who.

    Raises:
        SecurityContextError: Entered twice, left out of turn or in another task, or too many are nested. On leaving it
            is raised in the place of what the body raised, and has that as its context.

    Cancel: safe.

    Example:
        >>> with acting_as(SecurityContext("alice")):
        ...     security().principal
        'alice'
    """

    __slots__ = ("_code", "_frame", "_given", "_instruction", "_now", "_outer", "_task", "_token", "left")

    _token: Token[acting_as | None]

    def __init__(self, context: SecurityContext) -> None:
        self._given = context
        #: The same as it counts here, under what is around it.
        self._now: SecurityContext | None = None
        self._outer: acting_as | None = None
        self._task: asyncio.Task[Any] | None = None
        #: The frame of the generator that entered it, as long as it is inside.
        self._frame: FrameType | None = None
        self._code: CodeType = acting_as.__init__.__code__
        self._instruction = 0
        #: Whether it is over.
        self.left = False

    @property
    def where(self) -> str:
        """Where it was entered, such as ``app.py:12 in save``."""
        return place_of(self._code, self._instruction)

    @property
    def context(self) -> SecurityContext:
        """Who acts, under those around it."""
        now, outer = self._now, self._outer
        parent = None if outer is None else outer.context
        if now is None or now.parent is not parent:
            now = self._now = self._given.under(parent)
        return now

    def renew(self, context: SecurityContext) -> None:
        """The same identity has proved itself again; seen at once by all that act as it, also in tasks made before.

        Args:
            context: Takes the place of the one it was entered with.

        Raises:
            SecurityContextError: It is somebody else, of another tenant, or may do more than before.
        """
        before = self._given
        if (context.principal, context.tenant) != (before.principal, before.tenant):
            raise SecurityContextError(f"{before.principal!r} can't be renewed as somebody else")
        if not context.roles <= before.roles:
            more = ", ".join(sorted(context.roles - before.roles))
            raise SecurityContextError(f"{before.principal!r} can't be renewed with more roles: {more}")
        self._given, self._now = context, None

    def __enter__(self) -> SecurityContext:
        if self._token_of() is not None:
            raise SecurityContextError("acting_as() is entered once; make another one")
        frame = sys._getframe(1)
        self._code, self._instruction = frame.f_code, frame.f_lasti
        self._outer = outer = _CURRENT.get()
        if outer is not None:
            outer.check_generator()
        context = self.context
        if frame.f_code.co_flags & _GENERATOR and not _is_manager(frame.f_back):
            self._frame = frame
        self._task = task = _running_task()
        if task is not None and (outer is None or outer._task is not task):
            # Only the outermost of a task has to look whether it was left: it finds those inside when it is.
            task.add_done_callback(self._forgotten)
        self._token = _CURRENT.set(self)
        return context

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.left = True
        self._frame = None
        task, found = self._task, _CURRENT.get()
        if task is not None:
            task.remove_done_callback(self._forgotten)
        try:
            _CURRENT.reset(self._token)
        except ValueError:
            raise SecurityContextError(
                f"the security context entered at {self.where} was left in another task or thread; a generator must "
                "not yield inside acting_as()"
            ) from error
        if found is not self:
            inner = "" if found is None else f": the one entered at {found.where} was not left before"
            raise SecurityContextError(f"the security context entered at {self.where} was left out of turn{inner}")

    def check_generator(self) -> None:
        """Whether this is seen by who consumes the generator that entered it.

        Raises:
            SecurityContextError: It is.
        """
        frame = self._frame
        # A generator that stands still has nobody behind it. In another task it may await what that one does.
        if frame is not None and frame.f_back is None and _running_task() is self._task:
            raise SecurityContextError(
                f"a generator yielded inside acting_as(), entered at {self.where}: who consumes it would act as "
                f"{self._given.principal!r}; leave it before each yield, or let stream_as() do that"
            )

    def _token_of(self) -> Token[acting_as | None] | None:
        return getattr(self, "_token", None)

    def _forgotten(self, task: asyncio.Task[Any]) -> None:
        """The task has ended, and this was not left."""
        problem = f"the security context entered at {self.where} was never left"
        connection = getattr(REQUEST.get(None), "connection", None)
        owner = "" if connection is None else f"connection {connection.id}"
        tell_failure(task, SecurityContextError(problem), owner)


_CURRENT: Final[ContextVar[acting_as | None]] = ContextVar("sojourn_security", default=None)


def _is_manager(frame: FrameType | None) -> bool:
    return frame is not None and frame.f_code in _MANAGERS


def _running_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:  # no loop runs in this thread
        return None


def entered() -> acting_as | None:
    """What was entered last and not left; None when nothing was.

    Raises:
        SecurityContextError: A generator has leaked it.
    """
    found = _CURRENT.get()
    if found is not None:
        found.check_generator()
    return found


def reenter(scope: acting_as | SecurityContext | None) -> None:
    """Let somebody act in the present context for as long as it lives; called where a context is new."""
    _CURRENT.set(acting_as(scope) if isinstance(scope, SecurityContext) else scope)


def current_security() -> SecurityContext | None:
    """Who acts here, whether or not that has expired; None when nobody does. For logs, never for decisions."""
    found = _CURRENT.get()
    return None if found is None else found.context


def security() -> SecurityContext:
    """Who acts here.

    Raises:
        SecurityContextError: Nobody does, it has expired, or a generator has leaked it to who consumes it: deny.

    Example:
        >>> security()
        Traceback (most recent call last):
        sojourn.errors.SecurityContextError: nobody acts here: no security context was entered
    """
    found = entered()
    if found is None:
        raise SecurityContextError("nobody acts here: no security context was entered")
    context = found.context
    if context.expired(_wall()):
        raise SecurityContextError(f"the security context of {context.principal!r} has expired")
    return context


def require(*roles: str) -> SecurityContext:
    """Who acts here, if it has all of these roles; without any, whoever it is.

    Raises:
        AccessDenied: A role is missing.
        SecurityContextError: As :func:`security`.

    Example:
        >>> with acting_as(SecurityContext("alice", roles=frozenset({"editor"}))):
        ...     require("editor").principal
        'alice'
    """
    context = security()
    missing = [role for role in roles if role not in context.roles]
    if missing:
        raise AccessDenied(context.principal, f"it lacks {', '.join(missing)}")
    return context


async def stream_as(context: SecurityContext, stream: AsyncIterator[T]) -> AsyncGenerator[T, None]:
    """Let each step of a stream act as somebody, and who consumes it as before.

    Args:
        context: Who.
        stream: Runs as that, also while it is closed.

    Raises:
        SecurityContextError: Too many identities are nested.

    Cancel: safe; a stream that is a generator is closed.

    Example:
        >>> import asyncio
        >>> async def lines():
        ...     yield security().principal
        >>> async def main():
        ...     async for line in stream_as(SecurityContext("alice"), lines()):
        ...         print(line, current_security())
        >>> asyncio.run(main())
        alice None
    """
    try:
        while True:
            with acting_as(context):
                try:
                    item = await anext(stream)
                except StopAsyncIteration:
                    return
            yield item
    finally:
        close = getattr(stream, "aclose", None)
        if close is not None:
            with acting_as(context):
                await close()
