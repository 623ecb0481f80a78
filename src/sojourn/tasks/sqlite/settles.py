"""Statements of how runs end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sojourn.tasks.record import NewTask, Settlement
from sojourn.tasks.sqlite.rows import CANCELLED, COMPLETED, DELAYED, FAILED, READY, RUNNING
from sojourn.tasks.sqlite.submits import submit
from sojourn.tasks.sqlite.turn import Turn, listed

__all__ = ["settle"]

_ENDS: Final = {"completed": COMPLETED, "failed": FAILED, "cancelled": CANCELLED}
_FIND: Final = (
    "SELECT id, number, state, epoch, settled, outcome, cancelling, run_at, failures, interruptions, begun, keep "
    "FROM tasks WHERE id IN (SELECT value FROM json_each(?))"
)
_WRITE: Final = (
    "UPDATE tasks SET state = ?, settled = ?, outcome = ?, cancelling = 0, lease_until = 0, run_at = ?, failures = ?, "
    "interruptions = ?, begun = ?, updated = ?, ended = ?, gone = ?, result = ?, error = coalesce(?, error), "
    "checkpoint = coalesce(?, checkpoint) WHERE number = ?"
)


def settle(turn: Turn, settlements: Sequence[Settlement]) -> list[bool]:
    """See Journal."""
    rows = turn.run(_FIND, (listed({each.id for each in settlements}),))
    there: dict[str, Any] = {row[0]: row for row in rows}
    answers: list[bool] = []
    changes: list[tuple[Any, ...]] = []
    then: list[NewTask] = []
    #: What this batch itself has settled.
    said: dict[str, tuple[int, str]] = {}
    for each in settlements:
        row = there.get(each.id)
        if row is None:
            answers.append(False)
        elif row[2] == RUNNING and row[3] == each.epoch and each.id not in said:
            said[each.id] = (each.epoch, each.outcome)
            changes.append(_change(turn, each, row))
            then += each.then
            turn.changed.append(each.id)
            answers.append(True)
        else:
            answers.append(said.get(each.id, (row[4], row[5])) == (each.epoch, each.outcome))
    if changes:
        turn.each(_WRITE, changes)
    if then:
        submit(turn, then)
    return answers


def _change(turn: Turn, each: Settlement, row: Any) -> tuple[Any, ...]:
    """Values of _WRITE."""
    wall, outcome = turn.wall, each.outcome
    _, number, _, epoch, _, _, cancelling, run_at, failures, interruptions, begun, keep = row
    state = _ENDS.get(outcome, READY)
    error: bytes | None = None
    if outcome in ("failed", "retry"):
        failures += 1
        error = each.error
    elif outcome == "handover":
        interruptions += 1
    if outcome == "retry":
        run_at = wall + max(0.0, each.delay)
        state = DELAYED if each.delay > 0 else READY
    elif outcome == "unbegun" and not failures and not interruptions:
        begun = 0.0
    if state in (READY, DELAYED):
        if cancelling:  # nobody wants it any more: it does not begin again
            state = CANCELLED
        else:
            turn.due = True
    ended = state in (COMPLETED, FAILED, CANCELLED)
    return (
        state, epoch, outcome, run_at, failures, interruptions, begun, wall, wall if ended else 0.0,
        wall + keep if ended else 0.0, each.result if state == COMPLETED else b"", error, each.checkpoint, number,
    )  # fmt: skip
