"""Statements of progress, and of who reads."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from typing import Any, Final

from sojourn.tasks.journal import Counts, Query
from sojourn.tasks.record import Event, Progress, Reading, Task
from sojourn.tasks.sqlite.rows import DELAYED, LISTED, STATES, codes_of, task_of
from sojourn.tasks.sqlite.submits import record
from sojourn.tasks.sqlite.turn import Turn, listed

__all__ = ["append", "count", "listing", "read"]

#: Events of a task that are kept.
_KEPT: Final = 1000
_FIND: Final = "SELECT id, epoch, number, seq FROM tasks WHERE state = 1 AND id IN (SELECT value FROM json_each(?))"
_COUNT: Final = """
SELECT kind, state, count(*), min(run_at) FROM tasks INDEXED BY tasks_ready WHERE state = 0 GROUP BY kind
UNION ALL
SELECT kind, state, count(*), min(run_at) FROM tasks INDEXED BY tasks_delayed WHERE state = 5 GROUP BY kind
UNION ALL
SELECT kind, state, count(*), NULL FROM tasks INDEXED BY tasks_held WHERE state = 1 GROUP BY kind
UNION ALL
SELECT kind, state, count(*), NULL FROM tasks INDEXED BY tasks_ended WHERE gone > 0 GROUP BY kind, state
"""


def append(turn: Turn, progress: Sequence[Progress]) -> list[int]:
    """See Journal."""
    there: dict[str, Any] = {row[0]: row for row in turn.run(_FIND, (listed({each.id for each in progress}),))}
    latest = {row[2]: row[3] for row in there.values()}
    checkpoints: dict[int, bytes | None] = {}
    events: list[tuple[int, int, float, bytes]] = []
    answers: list[int] = []
    for each in progress:
        row = there.get(each.id)
        if row is None or row[1] != each.epoch:
            answers.append(0)
            continue
        number = row[2]
        if each.data:
            latest[number] += 1
            events.append((number, latest[number], turn.wall, each.data))
        if each.data or each.checkpoint is not None:
            if number not in checkpoints:
                turn.changed.append(each.id)
            checkpoints[number] = checkpoints.get(number) if each.checkpoint is None else each.checkpoint
        answers.append(latest[number] or -1)
    if events:
        turn.rows("INSERT INTO events (task, seq, at, data)", "(?, ?, ?, ?)", events)
    if checkpoints:
        turn.each(
            "UPDATE tasks SET seq = ?, checkpoint = coalesce(?, checkpoint), updated = ? WHERE number = ?",
            [(latest[number], checkpoint, turn.wall, number) for number, checkpoint in checkpoints.items()],
        )
        over = [(number, latest[number] - _KEPT) for number in checkpoints if latest[number] > _KEPT]
        if over:
            turn.each("DELETE FROM events WHERE task = ? AND seq <= ?", over)
    return answers


def read(turn: Turn, id: str, after: int, limit: int) -> Reading | None:
    """See Journal."""
    task = record(turn, id)
    if task is None:
        return None
    if task.seq <= after:
        return Reading(task)
    rows = turn.run(
        "SELECT seq, data, at FROM events WHERE task = (SELECT number FROM tasks WHERE id = ?) AND seq > ? "
        "ORDER BY seq LIMIT ?",
        (id, after, limit),
    )
    return Reading(task, tuple([Event(*row) for row in rows]))


def listing(turn: Turn, query: Query) -> list[Task]:
    """See Journal. After a task that is gone nothing is found: its place is not known any more."""
    parts, values = ["1"], list[Any]()
    if query.states:
        parts.append("state IN (SELECT value FROM json_each(?))")
        values.append(listed(codes_of(query.states)))
    if query.kind:
        parts.append("kind = ?")
        values.append(query.kind)
    if query.owner is not None:
        # Said again for the index, which has only those that have an owner.
        parts.append("owner = ? AND owner <> ''" if query.owner else "owner = ?")
        values.append(query.owner)
    if query.before:
        parts.append("number < (SELECT number FROM tasks WHERE id = ?)")
        values.append(query.before)
    where = " AND ".join(parts)
    rows = turn.run(f"SELECT {LISTED} FROM tasks WHERE {where} ORDER BY number DESC LIMIT ?", (*values, query.limit))
    return [task_of(row, turn.wall, turn.mono) for row in rows]


def count(turn: Turn, kinds: Collection[str]) -> Counts:
    """See Journal."""
    states: defaultdict[str, Counter[str]] = defaultdict(Counter)
    oldest: dict[str, float] = {}
    for kind, state, many, first in turn.run(_COUNT):
        if kinds and kind not in kinds:
            continue
        states[kind][STATES[state]] += many
        if first is not None and (state != DELAYED or first <= turn.wall):
            oldest[kind] = max(oldest.get(kind, 0.0), turn.wall - first)
    return Counts({kind: dict(each) for kind, each in states.items()}, oldest)
