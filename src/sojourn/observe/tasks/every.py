"""All tasks of a loop, without asyncio's own copy of them: that one takes milliseconds for ten thousand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["alive", "references"]

Reference = Callable[[], "asyncio.Task[Any] | None"]


def references(loop: asyncio.AbstractEventLoop) -> Sequence[Reference]:
    """References to the tasks that are there now, in no order; some of them may have ended or be another loop's.

    Takes about 10 us for 1,000 tasks, because nobody is asked anything.
    """
    kept = getattr(asyncio.tasks, "_scheduled_tasks", None)  # Python 3.12 and 3.13
    if kept is None:
        kept = getattr(asyncio.tasks, "_all_tasks", None)  # Python 3.11
    weak = getattr(kept, "data", None)
    if weak is None:
        return [_strong(task) for task in asyncio.all_tasks(loop)]
    found: list[Reference] = list(weak)
    found.extend(map(_strong, list(getattr(asyncio.tasks, "_eager_tasks", ()))))
    return found


def alive(reference: Reference, loop: asyncio.AbstractEventLoop) -> asyncio.Task[Any] | None:
    """The task, if it has not ended and is the loop's."""
    task = reference()
    return None if task is None or task.done() or task.get_loop() is not loop else task


def _strong(task: asyncio.Task[Any]) -> Reference:
    return lambda: task
