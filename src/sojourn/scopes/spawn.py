"""Tasks of the application's own, each with an owner: the request, its connection, or the server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context
from threading import local
from typing import Any, Final, Literal, NamedTuple, Protocol, TypeVar, cast

from sojourn.scopes.deadline import REQUEST
from sojourn.scopes.failures import WORK, tell_failure
from sojourn.scopes.snapshot import Inherit, inherited
from sojourn.scopes.work import LADDER, Work, launch

__all__ = ["Host", "Lasting", "Owner", "Served", "begin", "host_of", "spawn"]

T = TypeVar("T")

Owner = Literal["request", "connection", "server"]
OWNERS: Final = ("request", "connection", "server")


class Lasting(Protocol):
    """The connection of a request."""

    id: int

    def when_lost(self, call: Callable[[], None]) -> Callable[[], None]:
        """Call a function when it is over. Returns a function that forgets that.

        Raises:
            RuntimeError: It is over.
        """


class Served(Protocol):
    """The request or WebSocket that is served, as its work sees it.

    Attributes:
        task: Runs its application; None when that has returned.
    """

    task: asyncio.Task[None] | None

    @property
    def connection(self) -> Lasting:
        """Its connection."""


class Host(NamedTuple):
    """What a request is to the work that belongs to it.

    Attributes:
        task: Ends with it.
        owner: What reports call it, such as ``connection 12 GET /slow``.
        request: The request itself; None where another server serves it, or none does.
    """

    task: asyncio.Task[Any]
    owner: str
    request: Served | None


class _Kept(local):
    """What a thread's event loop holds so that it is not collected while it runs."""

    tasks: set[asyncio.Task[Any]] | None = None


#: Of tasks that belong to the loop, where no server does it: asyncio knows its tasks only weakly.
_KEPT: Final = _Kept()


def host_of() -> Host:
    """The request that is served here; without one, the task that calls.

    Raises:
        RuntimeError: The request is over, or there is neither.
    """
    request = cast("Served | None", REQUEST.get(None))
    if request is not None:
        task = request.task
        if task is None or task.done():
            raise RuntimeError("the request is over: what begins now belongs to the server")
        owner: str | None = getattr(request, "owner", None)
        return Host(task, owner or f"connection {request.connection.id}", request)
    host: asyncio.Task[Any] | None = asyncio.current_task()
    if host is None:
        raise RuntimeError("no task calls: what begins here can only belong to the server")
    return Host(host, f"task {host.get_name()!r}", None)


def begin(coroutine: Coroutine[Any, Any, T], name: str, context: Context, owner: str) -> asyncio.Task[T]:
    """Run a coroutine that belongs to the server or, without one, to the running loop. Its failure is told."""
    work = WORK.get(None)
    if work is not None:
        task: asyncio.Task[T] = work.launch(coroutine, name, context)
        task.add_done_callback(_Told(owner))
        work.own(task, owner)
        return task
    task = launch(coroutine, name, context)
    task.add_done_callback(_Told(owner))
    kept = _KEPT.tasks
    if kept is None:
        kept = _KEPT.tasks = set()
    kept.add(task)
    task.add_done_callback(kept.discard)
    return task


class _Told:
    """Tells what a task raised. Kept by the task."""

    __slots__ = ("_owner",)

    def __init__(self, owner: str) -> None:
        self._owner = owner

    def __call__(self, task: asyncio.Task[Any]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            tell_failure(task, error, self._owner)


def spawn(
    coroutine: Coroutine[Any, Any, T], *, name: str = "", owner: Owner = "request", inherit: Inherit | None = None
) -> asyncio.Task[T]:
    """Run a coroutine in a task that has an owner, and ends with it at the latest.

    ``request``: it is cancelled when the application has returned from the request or WebSocket that is served here.
    ``connection``: when the connection is closed. ``server``: at the end of its drain, which waits for it as for a
    request. Each is cancelled by the ladder, and named with its stack when it resists. Its error is told as an event
    and in the log, also if somebody awaits it.

    Where no Sojourn server runs the code, or no request is served, ``request`` and ``connection`` mean the task that
    calls, and ``server`` the running event loop.

    Args:
        coroutine: What to run.
        name: What reports call it; the coroutine's own name when empty.
        owner: Whose it is.
        inherit: What it takes along: ``none``; ``deadline``, what bounds the code here; ``security``, who acts here;
            ``all``, every context variable, and the deadline if it belongs to the request. None: ``all`` if it belongs
            to the request, else ``none``: then nobody acts in it, and nothing bounds it.

    Returns:
        The task.

    Raises:
        RuntimeError: Its owner is over, or no event loop runs here.
        ValueError: There is no such owner or ``inherit``.

    Cancel: the task may be cancelled at any time.

    Example:
        >>> import asyncio
        >>> async def refresh():
        ...     await asyncio.sleep(0)
        ...     return "fresh"
        >>> async def main():
        ...     return await spawn(refresh(), name="refresh the cache")
        >>> asyncio.run(main())
        'fresh'
    """
    try:
        if owner not in OWNERS:
            raise ValueError(f"owner is one of {', '.join(OWNERS)}, not {owner!r}")
        asyncio.get_running_loop()
        name = name or getattr(coroutine, "__qualname__", "") or "spawned"
        work = WORK.get(None)
        clean = Context() if work is None else work.context()
        if owner == "server":
            return begin(coroutine, name, inherited(inherit or "none", clean, outlives=True), "the server")
        host = host_of()
        beside = owner == "request" or host.request is None
        chosen: Inherit = inherit or ("all" if owner == "request" else "none")
        context = inherited(chosen, clean, outlives=not beside)
        if beside:
            return _beside(coroutine, name, context, host, work)
        return _with_connection(coroutine, name, context, host)
    except BaseException:
        coroutine.close()
        raise


def _beside(
    coroutine: Coroutine[Any, Any, T], name: str, context: Context, host: Host, work: Work | None
) -> asyncio.Task[T]:
    """A task that ends with another."""
    task = launch(coroutine, name, context) if work is None else work.launch(coroutine, name, context)
    task.host = host.task

    def alone(_: asyncio.Task[Any]) -> None:
        if work is None:
            task.cancel("completed")
        else:
            # One that was cancelled before is in its clean-up, and has as much time for it as between two rungs.
            work.cancel(task, "completed", host.owner, grace=LADDER[0] if task.cancelling() else 0.0)

    host.task.add_done_callback(alone)
    task.add_done_callback(lambda _: host.task.remove_done_callback(alone))
    task.add_done_callback(_Told(host.owner))
    return task


def _with_connection(coroutine: Coroutine[Any, Any, T], name: str, context: Context, host: Host) -> asyncio.Task[T]:
    """A task that ends with a connection."""
    work = WORK.get()
    request = host.request
    assert request is not None
    owner = f"connection {request.connection.id}"

    def lost() -> None:
        work.cancel(task, "connection_ended", owner)

    forget = request.connection.when_lost(lost)
    task = work.launch(coroutine, name, context)
    task.add_done_callback(lambda _: forget())
    task.add_done_callback(_Told(owner))
    return task
