"""How a record stands in a row: codes of states, and columns."""

from __future__ import annotations

from typing import Any, Final

from sojourn.tasks.record import Claim, State, Task

__all__ = ["CLAIMED", "COLUMNS", "DELAYED", "LISTED", "READY", "RUNNING", "STATES", "claim_of", "codes_of", "task_of"]

READY: Final = 0
RUNNING: Final = 1
COMPLETED: Final = 2
FAILED: Final = 3
CANCELLED: Final = 4
#: Pending and not due yet, when that was last looked at.
DELAYED: Final = 5

STATES: Final[tuple[State, ...]] = ("pending", "running", "completed", "failed", "cancelled", "pending")

_SHORT: Final = (
    "id, kind, state, owner, key, priority, run_at, keep, failures, interruptions, crashes, epoch, node, lease_until, "
    "cancelling, error, seq, created, begun, updated, ended"
)
#: Of a whole record, of one in a list, of a claim.
COLUMNS: Final = f"{_SHORT}, payload, spec, result, checkpoint"
LISTED: Final = f"{_SHORT}, x'', spec, x'', x''"
CLAIMED: Final = (
    "number, id, kind, epoch, payload, spec, owner, checkpoint, failures, interruptions, crashes, run_at, created, "
    "state, cancelling, priority"
)


def codes_of(states: tuple[State, ...]) -> list[int]:
    """As they stand in a row."""
    return [code for code, state in enumerate(STATES) if state in states]


def task_of(row: Any, wall: float, mono: float) -> Task:
    """A record.

    Args:
        row: Of COLUMNS or LISTED.
        wall: Now, in seconds since 1970.
        mono: Now, by the clock of leases.
    """
    (id, kind, state, owner, key, priority, run_at, keep, failures, interruptions, crashes, epoch, node, lease, ending,
     error, seq, created, begun, updated, ended, payload, spec, result, checkpoint) = row  # fmt: skip
    return Task(
        id=id,
        kind=kind,
        state=STATES[state],
        payload=payload,
        spec=spec,
        owner=owner,
        key=key,
        priority=priority,
        run_at=run_at,
        keep=keep,
        failures=failures,
        interruptions=interruptions,
        crashes=crashes,
        epoch=epoch,
        node=node,
        lease_until=wall + lease - mono if state == RUNNING else 0.0,
        cancelling=bool(ending),
        result=result,
        error=error,
        checkpoint=checkpoint,
        seq=seq,
        created=created,
        begun=begun,
        updated=updated,
        ended=ended,
    )


def claim_of(row: Any, wall: float) -> Claim:
    """What a node gets.

    Args:
        row: Of CLAIMED, as it was before it was claimed.
        wall: Now, in seconds since 1970.
    """
    (_, id, kind, epoch, payload, spec, owner, checkpoint, failures, interruptions, crashes, run_at, created, state,
     _, _) = row  # fmt: skip
    lost = state == RUNNING
    return Claim(
        id=id,
        kind=kind,
        epoch=epoch + 1,
        payload=payload,
        spec=spec,
        owner=owner,
        checkpoint=checkpoint,
        failures=failures,
        interruptions=interruptions + lost,
        crashes=crashes + lost,
        waited=max(0.0, wall - run_at),
        age=max(0.0, wall - created),
    )
