"""Owned tasks. The only place where tasks are made.

A task belongs to a request, a connection or the server, and never outlives its owner silently: when the owner ends, the
task is cancelled by a ladder (once, then again on a timer), and one that resists is named with its stack and watched
until it ends at last. Whoever stands on the ladder is remembered for exactly as long as it runs.
"""

from __future__ import annotations

import asyncio
import gc
import traceback
from collections.abc import Callable, Coroutine, Iterable
from contextvars import Context
from types import AsyncGeneratorType, CoroutineType, FrameType, GeneratorType
from typing import Any, Final, Protocol, TypeVar

from sojourn.bus import Bus
from sojourn.clock import NEVER
from sojourn.events import Event, TaskSurvived
from sojourn.scopes.aborts import abort_all

T = TypeVar("T")

__all__ = ["LADDER", "Later", "OwnedTask", "Work", "attend", "frames_of", "launch", "stack_of", "together"]

#: Seconds after the first cancellation at which a task is cancelled again, and at which, at last, it is named. The gaps
#: leave an application time for its own clean-up; a busy loop of cancellations would leave it none.
LADDER: Final = (0.5, 1.0, 2.0, 3.0)

#: What stands between an ``await`` and the code it waits for without showing it: a step of an asynchronous generator
#: (``__anext__``, ``asend``, ``athrow``, ``aclose``), ``anext`` with a default, the ``__await__`` of a coroutine.
_GO_BETWEENS: Final = frozenset(
    ("async_generator_asend", "async_generator_athrow", "anext_awaitable", "coroutine_wrapper")
)


class Later(Protocol):
    """Something that calls a function after a delay in seconds: the worker's ticker."""

    now: float

    def call_later(self, delay: float, callback: Callable[[], None]) -> Any: ...


class Case:
    """A task that is to end.

    Attributes:
        owner: What it belonged to.
        cause: Why it has to end: a reason word.
        due: When it is cancelled next, in seconds; NEVER once it is named.
        cancelled: How often it was cancelled.
        since: When it was cancelled first.
    """

    __slots__ = ("cancelled", "cause", "due", "owner", "since")

    def __init__(self, owner: str, cause: str, due: float) -> None:
        self.owner = owner
        self.cause = cause
        self.due = due
        self.cancelled = 0
        self.since = due


class OwnedTask(asyncio.Task[T]):
    """A task of the server's own, or one that runs beside another.

    Attributes:
        born: When it was made, in served time; absent when nobody measures it.
        host: The task it runs beside; absent when it runs by itself.
    """

    __slots__ = ("born", "host")

    born: float
    host: asyncio.Task[Any]


def frames_of(awaitable: Any) -> tuple[list[FrameType], Any]:
    """Through which frames a coroutine or generator waits, and for what.

    Args:
        awaitable: A coroutine, a generator, or anything that stands between an ``await`` and one.

    Returns:
        The frames, outermost first, and what the innermost awaits: nearly always the iterator of a future; None where
        it has not begun, runs now, or has ended.
    """
    frames: list[FrameType] = []
    while awaitable is not None:
        kind = type(awaitable)
        if kind is CoroutineType:
            frame, following = awaitable.cr_frame, awaitable.cr_await
        elif kind is GeneratorType:
            frame, following = awaitable.gi_frame, awaitable.gi_yieldfrom
        elif kind is AsyncGeneratorType:
            frame, following = awaitable.ag_frame, awaitable.ag_await
        elif kind.__name__ in _GO_BETWEENS:
            # Only the collector can say of which code it is.
            frame, following = None, next(filter(_runs_code, gc.get_referents(awaitable)), None)
        elif isinstance(awaitable, Coroutine):  # compiled by Cython, such as one of uvloop's
            frame, following = getattr(awaitable, "cr_frame", None), getattr(awaitable, "cr_await", None)
        else:
            break
        if frame is not None:
            frames.append(frame)
        awaitable = following
    return frames, awaitable


def _runs_code(thing: object) -> bool:
    kind = type(thing)
    return kind in (CoroutineType, GeneratorType, AsyncGeneratorType) or kind.__name__ in _GO_BETWEENS


def stack_of(task: asyncio.Task[Any]) -> str:
    """Where a task stands, innermost call last; "" when it has no Python frames left."""
    frames, _ = frames_of(task.get_coro())
    return "".join(line for frame in frames for line in traceback.format_stack(frame, limit=1))


def attend(
    coroutine: Coroutine[Any, Any, T],
    name: str,
    end: Callable[[asyncio.Task[Any]], object] = asyncio.Task.cancel,
) -> OwnedTask[T]:
    """Run a coroutine beside the task that calls: in a copy of its context, and never longer than it.

    Args:
        coroutine: What to run.
        name: What reports call it.
        end: Called with the new task, if it still runs when the other has ended.
    """
    host: asyncio.Task[Any] | None = asyncio.current_task()
    if host is None:
        raise RuntimeError("no task calls")
    task = OwnedTask(coroutine, name=name)
    task.host = host

    def alone(_: asyncio.Task[Any]) -> None:
        end(task)

    def done(_: asyncio.Task[T]) -> None:
        host.remove_done_callback(alone)
        if not task.cancelled():
            task.exception()  # read: whether anybody else wants to know it is theirs to say

    host.add_done_callback(alone)
    task.add_done_callback(done)
    return task


def launch(coroutine: Coroutine[Any, Any, T], name: str, context: Context) -> OwnedTask[T]:
    """Run a coroutine in a context of the caller's choice. The caller sees to it that somebody owns it.

    Args:
        coroutine: What to run, in the loop that runs.
        name: What reports call it.
        context: Nobody else's.
    """
    return OwnedTask(coroutine, loop=asyncio.get_running_loop(), name=name, context=context)


async def together(coroutines: Iterable[Coroutine[Any, Any, T]], name: str) -> list[T]:
    """Run coroutines at the same time, none longer than the task that calls.

    Args:
        coroutines: What to run; what one raises is raised here when all have ended.
        name: What reports call them.

    Returns:
        Their results, in their order.

    Cancel: safe; they are cancelled when the task that calls has ended.
    """
    tasks = [attend(coroutine, name) for coroutine in coroutines]
    if tasks:
        await asyncio.wait(tasks)
    return [task.result() for task in tasks]


class Work:
    """The tasks of a worker.

    Args:
        loop: Where they run.
        later: The worker's ticker.
        bus: Where survivors are reported.
        context: What was set before the server started; each request gets a copy.
    """

    __slots__ = ("_bus", "_context", "_due", "_ladder", "_later", "_loop", "_owned", "_timer", "on_empty")

    def __init__(self, loop: asyncio.AbstractEventLoop, later: Later, bus: Bus, context: Context) -> None:
        self._loop = loop
        self._later = later
        self._bus = bus
        self._context = context
        self._owned: dict[asyncio.Task[Any], str] = {}
        #: Tasks that are to end, or have been cancelled, and still run.
        self._ladder: dict[asyncio.Task[Any], Case] = {}
        #: One timer for all of them, and when it rings.
        self._timer: Any = None
        self._due = NEVER
        #: Called when none is left in :attr:`running`.
        self.on_empty: Callable[[], None] | None = None

    def start(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a request's coroutine in a context of its own. The caller is its owner and keeps the task."""
        # A name of its own would be formatted anew for each request; the owner knows whose task it is.
        return asyncio.Task(coroutine, loop=self._loop, name="request", context=self._context.copy())

    def own(self, task: asyncio.Task[Any], owner: str = "the server") -> None:
        """The server becomes the owner: the task is waited for and cancelled at shutdown.

        Args:
            task: Whom. Nothing happens when it has ended.
            owner: What it belonged to, such as ``connection 12 GET /slow``, for the report.
        """
        if not task.done():
            self._owned[task] = owner
            task.add_done_callback(self._ended)

    def spawn(self, coroutine: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Run a coroutine that belongs to the server, in a context of its own."""
        task = self.run(coroutine, name)
        self.own(task)
        return task

    def run(self, coroutine: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """Run a coroutine whose result the caller awaits; the caller is its owner."""
        task = OwnedTask(coroutine, loop=self._loop, name=name, context=self._context.copy())
        task.born = self._later.now
        return task

    def attend(self, coroutine: Coroutine[Any, Any, T], name: str, owner: str) -> asyncio.Task[T]:
        """Run a coroutine beside the task that calls, as :func:`attend` does; alone, it is cancelled by the ladder.

        Args:
            coroutine: What to run.
            name: What reports call it.
            owner: What it belongs to, for the report.
        """

        def end(task: asyncio.Task[Any]) -> None:
            # One that was cancelled before is in its clean-up, and has as much time for it as between two rungs.
            self.cancel(task, "completed", owner, grace=LADDER[0] if task.cancelling() else 0.0)

        task = attend(coroutine, name, end)
        task.born = self._later.now
        return task

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """Where the tasks run."""
        return self._loop

    def context(self) -> Context:
        """A context with nothing that a request has set."""
        return self._context.copy()

    def launch(self, coroutine: Coroutine[Any, Any, T], name: str, context: Context) -> OwnedTask[T]:
        """As :func:`launch`, and its age is known."""
        task = launch(coroutine, name, context)
        task.born = self._later.now
        return task

    def tell(self, event: Event) -> None:
        """Report something about a task."""
        self._bus.emit(event)

    @property
    def running(self) -> dict[asyncio.Task[Any], str]:
        """Tasks the server owns, and those that are to end and still run, with what they belong to."""
        return {task: case.owner for task, case in self._ladder.items()} | self._owned

    def cancel(self, task: asyncio.Task[Any], cause: str, owner: str, *, grace: float = 0.0) -> None:
        """Cancel by the ladder. Nothing happens when the task has ended or was cancelled already.

        Args:
            task: Whom.
            cause: The reason word; becomes the message of the CancelledError.
            owner: What the task belonged to, for the report.
            grace: Seconds before the first cancellation. Another call can shorten it.
        """
        if task.done():
            return
        due = self._later.now + grace
        case = self._ladder.get(task)
        if case is None:
            case = self._ladder[task] = Case(owner, cause, due)
            task.add_done_callback(self._ended)
        elif case.cancelled or due >= case.due:
            return
        case.due = due
        if grace <= 0.0:
            self._climb(task, case)
        self._ring_at(case.due)

    def _climb(self, task: asyncio.Task[Any], case: Case) -> None:
        """The next rung: cancel, or name."""
        now = self._later.now
        if case.cancelled == 0:
            case.since = now
        elif case.cancelled == len(LADDER):
            case.due = NEVER
            seconds = now - case.since
            self._bus.emit(TaskSurvived(task.get_name(), case.owner, case.cause, seconds, stack_of(task), False))
            return
        if case.cancelled:
            abort_all(task)
        case.due = case.since + LADDER[case.cancelled]
        case.cancelled += 1
        task.cancel(case.cause)

    def _ring_at(self, moment: float) -> None:
        if moment < self._due:
            if self._timer is not None:
                self._timer.cancel()
            self._due = moment
            self._timer = self._later.call_later(moment - self._later.now, self._rung)

    def _rung(self) -> None:
        """The timer rang: someone has to climb on."""
        self._timer, self._due = None, NEVER
        now = self._later.now
        for task, case in list(self._ladder.items()):
            if case.due <= now and not task.done():
                self._climb(task, case)
        self._ring_at(min((case.due for case in self._ladder.values()), default=NEVER))

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._owned.pop(task, None)
        case = self._ladder.pop(task, None)
        if not task.cancelled():
            task.exception()  # read, so that asyncio does not report it as never retrieved
        if case is not None and case.due == NEVER:
            seconds = self._later.now - case.since
            self._bus.emit(TaskSurvived(task.get_name(), case.owner, case.cause, seconds, "", True))
        if self.on_empty is not None and not self._owned and not self._ladder:
            self.on_empty()
