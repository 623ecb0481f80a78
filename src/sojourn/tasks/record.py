"""What is written down about a task: by who starts it, who runs it, and who reads it. Data only.

    pending ──claim──> running ──> completed
       ^ ^                │ │ └──> failed      (no attempt is left)
       │ └── retry ───────┘ └────> cancelled
       └── hand-over, or its lease ran out

``failed`` and ``cancelled`` become ``pending`` again when an operator says so. Ended records are removed in time.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

__all__ = [
    "ENDED",
    "Claim",
    "Event",
    "NewTask",
    "Outcome",
    "Progress",
    "Reading",
    "Settlement",
    "State",
    "Submitted",
    "Task",
]

State = Literal["pending", "running", "completed", "failed", "cancelled"]
#: How a run ended. ``retry`` and ``handover`` make the task pending again, and ``unbegun``: it was claimed too early.
Outcome = Literal["completed", "failed", "cancelled", "retry", "handover", "unbegun"]

#: The states that last.
ENDED: Final[frozenset[str]] = frozenset({"completed", "failed", "cancelled"})


class NewTask(msgspec.Struct, frozen=True, kw_only=True):
    """A task that is to be written down. Submitting it again does nothing: its id is its maker's.

    Attributes:
        id: At least 128 random bits, as text for URLs. Where it begins with the time, indexes stay small.
        kind: What is to be done; only nodes that know it claim it.
        payload: The arguments: a JSON object, by name.
        spec: What the node that runs it has to know: a JSON object, of which the journal knows nothing (`tasks/spec`).
        owner: Who started it, by :attr:`SecurityContext.qualified`; "" for nobody.
        key: Idempotency key; unique for its owner while the record is there. "" for none.
        fingerprint: Of kind and payload: with the same key, another one is a conflict.
        priority: Higher ones are claimed first; of one priority, what was due first.
        delay: Seconds from now, by the journal's clock, until it is due.
        run_at: When it is due, in seconds since 1970; None takes ``delay``.
        keep: Seconds that the record is kept after its end.
        node: Who takes it at once: it begins as running, with epoch 1. "" for whoever claims it.
        lease: Seconds that ``node`` has it; without a node, nothing.
    """

    id: str
    kind: str
    payload: bytes = b"{}"
    spec: bytes = b"{}"
    owner: str = ""
    key: str = ""
    fingerprint: str = ""
    priority: int = 0
    delay: float = 0.0
    run_at: float | None = None
    keep: float = 86_400.0
    node: str = ""
    lease: float = 0.0


class Submitted(msgspec.Struct, frozen=True):
    """What became of a NewTask.

    Attributes:
        id: The task's; that of the older one when the key was known.
        new: Whether it was written by this, or an earlier, submission of the same id.
        fingerprint: Of the task that is there.
        state: Of the task that is there.
    """

    id: str
    new: bool
    fingerprint: str
    state: State


class Task(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A task as it is written down. Moments are seconds since 1970, by the journal's clock.

    Attributes:
        id: See NewTask; so are kind, payload, spec, owner, key, priority and keep.
        state: Where it is.
        run_at: When it is, or was, due.
        failures: Attempts that failed.
        interruptions: Runs that did not come to an end of their own: handed over, or lost with their node.
        crashes: Those of them that were lost: the lease ran out.
        epoch: How often it was claimed. What an earlier claim says does not count.
        node: Who has it, or had it last.
        lease_until: Until when; 0 when it does not run.
        cancelling: Whether it runs and is to end.
        result: JSON, when it is completed; b"" before.
        error: JSON (`tasks/spec.Problem`): why it failed, or why the last attempt did; b"" when none has.
        checkpoint: JSON that it has saved for its next run; b"" for none.
        seq: Number of its latest progress event; 0 before the first.
        created: When it was submitted.
        begun: When it was claimed first; 0 before.
        updated: When it last changed.
        ended: When it ended; 0 before.
    """

    id: str
    kind: str
    state: State
    payload: bytes = b"{}"
    spec: bytes = b"{}"
    owner: str = ""
    key: str = ""
    priority: int = 0
    run_at: float = 0.0
    keep: float = 0.0
    failures: int = 0
    interruptions: int = 0
    crashes: int = 0
    epoch: int = 0
    node: str = ""
    lease_until: float = 0.0
    cancelling: bool = False
    result: bytes = b""
    error: bytes = b""
    checkpoint: bytes = b""
    seq: int = 0
    created: float = 0.0
    begun: float = 0.0
    updated: float = 0.0
    ended: float = 0.0


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """A task that a node has now, and what it needs to run it.

    Attributes:
        waited: Seconds since it was due.
        age: Seconds since it was submitted.
    """

    id: str
    kind: str
    epoch: int
    payload: bytes = b"{}"
    spec: bytes = b"{}"
    owner: str = ""
    checkpoint: bytes = b""
    failures: int = 0
    interruptions: int = 0
    crashes: int = 0
    waited: float = 0.0
    age: float = 0.0


class Progress(msgspec.Struct, frozen=True):
    """Something that a running task says.

    Attributes:
        id: The task.
        epoch: Of the claim it runs under.
        data: JSON for who watches; b"" for nobody: only the checkpoint changes, and no number is used.
        checkpoint: JSON for its next run, in place of the last; None leaves that as it is.
    """

    id: str
    epoch: int
    data: bytes = b""
    checkpoint: bytes | None = None


class Event(msgspec.Struct, frozen=True):
    """A progress event.

    Attributes:
        seq: Its number in its task: 1, 2, 3, ... over all runs.
        data: JSON.
        at: When it was written, in seconds since 1970.
    """

    seq: int
    data: bytes
    at: float = 0.0


class Reading(msgspec.Struct, frozen=True):
    """A task, and the events after some place.

    Attributes:
        task: The record.
        events: In their order. Those that are no more kept are missing at the beginning: ``task.seq`` and the first
            number tell. Fewer than there are when as many as asked for.
    """

    task: Task
    events: tuple[Event, ...] = ()


class Settlement(msgspec.Struct, frozen=True, kw_only=True):
    """How a run ended. Counts only while nobody has claimed the task since; said again, it is answered as before.

    Attributes:
        id: The task.
        epoch: Of the claim it ran under.
        outcome: ``completed``, ``failed`` or ``cancelled`` end it; ``failed`` is one failure more. ``retry``: pending,
            one failure more.
            ``handover``: pending and due at once, one interruption more, no failure. ``unbegun``: as if it had not
            been claimed.
        result: JSON, for ``completed``.
        error: JSON, for ``failed`` and ``retry``.
        delay: Seconds until it is due, for ``retry``.
        checkpoint: JSON for the next run; None leaves it as it is.
        then: Tasks that are submitted in the same step, if it counts: a webhook, the next of a periodic task.
    """

    id: str
    epoch: int
    outcome: Outcome
    result: bytes = b""
    error: bytes = b""
    delay: float = 0.0
    checkpoint: bytes | None = None
    then: tuple[NewTask, ...] = ()
