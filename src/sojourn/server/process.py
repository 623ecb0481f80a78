"""What belongs to the whole process, and is touched only when Sojourn owns it: event loop, garbage collector, exit."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import threading
import traceback
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Literal, TypeVar, cast

from sojourn.bus import Bus
from sojourn.errors import ConfigError
from sojourn.events import TaskSurvived
from sojourn.scopes.adoption import adopt
from sojourn.scopes.work import stack_of

T = TypeVar("T")

__all__ = ["event_loop_factory", "exit_soon", "run_loop", "run_server", "tune_collector"]

#: A server makes and drops thousands of small objects a second; looking at the young ones every 700 costs throughput
#: and finds nothing, because requests leave no cycles. With 20,000 idle tasks and a cache of 60,000 objects, Python's
#: own thresholds give a P99 of 18 ms, 14 ms when frozen, and these 4 to 6 ms. 50,000 young ones give the same within
#: the spread of the measurement (bench/figures/collector.py), and keep garbage in cycles for longer.
_THRESHOLDS: Final = (20_000, 20, 50)
#: Seconds for threads that the application left running, when everything else has ended.
_LAST_THREADS: Final = 3.0
#: Seconds for the application's own tasks and generators at the very end.
_LAST_CANCEL: Final = 3.0


def event_loop_factory(kind: Literal["auto", "uvloop", "asyncio"]) -> Callable[[], asyncio.AbstractEventLoop]:
    """How to make the event loop.

    Raises:
        ConfigError: uvloop is asked for and not there.
    """
    if kind == "asyncio":
        return asyncio.new_event_loop
    try:
        import uvloop
    except ImportError:
        if kind == "uvloop":
            raise ConfigError("uvloop is not installed; write auto or asyncio", key="app.loop") from None
        return asyncio.new_event_loop
    return uvloop.new_event_loop


def tune_collector() -> None:
    """Take everything made so far out of the collector's sight, and let it look less often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)


class _Threads(ThreadPoolExecutor):
    """The loop's executor. A thread that never returns does not hold up the end of the loop."""

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        super().shutdown(wait=False, cancel_futures=True)


def run_loop(
    main: Coroutine[Any, Any, T],
    factory: Callable[[], asyncio.AbstractEventLoop],
    resists: Callable[[asyncio.Task[Any]], None],
) -> T:
    """Like ``asyncio.run``, but bounded: tasks, generators and threads that will not end don't hold up the return.

    Args:
        main: What to run.
        factory: How to make the event loop.
        resists: Called with each task that runs on although it is cancelled here. The loop is then left open: closing
            it would have to wait for the task.
    """
    runner = asyncio.Runner(loop_factory=factory)
    left: set[asyncio.Task[Any]] = set()
    mine: list[asyncio.Task[T]] = []

    async def bounded() -> T:
        loop = asyncio.get_running_loop()
        if (task := asyncio.current_task()) is not None:
            mine.append(cast("asyncio.Task[T]", task))
            adopt(task, "the server")
        loop.set_default_executor(_Threads(thread_name_prefix="asyncio"))
        try:
            return await main
        finally:
            left.update(await _end_tasks(resists))
            try:
                async with asyncio.timeout(_LAST_CANCEL):
                    await loop.shutdown_asyncgens()
            except TimeoutError:
                pass  # a generator that does not end with its loop is nobody's any more

    try:
        try:
            return runner.run(bounded())
        except SystemExit:
            if not mine or mine[0].done():
                raise
            return _run_on(runner.get_loop(), mine[0])
    finally:
        if not left:
            runner.close()


def _run_on(loop: asyncio.AbstractEventLoop, task: asyncio.Task[T]) -> T:
    """Go on after some other task has raised SystemExit, which asyncio lets out of the loop.

    Whoever awaits that task gets it too. Frameworks run middleware and views in tasks of their own, and a request must
    not end the server.
    """
    while True:
        try:
            return loop.run_until_complete(task)
        except SystemExit:
            if task.done():
                raise


async def _end_tasks(resists: Callable[[asyncio.Task[Any]], None]) -> set[asyncio.Task[Any]]:
    """Cancel the tasks that the application made for itself; returns all that are left."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    fresh = {task for task in tasks if not task.cancelling()}  # the others have had their time
    for task in fresh:
        task.cancel("the server has stopped")
    if fresh:
        _, resisting = await asyncio.wait(fresh, timeout=_LAST_CANCEL)
        for task in resisting:
            resists(task)
    return {task for task in tasks if not task.done()}


def run_server(main: Coroutine[Any, Any, int], factory: Callable[[], asyncio.AbstractEventLoop], bus: Bus) -> int:
    """Run a server in an event loop of its own, and tell of the application's tasks that resist the loop's end.

    Args:
        main: Serves, and returns the exit code.
        factory: How to make the event loop.
        bus: Gets a TaskSurvived for each task that resists.

    Returns:
        The exit code; 5 when a task resisted.
    """
    resisting: list[asyncio.Task[Any]] = []

    def resists(task: asyncio.Task[Any]) -> None:
        resisting.append(task)
        bus.emit(TaskSurvived(task.get_name(), "the application", "drain_forced", 0.0, stack_of(task), False))

    code = run_loop(main, factory, resists)
    return 5 if resisting else code


def exit_soon(code: int, seconds: float = _LAST_THREADS) -> None:
    """See that the process ends although a thread hangs: the interpreter would wait for it for ever.

    Returns at once. When the interpreter is still there after ``seconds``, the threads it waits for are named on
    standard error, and the process exits with ``code``, or 5 where that is 0.
    """

    def watch() -> None:
        threading.Event().wait(seconds)
        frames = sys._current_frames()
        for thread in threading.enumerate():
            if not thread.daemon and thread is not threading.main_thread() and thread.ident in frames:
                stack = "".join(traceback.format_stack(frames[thread.ident]))
                os.write(2, f"thread {thread.name} does not end; it is at\n{stack}".encode(errors="replace"))
        os._exit(code or 5)

    threading.Thread(target=watch, name="sojourn-exit", daemon=True).start()
