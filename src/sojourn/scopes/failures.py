"""Errors of tasks that nobody awaits: told to the server that runs here, and else to the event loop."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import Any, Final

from sojourn.events import TaskFailed
from sojourn.scopes.work import Work

__all__ = ["WORK", "tell_failure", "tell_own_failure"]

#: The tasks of the server that serves in the present context. Set by a server in the context of everything it runs.
WORK: Final[ContextVar[Work]] = ContextVar("sojourn_work")


def tell_failure(task: asyncio.Task[Any], error: BaseException, owner: str = "") -> None:
    """Say that something went wrong in a task, and nobody is there to whom it could be raised.

    Args:
        task: Which.
        error: What went wrong.
        owner: What it belongs to.
    """
    work = WORK.get(None)
    if work is not None:
        work.tell(TaskFailed(task.get_name(), owner, error))
    else:
        of = f" of {owner}" if owner else ""
        task.get_loop().call_exception_handler(
            {"message": f"task {task.get_name()!r}{of}: {error}", "exception": error, "task": task}
        )


def tell_own_failure(error: BaseException, owner: str = "") -> None:
    """As :func:`tell_failure`, of the task that calls and that goes on all the same."""
    task: asyncio.Task[Any] | None = asyncio.current_task()
    if task is not None:
        tell_failure(task, error, owner)
