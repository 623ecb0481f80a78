"""Statements that write tasks down, and that remove, cancel or retry one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sojourn.tasks.record import NewTask, Submitted, Task
from sojourn.tasks.sqlite.rows import (
    CANCELLED,
    COLUMNS,
    DELAYED,
    READY,
    RUNNING,
    STATES,
    task_of,
)
from sojourn.tasks.sqlite.turn import Turn, listed

__all__ = ["cancel", "record", "retry", "submit", "sweep"]

_INSERT: Final = (
    "INSERT INTO tasks (state, kind, priority, run_at, epoch, lease_until, node, created, begun, updated, keep, id, "
    "owner, key, fingerprint, payload, spec)"
)
_MARKS: Final = f"({','.join('?' * 17)})"


def submit(turn: Turn, tasks: Sequence[NewTask]) -> list[Submitted]:
    """See Journal."""
    wall = turn.wall
    rows = []
    for task in tasks:
        run_at = task.run_at if task.run_at is not None else wall + task.delay
        begun, epoch, lease = 0.0, 0, 0.0
        if task.node:
            state, run_at, begun, epoch, lease = RUNNING, min(run_at, wall), wall, 1, turn.mono + task.lease
            turn.changed.append(task.id)
        else:
            state = READY if run_at <= wall else DELAYED
            turn.due = True
        rows.append(
            (state, task.kind, task.priority, run_at, epoch, lease, task.node, wall, begun, wall, task.keep, task.id,
             task.owner, task.key, task.fingerprint, task.payload, task.spec)
        )  # fmt: skip
    if turn.rows(_INSERT, _MARKS, rows, "ON CONFLICT DO NOTHING") == len(rows):
        return [Submitted(task.id, True, task.fingerprint, "running" if task.node else "pending") for task in tasks]
    return [_there(turn, task) for task in tasks]


def _there(turn: Turn, task: NewTask) -> Submitted:
    """What became of one, when not all of its batch were new."""
    row = turn.run("SELECT id, fingerprint, state FROM tasks WHERE id = ?", (task.id,)).fetchone()
    if row is None:
        statement = "SELECT id, fingerprint, state FROM tasks WHERE owner = ? AND key = ? AND key <> ''"
        row = turn.run(statement, (task.owner, task.key)).fetchone()
    return Submitted(row[0], row[0] == task.id, row[1], STATES[row[2]])


def record(turn: Turn, id: str) -> Task | None:
    """A whole record."""
    row = turn.run(f"SELECT {COLUMNS} FROM tasks WHERE id = ?", (id,)).fetchone()
    return None if row is None else task_of(row, turn.wall, turn.mono)


def cancel(turn: Turn, id: str) -> Task | None:
    """See Journal."""
    wall = turn.wall
    ended = turn.run(
        "UPDATE tasks SET state = ?, ended = ?, gone = ? + keep, updated = ? WHERE id = ? AND state IN (0, 5)",
        (CANCELLED, wall, wall, wall, id),
    ).rowcount
    if not ended:
        asked = turn.run(
            "UPDATE tasks SET cancelling = 1, updated = ? WHERE id = ? AND state = 1 AND cancelling = 0", (wall, id)
        ).rowcount
        if asked:
            turn.cancelled.append(id)
            turn.changed.append(id)
    else:
        turn.changed.append(id)
    return record(turn, id)


def retry(turn: Turn, id: str) -> Task | None:
    """See Journal."""
    begun_again = turn.run(
        "UPDATE tasks SET state = 0, run_at = ?, failures = 0, crashes = 0, ended = 0, gone = 0, error = x'', "
        "updated = ? WHERE id = ? AND state IN (3, 4)",
        (turn.wall, turn.wall, id),
    ).rowcount
    if begun_again:
        turn.due = True
        turn.changed.append(id)
    return record(turn, id)


def sweep(turn: Turn, limit: int) -> int:
    """See Journal."""
    rows: list[Any] = turn.run(
        "SELECT number FROM tasks INDEXED BY tasks_ended WHERE gone > 0 AND gone <= ? ORDER BY gone LIMIT ?",
        (turn.wall, limit),
    ).fetchall()
    if not rows:
        return 0
    numbers = listed(number for (number,) in rows)
    turn.run("DELETE FROM events WHERE task IN (SELECT value FROM json_each(?))", (numbers,))
    return turn.run("DELETE FROM tasks WHERE number IN (SELECT value FROM json_each(?))", (numbers,)).rowcount
