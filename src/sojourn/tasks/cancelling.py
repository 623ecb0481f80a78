"""Ending a task from outside, so that whoever wanted to hear of its end does.

The end of a run tells it in the same step (``then`` of its settlement). A task may be cancelled without one: while it
waits, while its run hands over, when its node is lost. So before a task with a callback is told to end, another is
written down that looks what has become of it.
"""

from __future__ import annotations

import secrets
from typing import Final

import msgspec

from sojourn.tasks.journal import Journal
from sojourn.tasks.record import ENDED, NewTask, Task
from sojourn.tasks.spec import Spec

__all__ = ["LOOK", "cancel", "look_again"]

#: The kind of the tasks that look; ``Webhooks`` does them.
LOOK: Final = "sojourn.webhook.cancelled"
#: Seconds until the first look; each is twice as long after the one before, up to so many.
_FIRST: Final = 0.2
_LONGEST: Final = 30.0
#: Seconds that a look has, how often it is tried, and how long its record is kept.
_DEADLINE: Final = 30.0
_ATTEMPTS: Final = 100
_KEPT: Final = 3600.0
#: Looks that find nobody who wants the task to end: whoever wanted to never came to it.
_PATIENCE: Final = 8
_SPEC: Final = msgspec.json.encode(Spec(deadline=_DEADLINE, attempts=_ATTEMPTS, crashes=_ATTEMPTS))
_read: Final = msgspec.json.Decoder(Spec).decode


async def cancel(journal: Journal, id: str) -> Task | None:
    """``Journal.cancel``, and the receiver of its callback is told. Cancel: safe; it may be done."""
    before = await journal.get(id)
    if before is None or before.state in ENDED:
        return before
    if not before.cancelling and _read(before.spec).callback:
        await journal.submit([_look(id, secrets.token_urlsafe(16), 0)])
    return await journal.cancel(id)


async def look_again(journal: Journal, task: Task, name: str, times: int) -> None:
    """A look has found that the task has not ended: look later, unless nobody wants it to end. Cancel: safe.

    Args:
        journal: Where it is written down.
        task: As it was found.
        name: What the looks of one cancellation have in common.
        times: How many there were before.
    """
    if task.cancelling or times < _PATIENCE:
        await journal.submit([_look(task.id, name, times + 1)])


def _look(id: str, name: str, times: int) -> NewTask:
    payload = msgspec.json.encode({"task": id, "name": name, "times": times})
    delay = min(_LONGEST, _FIRST * 2 ** min(times, 10))
    return NewTask(id=f"{name}.{times}", kind=LOOK, payload=payload, spec=_SPEC, delay=delay, keep=_KEPT)
