"""Threads that do what the event loop must not wait for: so many at most, and a queue with an end."""

from __future__ import annotations

import asyncio
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, Final, Protocol

from sojourn.clock import SystemClock
from sojourn.errors import OffloadFull
from sojourn.events import TaskSurvived
from sojourn.scopes.alarms import alarms
from sojourn.scopes.work import LADDER

__all__ = ["Hand", "Hands", "Job", "Tool"]

#: Seconds after which a thread that has nothing to do ends.
_IDLE: Final = 30.0
#: A thread that goes on for so long after nobody wants its result any more is named.
_PATIENCE: Final = LADDER[0]
_monotonic: Final = SystemClock.monotonic


class Tool(Protocol):
    """What a thread keeps between two calls: a process."""

    def close(self) -> None:
        """It is not needed any more; blocks for a moment."""

    def kill(self) -> None:
        """End it now, from any thread."""


class Job(Protocol):
    """One call.

    Attributes:
        name: What reports call it.
        future: Gets what comes of it.
        cause: Why nobody wants the result any more; "" while somebody does.
        since: When that began, in seconds of the monotonic clock.
        named: Whether it was reported.
    """

    name: str
    future: asyncio.Future[Any]
    cause: str
    since: float
    named: bool

    def perform(self, hand: Hand) -> Any:
        """Do it; called in a thread."""

    def expired(self) -> BaseException | None:
        """What to raise when there is no time left to begin; None when there is."""

    def stop(self) -> bool:
        """Nobody wants the result any more; called in the loop. Returns whether that is enough to end it."""


class Hand:
    """One thread, and what it keeps.

    Args:
        hands: Told when it is done, in the loop.
        name: Of the thread.

    Attributes:
        tool: What it keeps; None when it has nothing.
    """

    __slots__ = ("_hands", "_inbox", "_thread", "name", "tool")

    def __init__(self, hands: Hands, name: str) -> None:
        self.name = name
        self.tool: Tool | None = None
        self._hands = hands
        self._inbox: SimpleQueue[Job | None] = SimpleQueue()
        # A daemon: a call that never returns must not keep the process from its end.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def give(self, job: Job | None) -> None:
        """The next job; None: it is to end."""
        self._inbox.put(job)

    def stack(self) -> str:
        """Where it stands, innermost call last, without what every thread has."""
        frame = sys._current_frames().get(self._thread.ident or 0)
        if frame is None:
            return ""
        steps = [step for step in traceback.extract_stack(frame) if step.filename not in _MACHINERY]
        return "".join(traceback.format_list(steps))

    def _run(self) -> None:
        told = True
        while told:
            try:
                job = self._inbox.get(timeout=_IDLE)
            except Empty:
                told = self._tell(self._hands.rested, self)
                continue
            if job is None:
                break
            result, error = None, None
            try:
                result = job.perform(self)
            except BaseException as caught:  # noqa: BLE001 - whatever the function raises is the caller's
                error = caught
            told = self._tell(self._hands.finished, self, job, result, error)
            del job, result, error  # not kept alive until the next one
        if self.tool is not None:
            self.tool.close()

    def _tell(self, call: Callable[..., None], *args: Any) -> bool:
        """Call something in the loop. Returns whether there still is one."""
        try:
            self._hands.loop.call_soon_threadsafe(call, *args)
        except RuntimeError:  # it is closed: nobody waits
            return False
        return True


_MACHINERY: Final = frozenset((threading.__file__, __file__))


class Hands:
    """The threads of one kind, on one event loop. All is called in the loop, unless said otherwise.

    Args:
        kind: ``thread`` or ``process``.
        most: How many calls run at the same time.
        queue: How many more may wait.
        loop: Whose calls they are.
    """

    __slots__ = ("_busy", "_closed", "_free", "_made", "_most", "_queue", "_waiting", "kind", "loop", "on_rest")

    def __init__(self, kind: str, most: int, queue: int, loop: asyncio.AbstractEventLoop) -> None:
        self.kind = kind
        self.loop = loop
        self._most = most
        self._queue = queue
        self._made = 0
        self._closed = False
        self._free: list[Hand] = []
        self._busy: dict[Hand, Job] = {}
        self._waiting: deque[Job] = deque()
        #: Called when the last call has returned.
        self.on_rest: Callable[[], None] | None = None

    @property
    def busy(self) -> int:
        """Calls that run, also those that nobody waits for any more."""
        return len(self._busy)

    @property
    def waiting(self) -> int:
        """Calls that wait for their turn."""
        return len(self._waiting)

    def submit(self, job: Job) -> None:
        """Do this as soon as one is free.

        Raises:
            OffloadFull: As many wait as may.
            RuntimeError: They were stopped.
        """
        if self._closed:
            raise RuntimeError("the server has stopped: nothing is offloaded any more")
        if self._free:
            self._give(self._free.pop(), job)
        elif len(self._busy) < self._most:
            self._made += 1
            self._give(Hand(self, f"sojourn-{self.kind}-{self._made}"), job)
        elif len(self._waiting) >= self._queue:
            raise OffloadFull(self.kind, len(self._waiting))
        else:
            self._waiting.append(job)

    def _give(self, hand: Hand, job: Job) -> None:
        self._busy[hand] = job
        hand.give(job)

    def abandon(self, job: Job, cause: str) -> None:
        """Nobody wants the result any more: withdrawn while it waits, ended if that is possible, else watched."""
        if job in self._waiting:
            self._waiting.remove(job)
            return
        job.cause, job.since = cause, _monotonic()
        if not job.stop():
            self.loop.call_later(_PATIENCE, self._overdue, job)

    def _overdue(self, job: Job) -> None:
        hand = next((hand for hand, its in self._busy.items() if its is job), None)
        if hand is not None:
            job.named = True
            seconds = _monotonic() - job.since
            alarms().tell(TaskSurvived(job.name, hand.name, job.cause, seconds, hand.stack(), False))

    def finished(self, hand: Hand, job: Job, result: Any, error: BaseException | None) -> None:
        """A call has returned or raised; called by its thread, through the loop."""
        self._busy.pop(hand, None)
        if job.named:
            alarms().tell(TaskSurvived(job.name, hand.name, job.cause, _monotonic() - job.since, "", True))
        if not job.future.done():
            if error is None:
                job.future.set_result(result)
            else:
                job.future.set_exception(_raisable(error))
        self._next(hand)
        if not self._busy and self.on_rest is not None:
            self.on_rest()

    def _next(self, hand: Hand) -> None:
        while self._waiting:
            job = self._waiting.popleft()
            late = job.expired()
            if late is None:
                self._give(hand, job)
                return
            if not job.future.done():
                job.future.set_exception(late)
        if self._closed:
            hand.give(None)
        else:
            self._free.append(hand)

    def rested(self, hand: Hand) -> None:
        """A thread had nothing to do for a while; called by it, through the loop."""
        if hand in self._free:
            self._free.remove(hand)
            hand.give(None)

    def stop(self) -> None:
        """Begin nothing any more. What waits is cancelled, processes are killed, threads end when their call does."""
        self._closed = True
        while self._waiting:
            self._waiting.popleft().future.cancel()
        while self._free:
            self._free.pop().give(None)
        for job in list(self._busy.values()):
            job.stop()


def _raisable(error: BaseException) -> BaseException:
    """What a future may raise: these would mean something else in a coroutine, or end the server."""
    if isinstance(error, Exception) and not isinstance(error, StopIteration | StopAsyncIteration):
        return error
    wrong = RuntimeError(f"the offloaded function raised {type(error).__name__}: {error}")
    wrong.__cause__ = error
    return wrong
