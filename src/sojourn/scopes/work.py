"""Owned tasks. The only place where tasks are made.

A task belongs to a request, a connection or the server, and never outlives its owner silently: when the owner ends, the
task is cancelled by a ladder (once, then again on a timer), and one that resists is named with its stack and watched
until it ends at last.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, Final, Protocol, TypeVar

from sojourn.bus import Bus
from sojourn.events import TaskSurvived

T = TypeVar("T")

__all__ = ["LADDER", "Later", "Work", "stack_of"]

#: Seconds after the first cancellation at which a task is cancelled again, and at which, at last, it is named. The gaps
#: leave an application time for its own clean-up; a busy loop of cancellations would leave it none.
LADDER: Final = (0.5, 1.0, 2.0, 3.0)


class Later(Protocol):
    """Something that calls a function after a delay in seconds: the worker's ticker."""

    now: float

    def call_later(self, delay: float, callback: Callable[[], None]) -> Any: ...


def stack_of(task: asyncio.Task[Any]) -> str:
    """Where a task stands, innermost call last; "" when it has no Python frames left."""
    lines: list[str] = []
    coroutine: Any = task.get_coro()
    while coroutine is not None:
        frame = getattr(coroutine, "cr_frame", None) or getattr(coroutine, "gi_frame", None)
        if frame is not None:
            lines.extend(traceback.format_stack(frame, limit=1))
        coroutine = getattr(coroutine, "cr_await", None) or getattr(coroutine, "gi_yieldfrom", None)
    return "".join(lines)


class Work:
    """The tasks of a worker.

    Args:
        loop: Where they run.
        later: The worker's ticker.
        bus: Where survivors are reported.
        context: What was set before the server started; each request gets a copy.
    """

    __slots__ = ("_bus", "_context", "_later", "_loop", "_owned", "survivors")

    def __init__(self, loop: asyncio.AbstractEventLoop, later: Later, bus: Bus, context: Context) -> None:
        self._loop = loop
        self._later = later
        self._bus = bus
        self._context = context
        self._owned: set[asyncio.Task[Any]] = set()
        #: Tasks that have been cancelled and still run.
        self.survivors: dict[asyncio.Task[Any], str] = {}

    def start(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a request's coroutine in a context of its own. The caller is its owner and keeps the task."""
        # A name of its own would be formatted anew for each request; the owner knows whose task it is.
        return asyncio.Task(coroutine, loop=self._loop, name="request", context=self._context.copy())

    def own(self, task: asyncio.Task[Any]) -> None:
        """The server becomes the owner: the task is waited for and cancelled at shutdown."""
        if not task.done():
            self._owned.add(task)
            task.add_done_callback(self._owned.discard)

    def spawn(self, coroutine: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Run a coroutine that belongs to the server, in a context of its own."""
        task = asyncio.Task(coroutine, loop=self._loop, name=name, context=self._context.copy())
        self.own(task)
        return task

    def run(self, coroutine: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """Run a coroutine whose result the caller awaits; the caller is its owner."""
        return asyncio.Task(coroutine, loop=self._loop, name=name, context=self._context.copy())

    @property
    def running(self) -> tuple[asyncio.Task[Any], ...]:
        """Tasks the server owns, cancelled ones that still run included."""
        return (*self._owned, *(task for task in self.survivors if task not in self._owned))

    def cancel(self, task: asyncio.Task[Any], cause: str, owner: str) -> None:
        """Cancel by the ladder. Nothing happens when the task has ended or stands on the ladder already.

        Args:
            task: Whom.
            cause: The reason word; becomes the message of the CancelledError.
            owner: What the task belonged to, for the report.
        """
        if task.done() or task in self.survivors:
            return
        self.survivors[task] = owner
        task.add_done_callback(self._ended)
        task.cancel(cause)
        since = self._later.now
        for delay in LADDER[:-1]:
            self._later.call_later(delay, lambda: self._again(task, cause))
        self._later.call_later(LADDER[-1], lambda: self._name(task, cause, since))

    def _again(self, task: asyncio.Task[Any], cause: str) -> None:
        if not task.done():
            task.cancel(cause)

    def _name(self, task: asyncio.Task[Any], cause: str, since: float) -> None:
        if task.done():
            return
        owner = self.survivors.get(task, "")
        bus, later = self._bus, self._later
        bus.emit(TaskSurvived(task.get_name(), owner, cause, later.now - since, stack_of(task), False))
        task.add_done_callback(
            lambda _: bus.emit(TaskSurvived(task.get_name(), owner, cause, later.now - since, "", True))
        )

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self.survivors.pop(task, None)
        if not task.cancelled():
            task.exception()  # read, so that asyncio does not report it as never retrieved
