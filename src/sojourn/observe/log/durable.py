"""What the log says of durable tasks."""

from __future__ import annotations

import logging
from typing import Final, NamedTuple

from sojourn.events import TaskEnded, TaskHandedOver, TaskLost
from sojourn.observe.log.text import message

__all__ = ["DURABLE", "Durable", "Said", "said"]

Durable = TaskEnded | TaskHandedOver | TaskLost
#: Those that are told of.
DURABLE: Final[tuple[type[Durable], ...]] = (TaskEnded, TaskHandedOver, TaskLost)

_WHY: Final = {
    "lease": "its lease went to another node",
    "fenced": "its lease could not be renewed in time",
    "settled": "another node had it when it ended",
    "saved": "it could not be handed over",
}


class Said(NamedTuple):
    """A line of the log.

    Attributes:
        level: Of the module logging.
        signature: What makes it the same as another, where many may come; None where few do.
        text: The line, and a stack behind it.
    """

    level: int
    signature: object
    text: str


def said(event: Durable) -> Said:
    """What is said of an event. Names and problems are the application's, or a client's: they are escaped."""
    if isinstance(event, TaskEnded):
        return _ended(event)
    if isinstance(event, TaskHandedOver):
        text = f"{_task(event)} was interrupted after {event.seconds:.1f} s and handed over"
        return Said(logging.INFO, event.kind, text)
    text = f"{_task(event)} was lost after {event.seconds:.1f} s: {_WHY.get(event.why, event.why)}"
    return Said(logging.WARNING, (event.kind, event.why), text)


def _ended(event: TaskEnded) -> Said:
    text = f"{_task(event)}, attempt {event.attempt}"
    signature = (event.kind, event.state, event.problem.partition(":")[0])
    if event.state == "failed":
        return Said(
            logging.ERROR,
            signature,
            f"{text}: failed after {event.seconds:.1f} s: {message(event.problem)}{_stack(event)}",
        )
    if event.state == "retry":
        again = f"{text}: failed, and is tried again in {event.delay:.1f} s: {message(event.problem)}"
        return Said(logging.WARNING, signature, again)
    word = "interrupted" if event.state == "handover" else event.state
    return Said(logging.DEBUG, None, f"{text}: {word} after {event.seconds:.3f} s")


def _stack(event: TaskEnded) -> str:
    return f"\n{message(event.stack.rstrip(), lines=True)}" if event.stack else ""


def _task(event: TaskEnded | TaskHandedOver | TaskLost) -> str:
    return f"durable task {message(event.kind)} {message(event.id)}"
