"""Where each task of the application was made, when, and by which request: noted in the task as the loop makes it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from types import CodeType
from typing import Any, Final, NamedTuple

from sojourn.asgi.control import RequestControl
from sojourn.clock import Clock
from sojourn.observe.tasks.machinery import part_of

__all__ = ["Attribution", "Origin", "origin_of"]

#: Source files whose part is remembered. A program has fewer, unless it makes up names for code it generates.
_FILES: Final = 10_000


class Origin(NamedTuple):
    """What is known of a task since it was made.

    Attributes:
        code: What made it: the code outside of asyncio, anyio, uvloop and sojourn.
        instruction: The place in that code, as in ``frame.f_lasti``.
        request: The request or WebSocket that ran when it was made; None when none did. The task's context holds it as
            long as this does, so nothing lives longer for it.
        born: When, on the monotonic clock.
    """

    code: CodeType
    instruction: int
    request: RequestControl | None
    born: float


class Attribution:
    """Makes the tasks of a loop from now on, unless the application wants to do so itself.

    They are ordinary tasks with one more attribute: a subclass would be awaited on asyncio's slow path.

    Args:
        loop: The loop. One that has a task factory keeps it.
        clock: Where time comes from.
        current: Gives the request that runs in the present context; None when none does.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, clock: Clock, current: Callable[[], RequestControl | None]
    ) -> None:
        self._loop = loop
        # The caller of asyncio's `loop.create_task` is one frame further up; uvloop's is compiled and has none.
        depth = 2 if isinstance(loop, asyncio.BaseEventLoop) else 1
        self._factory = _factory(depth, clock.monotonic, current)
        if loop.get_task_factory() is None:
            loop.set_task_factory(self._factory)

    @property
    def active(self) -> bool:
        """Whether tasks are noted: the application has put no factory of its own in place of this one."""
        return self._loop.get_task_factory() is self._factory

    def __str__(self) -> str:
        """``on``, ``off``, or whose factory makes the tasks instead."""
        if self.active:
            return "on"
        other = self._loop.get_task_factory()
        if other is None:
            return "off"
        name = getattr(other, "__qualname__", None) or type(other).__qualname__
        return f"off: the application has its own task factory, {getattr(other, '__module__', '?')}.{name}"

    def close(self) -> None:
        """Note nothing any more; tasks that are there keep what they know. Idempotent."""
        if self.active:
            self._loop.set_task_factory(None)


def origin_of(task: asyncio.Task[Any]) -> Origin | None:
    """What is known of a task since it was made; None for one that did not come from the factory."""
    noted = getattr(task, "sojourn_origin", None)
    return None if noted is None else Origin(*noted)


def _factory(
    depth: int, monotonic: Callable[[], float], current: Callable[[], RequestControl | None]
) -> Callable[..., asyncio.Task[Any]]:
    """A task factory. Everything it needs is at hand: it runs for each task."""
    # Plain numbers: to compare a member of an Enum takes longer.
    parts: dict[str, int] = {}
    part = parts.get
    caller = sys._getframe
    make: Any = asyncio.Task

    def learn(file: str) -> None:
        if len(parts) >= _FILES:
            parts.clear()
        parts[file] = part_of(file).value

    def factory(loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any], **options: Any) -> Any:
        # Since Python 3.13.3 the name comes in the options as well; before, the loop sets it afterwards.
        task = make(coroutine, loop=loop, **options)
        frame = above = caller(depth)
        code = frame.f_code
        # By file, because the hash of a code object takes longer; and the line is worked out when somebody asks for it.
        while (found := part(code.co_filename)) != 0:
            if found is None:
                learn(code.co_filename)
                continue
            back = frame.f_back
            if found == 2 or back is None:  # called by the loop: the outermost place above it has to do
                frame, code = above, above.f_code
                break
            above, frame, code = frame, back, back.f_code
        # A plain tuple: a named one is made by a Python function.
        task.sojourn_origin = (code, frame.f_lasti, current(), monotonic())
        return task

    return factory
