"""Blocking and heavy work away from the event loop: in threads, or in processes that can be killed.

The context goes along: who acts, and how long there is time. Waiting for a turn counts as well, and what has no time
left is never begun.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import pickle
import threading
from collections.abc import Callable
from contextvars import Context, ContextVar, copy_context
from threading import local
from typing import Any, Final, Literal, TypeVar

from sojourn.clock import SystemClock
from sojourn.errors import DeadlineExceeded, WorkerDied
from sojourn.scopes import deadline as ambient
from sojourn.scopes.context import entered
from sojourn.scopes.deadline import current_limit
from sojourn.scopes.hands import Hand, Hands
from sojourn.scopes.snapshot import Snapshot

__all__ = ["OFFLOAD", "Offload", "offload"]

T = TypeVar("T")

Place = Literal["thread", "process"]


class Offload:
    """Threads and processes for work that would hold the event loop up. None exists before it is needed.

    Args:
        threads: How many calls run in threads at the same time; None for four more than processors, at most 32.
        processes: How many calls run in processes at the same time; None for one for each processor.
        queue: How many more calls of each kind may wait; one more raises OffloadFull.

    Raises:
        ValueError: A number is out of range.

    Example:
        >>> import asyncio
        >>> images = Offload(threads=2, queue=10)
        >>> asyncio.run(images.run(sum, [1, 2, 3]))
        6
    """

    __slots__ = ("_all", "_closed", "_limits", "_loop", "_queue")

    def __init__(self, *, threads: int | None = None, processes: int | None = None, queue: int = 1000) -> None:
        processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self._limits = {
            "thread": min(32, processors + 4) if threads is None else threads,
            "process": processors if processes is None else processes,
        }
        if min(self._limits.values()) < 1 or queue < 0:
            raise ValueError("an Offload has at least one thread and one process, and no negative queue")
        self._queue = queue
        self._loop: asyncio.AbstractEventLoop | None = None
        self._all: dict[str, Hands] = {}
        self._closed = False

    @property
    def busy(self) -> int:
        """Calls that run, also those that nobody waits for any more."""
        return sum(hands.busy for hands in self._all.values())

    @property
    def waiting(self) -> int:
        """Calls that wait for a thread or process."""
        return sum(hands.waiting for hands in self._all.values())

    def calls(self, to: str) -> tuple[int, int]:
        """How many run, and how many wait, in this kind of place."""
        hands = self._all.get(to)
        return (0, 0) if hands is None else (hands.busy, hands.waiting)

    async def run(
        self,
        function: Callable[..., T],
        *args: Any,
        to: Place = "thread",
        deadline: float | None = None,
        name: str = "",
    ) -> T:
        """Call a function elsewhere; see :func:`offload`, which does the same with the server's own threads."""
        if inspect.iscoroutinefunction(function):
            raise TypeError("offload takes a plain function; a coroutine function is awaited here")
        name = name or getattr(function, "__qualname__", "") or "offloaded"
        async with ambient.deadline(deadline, name):
            entered()
            hands = self._hands(to)
            kind = _Here if to == "thread" else _There
            job = kind(name, hands.loop.create_future(), function, args, copy_context())
            hands.submit(job)
            try:
                result: T = await job.future
            except asyncio.CancelledError as error:
                hands.abandon(job, _cause(error))
                raise
            return result

    def _hands(self, place: str) -> Hands:
        if place not in self._limits:
            raise ValueError(f"work is offloaded to a thread or a process, not to {place!r}")
        if self._closed:
            raise RuntimeError("it was closed: nothing is offloaded any more")
        loop = asyncio.get_running_loop()
        if loop is not self._loop:  # that of an earlier asyncio.run; nobody waits there any more
            self._stop()
            self._loop = loop
        hands = self._all.get(place)
        if hands is None:
            hands = self._all[place] = Hands(place, self._limits[place], self._queue, loop)
        return hands

    async def close(self, seconds: float = 3.0) -> None:
        """Begin nothing any more, and let what runs end.

        Args:
            seconds: How long; then processes are killed, and threads left alone. They do not keep the process alive.

        Cancel: safe; what runs is treated as if its time were over.
        """
        self._closed = True
        waiters = []
        for hands in self._all.values():
            if hands.busy:
                rested = hands.loop.create_future()
                hands.on_rest = lambda rested=rested: rested.done() or rested.set_result(None)
                waiters.append(rested)
        try:
            if waiters:
                await asyncio.wait(waiters, timeout=seconds)
        finally:
            self._stop()

    def stop(self) -> None:
        """Begin nothing any more, and wait for nothing: processes are killed, threads left alone."""
        self._closed = True
        self._stop()

    def _stop(self) -> None:
        for hands in self._all.values():
            hands.stop()
        self._all = {}


def _cause(error: asyncio.CancelledError) -> str:
    """Why a call is given up."""
    limit = current_limit()
    if limit is not None and limit.moment <= SystemClock.monotonic():
        return f"deadline {limit.name}"
    return str(error) or "cancelled"


class _Here:
    """A call in a thread."""

    __slots__ = ("_args", "_context", "_function", "cause", "future", "name", "named", "since")

    def __init__(
        self,
        name: str,
        future: asyncio.Future[Any],
        function: Callable[..., Any],
        args: tuple[Any, ...],
        context: Context,
    ) -> None:
        self.name = name
        self.future = future
        self.cause = ""
        self.since = 0.0
        self.named = False
        self._function = function
        self._args = args
        self._context = context

    def perform(self, hand: Hand) -> Any:
        return self._context.run(self._function, *self._args)

    def expired(self) -> BaseException | None:
        limit = self._context.run(current_limit)
        if limit is None or limit.moment > SystemClock.monotonic():
            return None
        return DeadlineExceeded(limit.name, limit.seconds, limit.where)

    def stop(self) -> bool:
        return False  # a thread can't be ended from outside


class _There(_Here):
    """A call in a process."""

    __slots__ = ("_child", "_lock", "_stopped")

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._lock = threading.Lock()
        self._stopped = False
        self._child: Any = None

    def perform(self, hand: Hand) -> Any:
        from sojourn.scopes.processes import Child

        child: Any = hand.tool
        if child is None:
            # Nobody stops it while it starts: else a deadline shorter than a start would mean that none ever does.
            child = hand.tool = Child(hand.name)
        payload = pickle.dumps((Snapshot(self._context), self._function, self._args))
        with self._lock:
            if self._stopped:
                return None
            self._child = child
        try:
            return child.call(payload)
        except WorkerDied:
            hand.tool = None
            raise
        finally:
            with self._lock:
                self._child = None

    def stop(self) -> bool:
        with self._lock:
            self._stopped = True
            if self._child is not None:
                self._child.kill()
        return True


#: That of the server that serves in the present context.
OFFLOAD: Final[ContextVar[Offload]] = ContextVar("sojourn_offload")


class _Own(local):
    """What a thread's event loop has where no server gives it one."""

    offload: Offload | None = None


#: Its threads end by themselves when they have nothing to do.
_OWN: Final = _Own()


async def offload(
    function: Callable[..., T], *args: Any, to: Place = "thread", deadline: float | None = None, name: str = ""
) -> T:
    """Call a function in a thread or a process, and wait for its result.

    It sees the context of its caller: who acts, ``sojourn.remaining()``, in a thread all context variables. When the
    deadline passes or the caller is cancelled: a call that waits for its turn is withdrawn; a process is killed, and
    replaced; a thread can't be, so it keeps its place until the function returns, and is named with its stack if that
    takes long.

    Args:
        function: A plain function; for a process one that can be imported there.
        args: For it; for a process they are pickled, and so is the result.
        to: ``thread``, for what waits; ``process``, for what computes.
        deadline: Seconds, the wait for a turn included; None: only what is around it counts.
        name: What errors and reports call it; the function's own name when empty.

    Returns:
        What the function returns.

    Raises:
        DeadlineExceeded: The time was over.
        OffloadFull: Too many calls wait already.
        WorkerDied: The process ended in the middle of it.
        RuntimeError: The server has stopped, or the function raised what must not leave it, such as SystemExit.

    Cancel: safe; see above.

    Example:
        >>> import asyncio
        >>> async def main():
        ...     return await offload(sorted, [3, 1, 2], deadline=1.0)
        >>> asyncio.run(main())
        [1, 2, 3]
    """
    pool = OFFLOAD.get(None)
    if pool is None:
        pool = _OWN.offload
        if pool is None:
            pool = _OWN.offload = Offload()
    return await pool.run(function, *args, to=to, deadline=deadline, name=name)
