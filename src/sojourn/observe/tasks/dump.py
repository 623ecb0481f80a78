"""All tasks as text, one paragraph each, as Go writes its goroutines (debug=2)."""

from __future__ import annotations

from collections.abc import Iterable

from sojourn.observe.profiles.text import frames_text
from sojourn.observe.tasks.describer import TaskInfo

__all__ = ["dump"]


def dump(tasks: Iterable[tuple[str, TaskInfo]]) -> str:
    """Each task with its name, age, owner, what it waits for, its stack, and where it was made.

    Args:
        tasks: Name of the worker, "" when there is but one; and a task, with its stack.
    """
    return "\n".join(_paragraph(worker, task) for worker, task in tasks)


def _paragraph(worker: str, task: TaskInfo) -> str:
    facts = [task.waits_for or task.state]
    if task.waits_for and task.state != "waiting":
        facts.append(task.state)
    if task.age is not None:
        facts.append(_age(task.age))
    lines = [f'task {task.id} "{task.name}" [{", ".join(facts)}]:']
    place = f"worker {worker}, " if worker else ""
    lines.append(f"# {place}{task.owner}{' which has ended' if task.retained else ''}{_route(task.route)}")
    lines += frames_text(task.stack) or [f"{task.coroutine} (not begun, or not Python)"]
    if task.parent is not None:
        lines.append(f"awaited by task {task.parent}")
    if task.created:
        lines.append(f"created by {task.created}")
    return "\n".join(lines) + "\n"


def _route(route: str) -> str:
    return f" (route {route})" if route else ""


def _age(seconds: float) -> str:
    """As somebody would say it: ``0.4 s``, ``12 s``, ``3 minutes``, ``5.2 hours``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / 3600:.1f} hours"
