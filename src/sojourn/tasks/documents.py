"""A task as others see it: a JSON document, without what is not theirs (arguments, owner, node, traceback)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from sojourn.tasks.record import Event, Task
from sojourn.tasks.spec import Problem

__all__ = ["document", "etag", "moment", "outcome"]


def document(task: Task, location: str, latest: Event | None = None) -> dict[str, Any]:
    """All that is told of a task.

    Args:
        task: The record.
        location: Where it can be asked for.
        latest: Its last progress event; None for none.
    """
    found: dict[str, Any] = {
        "id": task.id,
        "kind": task.kind,
        "state": task.state,
        "attempt": max(task.failures + (task.state in ("running", "completed")), 1 if task.begun else 0),
        "failures": task.failures,
        "interruptions": task.interruptions,
        "location": location,
        "created": moment(task.created),
        "run_at": moment(task.run_at),
    }
    if task.cancelling:
        found["cancelling"] = True
    if task.begun:
        found["begun"] = moment(task.begun)
    if task.ended:
        found["ended"] = moment(task.ended)
    if latest is not None:
        found["progress"] = {"seq": latest.seq, "data": msgspec.Raw(latest.data), "at": moment(latest.at)}
    return found | outcome(task)


def outcome(task: Task) -> dict[str, Any]:
    """What came out: ``result`` or ``error``; the error of the last attempt while there may be another."""
    if task.state == "completed":
        return {"result": msgspec.Raw(task.result or b"null")}
    if not task.error:
        return {}
    problem = msgspec.json.decode(task.error, type=Problem)
    return {"error": {"type": problem.type, "detail": problem.detail, "attempt": problem.attempt}}


def etag(task: Task) -> str:
    """Changes whenever what is told of a task does."""
    state = f"{task.state}{'.' if task.cancelling else ''}{task.ended:.3f}"
    return f'"{task.epoch}.{task.seq}.{task.failures}.{task.interruptions}.{state}"'


def moment(seconds: float) -> str:
    """A moment, as RFC 3339 has it, in UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
