"""Durable tasks: what became of their runs here, and whether their journal is there."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["TaskBegan", "TaskEnded", "TaskHandedOver", "TaskLost"]


class TaskBegan(NamedTuple):
    """A durable task has begun to run here. Told by the run itself, in the context in which its function is called.

    Attributes:
        kind: Its kind.
        id: The task.
        epoch: Of the claim it runs under.
        attempt: Which attempt it is, from 1.
        interruptions: Runs before it that did not come to an end of their own.
        waited: Seconds since it was due.
        trace: ``traceparent`` of who started it; "" for none.
        node: Who runs it, as the journal calls it.
    """

    kind: str
    id: str
    epoch: int
    attempt: int
    interruptions: int = 0
    waited: float = 0.0
    trace: str = ""
    node: str = ""


class TaskEnded(NamedTuple):
    """The run of a durable task is over. Told before it is written down.

    Attributes:
        kind: Its kind.
        id: The task.
        state: What becomes of the task: ``completed``, ``failed`` (no attempt is left), ``cancelled``; ``retry``: it
            is tried again; ``handover``: it was interrupted, and TaskHandedOver or TaskLost follows.
        attempt: Which attempt it was, from 1.
        seconds: How long it ran.
        problem: Why it failed, such as ``ValueError: no such order``; "" when it did not.
        epoch: Of the claim it ran under.
        delay: Seconds until it is tried again, for ``retry``.
        stack: The end of the traceback; "" when nothing was raised.
    """

    kind: str
    id: str
    state: str
    attempt: int
    seconds: float
    problem: str = ""
    epoch: int = 0
    delay: float = 0.0
    stack: str = ""


class TaskHandedOver(NamedTuple):
    """A durable task was interrupted because its node ends, and given back for others to run.

    Attributes:
        kind: Its kind.
        id: The task.
        seconds: How long it ran here.
        epoch: Of the claim it ran under.
    """

    kind: str
    id: str
    seconds: float
    epoch: int = 0


class TaskLost(NamedTuple):
    """A run of a durable task does not count: somebody else has the task by now, or may have.

    Attributes:
        kind: Its kind.
        id: The task.
        why: ``lease``: its lease went to somebody else; ``fenced``: it could not be renewed in time, and the run was
            cancelled here; ``settled``: it ended, but was another's by then; ``saved``: it could not be handed over.
        seconds: How long it ran here.
        epoch: Of the claim it ran under.
    """

    kind: str
    id: str
    why: str
    seconds: float
    epoch: int = 0
