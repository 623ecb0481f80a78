"""Tasks and threads that a test leaves behind: a context manager, and a pytest plugin for all tests at once.

``pytest -p sojourn.testing.leaks`` fails each test that leaks a task, whatever runs it: ``asyncio.run``,
``uvloop.run``, anyio's plugin, pytest-asyncio, ``unittest``. What fixtures make is theirs. The options are those of
Go's goleak; a test gives them by ``@pytest.mark.leaks(threads=True, ignore_created_by=["pool.Pool.start"])``, or
``leaks(False)``.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from types import FrameType
from typing import Any, Final, NamedTuple
from weakref import WeakKeyDictionary, WeakSet

from sojourn.observe.profiles.model import Frame
from sojourn.observe.tasks.chain import frames_of_task
from sojourn.observe.tasks.machinery import Part, part_of
from sojourn.scopes.places import line_of

__all__ = ["LeakError", "Leaked", "assert_no_leaks"]

#: Pauses between two looks: from a microsecond, doubled each time, up to 0.1 s; together 0.43 s.
_FIRST, _LONGEST, _RETRIES = 1e-6, 0.1, 20
#: What test runners keep from one test to the next.
_RUNNERS: Final = frozenset({"anyio._backends._asyncio.TestRunner._run_tests_and_fixtures"})
#: Threads that belong to a loop, and end with it.
_POOLED: Final = ("asyncio_", "AnyIO worker thread")


class LeakError(AssertionError):
    """Something outlived its test; the message groups it by where it was made."""


class Leaked(NamedTuple):
    """A task or thread that did not end.

    Attributes:
        kind: ``task`` or ``thread``.
        name: The function it runs; of a thread its name.
        created: Where it was made; None when nobody noted it.
        waiting: Where it is now; None when it has not begun.
    """

    kind: str
    name: str
    created: Frame | None
    waiting: Frame | None


class assert_no_leaks:
    """Fail when tasks that were made in the block are not done at its end.

    ``async with`` inside a coroutine; ``with`` around ``asyncio.run`` and the like. At the end it looks up to 20 times,
    for 0.43 s in all. An error inside the block is not covered up.

    Args:
        threads: Threads, too.
        ignore_top_function: Functions; what stands in one of them is no leak. Written as ``module.qualified_name``.
        ignore_any_function: Likewise, when one is anywhere on its stack.
        ignore_created_by: Functions whose tasks and threads are no leaks.
        ignore_current: What was there before the block is no leak. False, in a coroutine: the loop's other tasks count.
        retries: How often to look.

    Raises:
        LeakError: At the end of the block.

    Example:
        >>> async def main():
        ...     async with assert_no_leaks():
        ...         await asyncio.create_task(asyncio.sleep(0))
        >>> asyncio.run(main())
    """

    def __init__(
        self,
        *,
        threads: bool = False,
        ignore_top_function: Iterable[str] = (),
        ignore_any_function: Iterable[str] = (),
        ignore_created_by: Iterable[str] = (),
        ignore_current: bool = True,
        retries: int = _RETRIES,
    ) -> None:
        self._threads = threads
        self._top = frozenset(ignore_top_function)
        self._any = frozenset(ignore_any_function) | _RUNNERS
        self._created_by = frozenset(ignore_created_by)
        self._current = ignore_current
        self._pauses = [min(_FIRST * 2**n, _LONGEST) for n in range(retries)]
        #: Who made what, as (module.qualified_name, place).
        self._origins: WeakKeyDictionary[Any, tuple[str, Frame]] = WeakKeyDictionary()
        self._made: WeakSet[asyncio.Task[Any]] = WeakSet()
        self._before: set[threading.Thread] = set()
        self._patches: list[tuple[Any, str, Any]] = []
        #: Found when a loop was about to close: they are cancelled by now.
        self._found: list[Leaked] = []

    def __enter__(self) -> assert_no_leaks:
        self._begin()
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        try:
            if kind is None:
                self._settle()
        finally:
            self._restore()
        if kind is None:
            self._judge()

    async def __aenter__(self) -> assert_no_leaks:
        self._begin()
        if not self._current:
            self._made.update(asyncio.all_tasks())
            self._made.discard(_this_task())
        return self

    async def __aexit__(self, kind: object, error: object, traceback: object) -> None:
        """Cancel: as an error inside the block: nothing is judged."""
        try:
            for pause in self._pauses if kind is None else ():
                if not self._pending():
                    break
                await _pause(pause)
        finally:
            self._restore()
        if kind is None:
            self._judge()

    def _begin(self) -> None:
        self._before = set(threading.enumerate())
        loops: list[Any] = [asyncio.BaseEventLoop]
        if (uvloop := sys.modules.get("uvloop")) is not None:
            loops.append(uvloop.Loop)
        for loop in loops:
            self._patch(loop, "create_task", self._noting)
        self._patch(threading.Thread, "start", self._noting_thread)
        # Whatever runs a loop from its beginning to its end calls this before it closes it (asyncio.Runner).
        self._patch(asyncio.runners, "_cancel_all_tasks", self._before_end)

    def _patch(self, owner: Any, name: str, wrap: Callable[[Any], Any]) -> None:
        self._patches.append((owner, name, owner.__dict__.get(name)))
        setattr(owner, name, wrap(getattr(owner, name)))

    def _restore(self) -> None:
        while self._patches:
            owner, name, before = self._patches.pop()
            if before is None:
                delattr(owner, name)  # it was inherited
            else:
                setattr(owner, name, before)

    def _noting(self, plain: Any) -> Any:
        def noting(loop: Any, *arguments: Any, **options: Any) -> Any:
            task = plain(loop, *arguments, **options)
            self._made.add(task)
            self._origins[task] = _caller(sys._getframe(1))
            return task

        return noting

    def _noting_thread(self, plain: Any) -> Any:
        def start(thread: threading.Thread) -> None:
            self._origins[thread] = _caller(sys._getframe(1))
            plain(thread)

        return start

    def _before_end(self, plain: Any) -> Any:
        def cancel_all_tasks(loop: asyncio.AbstractEventLoop) -> None:
            self._made.update(asyncio.all_tasks(loop))
            self._settle(loop)
            pending = [task for task in self._pending_tasks() if task.get_loop() is loop]
            self._found.extend(map(self._leaked_task, pending))
            self._made.difference_update(pending)
            plain(loop)

        return cancel_all_tasks

    # Looking

    def _settle(self, only: asyncio.AbstractEventLoop | None = None) -> None:
        """Give what is about to end the time to do so."""
        for pause in self._pauses:
            tasks = self._pending_tasks()
            loops = {task.get_loop() for task in tasks if only is None or task.get_loop() is only}
            threads = self._pending_threads() if only is None else []
            if not loops and not threads:
                return
            for loop in loops:
                if loop.is_closed() or _runs_here(loop):
                    continue  # nothing there can go on while this waits
                if loop.is_running():
                    threading.Event().wait(pause)
                else:
                    loop.run_until_complete(_pause(pause))
            if threads:
                threads[0].join(pause)

    def _pending(self) -> list[Any]:
        return [*self._pending_tasks(), *self._pending_threads()]

    def _pending_tasks(self) -> list[asyncio.Task[Any]]:
        this = _this_task()
        return [task for task in self._made if not task.done() and task is not this and not self._is_ignored_task(task)]

    def _pending_threads(self) -> list[threading.Thread]:
        if not self._threads:
            return []
        here = threading.current_thread()
        return [
            thread
            for thread in threading.enumerate()
            if thread not in self._before and thread is not here and not self._is_ignored_thread(thread)
        ]

    def _is_ignored_task(self, task: asyncio.Task[Any]) -> bool:
        return self._is_ignored(task, frames_of_task(task))

    def _is_ignored_thread(self, thread: threading.Thread) -> bool:
        return thread.name.startswith(_POOLED) or self._is_ignored(thread, _stack(thread))

    def _is_ignored(self, what: Any, stack: list[FrameType]) -> bool:
        names = [_name(frame) for frame in stack]
        creator = self._origins.get(what)
        return (
            (bool(names) and names[0] in self._top)
            or any(name in self._any for name in names)
            or (creator is not None and creator[0] in self._created_by)
        )

    def _leaked_task(self, task: asyncio.Task[Any]) -> Leaked:
        coroutine: Any = task.get_coro()
        name = getattr(coroutine, "__qualname__", None) or type(coroutine).__qualname__
        code = getattr(coroutine, "cr_code", None)
        if code is not None and part_of(code.co_filename) is not Part.APPLICATION:
            name = task.get_name()  # anyio wraps what it runs, and names the task after it
        return self._leaked("task", name, task, frames_of_task(task))

    def _leaked(self, kind: str, name: str, what: Any, stack: list[FrameType]) -> Leaked:
        creator = self._origins.get(what)
        outside = next((each for each in stack if part_of(each.f_code.co_filename) is Part.APPLICATION), None)
        if outside is None and stack:
            outside = stack[0]
        return Leaked(kind, name, creator[1] if creator else None, _place(outside) if outside is not None else None)

    def _judge(self) -> None:
        leaked = [
            *self._found,
            *map(self._leaked_task, self._pending_tasks()),
            *(self._leaked("thread", each.name, each, _stack(each)) for each in self._pending_threads()),
        ]
        if leaked:
            __tracebackhide__ = True
            raise LeakError(_told(leaked))


def _told(leaked: list[Leaked]) -> str:
    """What is left, grouped by what was made where."""
    lines = []
    for kind in ("task", "thread"):
        of_kind = [each for each in leaked if each.kind == kind]
        if of_kind:
            lines.append(f"{len(of_kind)} {kind}{'s' * (len(of_kind) > 1)} did not end:")
        for (name, created, waiting), count in Counter(each[1:] for each in of_kind).most_common():
            where = created or "an unknown place"
            lines.append(f"  {count} x {name}, made at {where}" + (f"; now at {waiting}" if waiting else ""))
    return "\n".join(lines)


def _caller(frame: FrameType | None) -> tuple[str, Frame]:
    """The innermost place outside of asyncio, anyio, uvloop and sojourn; the outermost when there is none."""
    last = frame
    while frame is not None:
        if part_of(frame.f_code.co_filename) is Part.APPLICATION and not _is_threading(frame):
            break
        last, frame = frame, frame.f_back
    found = frame or last
    assert found is not None
    return _name(found), _place(found)


def _is_threading(frame: FrameType) -> bool:
    return frame.f_globals.get("__name__") in ("threading", "concurrent.futures.thread")


def _name(frame: FrameType) -> str:
    return f"{frame.f_globals.get('__name__', '')}.{frame.f_code.co_qualname}"


def _place(frame: FrameType) -> Frame:
    code = frame.f_code
    return Frame(code.co_qualname, code.co_filename, line_of(code, frame.f_lasti))


def _stack(thread: threading.Thread) -> list[FrameType]:
    """Where a thread is, innermost first."""
    frame = sys._current_frames().get(thread.ident or 0)
    stack = []
    while frame is not None:
        stack.append(frame)
        frame = frame.f_back
    return stack


def _runs_here(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether this is called from inside a loop."""
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:  # no loop runs in this thread
        return False


def _this_task() -> Any:
    """The task that calls; None outside of one."""
    try:
        return asyncio.current_task()
    except RuntimeError:  # no loop runs in this thread
        return None


async def _pause(seconds: float) -> None:
    """Cancel: safe."""
    loop = asyncio.get_running_loop()
    passed = loop.create_future()
    handle = loop.call_later(seconds, passed.set_result, None)
    try:
        await passed
    finally:
        handle.cancel()


# The plugin. pytest is imported only where it is there already: the context manager needs none.


def pytest_configure(config: Any) -> None:
    """Watch every test. Called by pytest."""
    config.addinivalue_line(
        "markers",
        "leaks(enabled=True, *, threads=False, ignore_top_function=(), ignore_any_function=(), ignore_created_by=(),"
        " retries=20): what of a test may outlive it",
    )
    config.pluginmanager.register(_plugin(), "sojourn-leaks")


def _plugin() -> object:
    import pytest

    class Plugin:
        @pytest.hookimpl(wrapper=True)
        def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, Any, Any]:
            options = _options(item.iter_markers("leaks"))
            if options is None:
                return (yield)
            __tracebackhide__ = True
            with assert_no_leaks(**options):
                return (yield)

    return Plugin()


def _options(markers: Iterator[Any]) -> dict[str, Any] | None:
    """Those of the markers, of which the closest counts; None when a test is not to be watched."""
    options: dict[str, Any] = {}
    enabled: bool | None = None
    for marker in markers:
        if enabled is None:
            enabled = bool(marker.args[0]) if marker.args else True
        options = {**marker.kwargs, **options}
    return None if enabled is False else options
