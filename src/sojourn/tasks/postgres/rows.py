"""Rows of PostgreSQL as what the contract calls them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sojourn.tasks.journal import Claimed, Counts
from sojourn.tasks.record import Claim, Event, Reading, Task

__all__ = ["claimed", "counted", "reading", "task_of"]

#: Seconds until it is asked again, when all that is due is locked by somebody.
_LOCKED = 0.05


def task_of(row: Any) -> Task:
    """A task."""
    return Task(**row)


def reading(row: Any) -> Reading:
    """A task and its events."""
    fields = dict(row)
    seqs, datas, ats = fields.pop("seqs"), fields.pop("datas"), fields.pop("ats")
    events = tuple(map(Event, seqs, datas, ats)) if seqs else ()
    return Reading(Task(**fields), events)


def claimed(rows: Sequence[Any]) -> tuple[Claimed, list[str]]:
    """What was claimed, and all tasks that have changed with it: some may have ended instead, as they were to."""
    due, after = rows[0]["due"], rows[0]["after"]
    ids = [row["id"] for row in rows if row["id"] is not None]
    mine = [row for row in rows if row["state"] == "running"]
    mine.sort(key=lambda row: (-row["priority"], -row["waited"]))
    claims = tuple(
        Claim(
            id=row["id"],
            kind=row["kind"],
            epoch=row["epoch"],
            payload=row["payload"],
            spec=row["spec"],
            owner=row["owner"],
            checkpoint=row["checkpoint"],
            failures=row["failures"],
            interruptions=row["interruptions"],
            crashes=row["crashes"],
            waited=row["waited"],
            age=row["age"],
        )
        for row in mine
    )
    if due > len(ids):
        after = 0.0 if ids else _LOCKED
    elif after is not None:
        after = max(0.0, after)
    return Claimed(claims, after), ids


def counted(rows: Sequence[Any]) -> Counts:
    """How many there are."""
    states: dict[str, dict[str, int]] = {}
    oldest: dict[str, float] = {}
    for kind, state, n, seconds in rows:
        states.setdefault(kind, {})[state] = n
        if seconds is not None and seconds >= 0:
            oldest[kind] = seconds
    return Counts(states, oldest)
