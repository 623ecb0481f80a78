"""Statements of who runs what: claims and leases."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Final

from sojourn.clock import NEVER
from sojourn.tasks.journal import Beat, Claimed, Want
from sojourn.tasks.sqlite.rows import CLAIMED, claim_of
from sojourn.tasks.sqlite.turn import Turn, listed

__all__ = ["beat", "bury", "claim", "nothing"]

#: Kinds in one statement, with two parts each; SQLite takes 500 parts.
_KINDS: Final = 200
#: Is anything ready, when is the next one due, when does the next lease run out: three looks at an index for each kind.
_PEEK: Final = """
SELECT max(EXISTS (SELECT 1 FROM tasks INDEXED BY tasks_ready WHERE state = 0 AND kind = value)),
    min((SELECT min(run_at) FROM tasks INDEXED BY tasks_delayed WHERE state = 5 AND kind = value)),
    min((SELECT min(lease_until) FROM tasks INDEXED BY tasks_held WHERE state = 1 AND kind = value))
FROM json_each(?)
"""
_PROMOTE: Final = (
    "UPDATE tasks SET state = 0 WHERE number IN (SELECT number FROM json_each(?), tasks INDEXED BY tasks_delayed "
    "WHERE state = 5 AND kind = value AND run_at <= ?)"
)
_READY: Final = (
    "SELECT * FROM (SELECT number AS n, priority AS p, run_at AS r FROM tasks INDEXED BY tasks_ready "
    "WHERE state = 0 AND kind = ? ORDER BY priority DESC, run_at LIMIT ?)"
)
_LOST: Final = (
    "SELECT number, priority, run_at FROM tasks INDEXED BY tasks_held WHERE state = 1 AND kind = ? AND lease_until <= ?"
)
_READY_OF_MANY: Final = (
    "SELECT number AS n, priority AS p, run_at AS r FROM tasks INDEXED BY tasks_ready "
    "WHERE state = 0 AND kind IN (SELECT value FROM json_each(?))"
)
_LOST_OF_MANY: Final = (
    "SELECT number, priority, run_at FROM tasks INDEXED BY tasks_held "
    "WHERE state = 1 AND kind IN (SELECT value FROM json_each(?)) AND lease_until <= ?"
)
_TAKE: Final = (
    "UPDATE tasks SET epoch = epoch + 1, interruptions = interruptions + (state = 1), crashes = crashes + (state = 1), "
    "state = 1, node = ?, lease_until = ?, begun = CASE begun WHEN 0 THEN ? ELSE begun END, updated = ? "
    "WHERE number IN (SELECT value FROM json_each(?))"
)
_GIVE_UP: Final = (
    "UPDATE tasks SET interruptions = interruptions + 1, crashes = crashes + 1, state = 4, cancelling = 0, "
    "lease_until = 0, ended = ?, gone = ? + keep, updated = ? WHERE number IN (SELECT value FROM json_each(?))"
)


def nothing(turn: Turn, node: str, wants: Sequence[Want], lease: float) -> Claimed | None:
    """The answer to a claim that finds nothing; None when it may find something."""
    after = NEVER
    for want in wants:
        ready, due, over = _peek(turn, listed(want.kinds))
        if ready or due <= 0 or over <= 0:
            return None
        after = min(after, due, over)
    return Claimed((), None if after == NEVER else after)


def claim(turn: Turn, node: str, wants: Sequence[Want], lease: float) -> Claimed:
    """See Journal."""
    rows: list[Any] = []
    after = NEVER
    for want in wants:
        kinds = listed(want.kinds)
        ready, due, over = _peek(turn, kinds)
        if ready or due <= 0 or over <= 0:
            if due <= 0:
                turn.run(_PROMOTE, (kinds, turn.wall))
            found = _candidates(turn, want, lost=over <= 0)
            more = len(found) > want.n
            rows += _taken(turn, found[: want.n], node, lease)
            _, due, over = _peek(turn, kinds)
            after = 0.0 if more else after
        after = min(after, max(0.0, min(due, over)))
    rows.sort(key=_urgency)
    claims = tuple([claim_of(row, turn.wall) for row in rows])
    turn.changed += [each.id for each in claims]
    return Claimed(claims, None if after == NEVER else after)


def _urgency(row: Any) -> tuple[int, float, int]:
    """Of a row of CLAIMED."""
    return -row[15], row[11], row[0]


def _peek(turn: Turn, kinds: str) -> tuple[bool, float, float]:
    """Whether anything is ready, and seconds until the next of these is due, and until a lease runs out."""
    ready, due, over = turn.run(_PEEK, (kinds,)).fetchone()
    return bool(ready), NEVER if due is None else due - turn.wall, NEVER if over is None else over - turn.mono


def _candidates(turn: Turn, want: Want, lost: bool) -> list[Any]:
    """Rows of CLAIMED, most urgent first: one more than are wanted, if there are."""
    most = want.n + 1
    if len(want.kinds) <= _KINDS:
        parts = [_READY] * len(want.kinds)
        values: list[Any] = [value for kind in want.kinds for value in (kind, most)]
        if lost:
            parts += [_LOST] * len(want.kinds)
            values += [value for kind in want.kinds for value in (kind, turn.mono)]
    else:  # more than a statement can have parts: all that is ready is sorted
        parts = [_READY_OF_MANY, _LOST_OF_MANY]
        values = [listed(want.kinds), listed(want.kinds), turn.mono]
    # Whose number comes first has waited longer.
    inner = f"SELECT n FROM ({' UNION ALL '.join(parts)}) ORDER BY p DESC, r, n LIMIT ?"
    statement = f"SELECT {CLAIMED} FROM tasks WHERE number IN ({inner}) ORDER BY priority DESC, run_at, number"
    return turn.run(statement, (*values, most)).fetchall()


def _taken(turn: Turn, rows: list[Any], node: str, lease: float) -> list[Any]:
    """Write down whose they are. Returns those that are; lost ones that are to end have ended."""
    wall = turn.wall
    ending = [row for row in rows if row[14]]
    if ending:
        turn.run(_GIVE_UP, (wall, wall, wall, listed(row[0] for row in ending)))
        turn.changed += [row[1] for row in ending]
        rows = [row for row in rows if not row[14]]
    if rows:
        turn.run(_TAKE, (node, turn.mono + lease, wall, wall, listed(row[0] for row in rows)))
    return rows


def bury(turn: Turn, nodes: Collection[str]) -> None:
    """End the leases of nodes that are dead."""
    for node in nodes:
        ended = turn.run("UPDATE tasks SET lease_until = 0 WHERE state = 1 AND lease_until > 0 AND node = ?", (node,))
        turn.due = turn.due or ended.rowcount > 0


def beat(turn: Turn, node: str, held: Sequence[tuple[str, int]], lease: float) -> Beat:
    """See Journal."""
    if not held:
        return Beat()
    rows = turn.run(
        "SELECT id, epoch, number, cancelling FROM tasks WHERE id IN (SELECT value FROM json_each(?)) "
        "AND state = 1 AND node = ?",
        (listed(id for id, _ in held), node),
    )
    there = {(row[0], row[1]): row for row in rows}
    own = [there[each] for each in held if each in there]
    if own:
        turn.run(
            "UPDATE tasks SET lease_until = ? WHERE number IN (SELECT value FROM json_each(?))",
            (turn.mono + lease, listed(row[2] for row in own)),
        )
    lost = frozenset(id for id, epoch in held if (id, epoch) not in there)
    return Beat(lost, frozenset(row[0] for row in own if row[3]))
