"""Both event loops, and small helpers for tests that look at tasks."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import pytest
import uvloop

from sojourn.observe.tasks.describer import TaskInfo

T = TypeVar("T")

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}
on_both_loops = pytest.mark.parametrize("loop", ["asyncio", "uvloop"])


def run(main: Coroutine[Any, Any, T], loop: str = "asyncio") -> T:
    """Run to the end; what is left running is cancelled."""
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        return runner.run(main)


async def turns(number: int = 4) -> None:
    """Let everybody run so many times."""
    for _ in range(number):
        await asyncio.sleep(0)


def called(tasks: list[TaskInfo], name: str) -> TaskInfo:
    """The one task of that name."""
    (task,) = (task for task in tasks if task.name == name)
    return task


def line_of(function: Any, text: str) -> int:
    """The line of a function's source that holds a text."""
    lines = inspect.getsource(function).splitlines()
    (offset,) = (index for index, line in enumerate(lines) if text in line)
    first: int = function.__code__.co_firstlineno
    return first + offset
