"""Tasks that failed, and tasks that did not end."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["TaskFailed", "TaskSurvived"]


class TaskFailed(NamedTuple):
    """A task that nobody awaits ended with an error, or left something behind that it must not.

    Attributes:
        name: The task's name.
        owner: What it belonged to, such as ``connection 12 GET /slow``.
        error: What it raised.
    """

    name: str
    owner: str
    error: BaseException


class TaskSurvived(NamedTuple):
    """An application task did not end although it was cancelled and re-cancelled.

    Attributes:
        name: The task's name.
        owner: What it belonged to, such as ``connection 12 GET /slow``.
        cause: Why it was cancelled (a reason word).
        seconds: How long ago it was first cancelled.
        stack: Its stack, innermost call last.
        ended: False when it still runs, True when it has ended at last.
    """

    name: str
    owner: str
    cause: str
    seconds: float
    stack: str
    ended: bool
