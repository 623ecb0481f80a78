"""Two ways to be called a hundred times a second, each with what it can see."""

from __future__ import annotations

import asyncio
import re
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, Final, Protocol

from sojourn.asgi.control import RequestControl
from sojourn.asgi.scope import route_of
from sojourn.asgi.site import CURRENT
from sojourn.observe.profiles.recorder import Labels, Recorder, trail
from sojourn.observe.stalls.threads import processor_times

__all__ = ["PERIOD", "Engine", "SignalEngine", "ThreadEngine", "labels_of"]

#: Seconds between two samples. More often makes little sense: a thread that waits for the interpreter gets it only
#: every 5 ms.
PERIOD: Final = 0.01
#: Seconds for a thread to end.
_JOIN: Final = 1.0
#: Names that asyncio gives; each task has another.
_NUMBERED: Final = re.compile(r"Task-\d+")


class Engine(Protocol):
    """Records until it is closed."""

    def close(self) -> None:
        """Stop. Calling it twice does nothing."""


def labels_of(task: asyncio.Task[Any] | None, request: RequestControl | None) -> Labels:
    """What a sample belongs to: route and name of the task, both of few values."""
    scope = getattr(request, "scope", None)
    route = route_of(scope) if scope else ""
    if task is None:
        return (("route", route),) if route else ()
    name = task.get_name()
    if _NUMBERED.fullmatch(name):
        name = getattr(task.get_coro(), "__qualname__", "task")
    return (("route", route), ("task", name)) if route else (("task", name),)


class SignalEngine:
    """Processor time by the kernel's profiling timer. Made on the event loop, in the main thread.

    The timer runs only while the process uses the processor, so an idle server is left alone. Python runs the handler
    in the main thread at the next bytecode; what the thread used since the sample before belongs to where it is now,
    and what other threads used meanwhile to where they are.

    Args:
        loop: The event loop.
        recorder: Gets count and nanoseconds.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, recorder: Recorder) -> None:
        self._loop = loop
        self._recorder = recorder
        self._main = threading.get_ident()
        self._used = processor_times()
        self._own = time.thread_time_ns()
        self._all = time.process_time_ns()
        signal.signal(signal.SIGPROF, self._sample)
        signal.siginterrupt(signal.SIGPROF, False)  # system calls of C libraries go on
        signal.setitimer(signal.ITIMER_PROF, PERIOD, PERIOD)
        self._closed = False

    @staticmethod
    def possible() -> bool:
        """Whether this thread gets signals, and nobody else uses this one."""
        main = threading.current_thread() is threading.main_thread()
        return main and signal.getsignal(signal.SIGPROF) in (signal.SIG_DFL, signal.SIG_IGN)

    def close(self) -> None:
        """Stop. Calling it twice does nothing."""
        if not self._closed:
            self._closed = True
            signal.setitimer(signal.ITIMER_PROF, 0.0)
            # A last signal may be on its way; the default action would end the process.
            signal.signal(signal.SIGPROF, signal.SIG_IGN)

    def _sample(self, number: int, frame: FrameType | None) -> None:
        try:
            self._record(frame)
        except Exception:  # noqa: BLE001 - it would be raised in the code that was interrupted; the sample is counted
            self._recorder.lost += 1

    def _record(self, frame: FrameType | None) -> None:
        own, everything = time.thread_time_ns(), time.process_time_ns()
        mine, others = own - self._own, everything - self._all - (own - self._own)
        self._own, self._all = own, everything
        if mine > 0:
            # The handler runs in the context of what it interrupts.
            labels = labels_of(asyncio.current_task(self._loop), CURRENT.get(None))
            self._recorder.add(trail(frame), labels, 1, mine)
        if others > mine * 0.05:
            self._sample_others()

    def _sample_others(self) -> None:
        # Not threading.enumerate(): the main thread may be inside it now, with its lock.
        known: dict[int, threading.Thread] = dict(getattr(threading, "_active", {}))
        used, before = processor_times(known), self._used
        self._used = used
        current = sys._current_frames()
        for ident, seconds in used.items():
            spent = round(1e9 * (seconds - before.get(ident, 0.0)))
            if ident != self._main and spent > 0:
                self._recorder.add(trail(current.get(ident)), (("thread", known[ident].name),), 1, spent)


class ThreadEngine:
    """A thread that looks at the others a hundred times a second. Made on the event loop.

    Args:
        loop: The event loop.
        recorder: Gets count and nanoseconds.
        monotonic: Measures time.
        wall: Record how long threads are where they are, and not how much of the processor they use. Only the event
            loop's thread then: others mostly wait.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, recorder: Recorder, monotonic: Callable[[], float], *, wall: bool
    ) -> None:
        self._loop = loop
        self._recorder = recorder
        self._monotonic = monotonic
        self._wall = wall
        self._main = threading.get_ident()
        self._bell = threading.Lock()
        self._bell.acquire()
        self._thread = threading.Thread(target=self._run, name="sojourn-profiler", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop. Calling it twice does nothing."""
        if self._bell.locked():
            self._bell.release()
            self._thread.join(_JOIN)  # it waits for nothing but the bell

    def _run(self) -> None:
        own, now = threading.get_ident(), self._monotonic()
        before = processor_times()
        while not self._bell.acquire(timeout=PERIOD):
            last, now = now, self._monotonic()
            if self._wall:
                current = sys._current_frames()
                self._add(current.get(self._main), self._main, round(1e9 * (now - last)))
                continue
            used = processor_times()
            current = sys._current_frames()
            for ident, seconds in used.items():
                spent = round(1e9 * (seconds - before.get(ident, 0.0)))
                if ident != own and spent > 0:
                    self._add(current.get(ident), ident, spent)
            before = used
        self._bell.release()

    def _add(self, frame: FrameType | None, ident: int, spent: int) -> None:
        if frame is None:
            return  # it has ended
        labels: Labels = ()
        if ident == self._main:
            task = asyncio.current_task(self._loop)
            # Another thread's context can't be seen; the task knows who ran when it was made, or its own frames do.
            origin = getattr(task, "sojourn_origin", None)
            labels = labels_of(task, origin[2] if origin is not None else _request_in(task))
        self._recorder.add(trail(frame), labels, 1, spent)


def _request_in(task: asyncio.Task[Any] | None) -> RequestControl | None:
    """The request whose own task this is: its coroutine is a method of the request."""
    frame = getattr(task.get_coro(), "cr_frame", None) if task is not None else None
    found = frame.f_locals.get("self") if frame is not None else None
    return found if isinstance(found, RequestControl) else None
