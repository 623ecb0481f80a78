"""What happens to a task, in order, for who watches: its states, its progress, what is missing, its end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sojourn.asgi.control import RequestControl
from sojourn.asgi.cycle import HttpCycle
from sojourn.scopes.deadline import remaining
from sojourn.scopes.work import attend
from sojourn.tasks.record import ENDED, Event, Task
from sojourn.typing import Receive, Scope

if TYPE_CHECKING:
    from sojourn.tasks.tasks import Tasks

__all__ = ["Gap", "Told", "ended_within", "follow", "left"]


#: Of the time that a request has left, so that it is answered in time that its task has not ended.
_SHARE: Final = 0.9


class Gap(NamedTuple):
    """Events that are no more kept.

    Attributes:
        after: The last number before them.
        next: The first after them.
    """

    after: int
    next: int


#: A state it has now (the last one is its end), something it has said, or something that can't be told any more.
Told = Task | Event | Gap


async def follow(service: Tasks, task: Task, after: int) -> AsyncGenerator[Told, None]:
    """Tell all that is kept after a place, then what happens, up to the end of the task.

    Args:
        service: Where it is.
        task: As it was a moment ago.
        after: The place: number of an event.

    Raises:
        JournalUnavailable: It can't be told at present.
        TaskNotFound: Its record is gone.

    Cancel: safe.
    """
    if after > task.seq:  # the journal has lost what its client has seen
        yield Gap(after, task.seq + 1)
        after = task.seq
    told = None
    if task.state not in ENDED:
        told = _looks(task)
        yield task
    async with aclosing(service.watch(task.id, after)) as seen:
        async for each in seen:
            if isinstance(each, Event):
                if each.seq <= after:
                    continue
                if each.seq > after + 1:
                    yield Gap(after, each.seq)
                after = each.seq
                yield each
                continue
            if each.state in ENDED:
                yield each
                return
            if _looks(each) != told:
                told = _looks(each)
                yield each


async def ended_within(service: Tasks, task: Task, seconds: float, scope: Scope, receive: Receive) -> Task:
    """A task when it has ended, or as it was when the time is over, its client has left, or the server stops.

    Args:
        service: Where it is.
        task: As it was a moment ago.
        seconds: How long it is waited for.
        scope: Of the request.
        receive: Of ASGI; its body was read.

    Raises:
        JournalUnavailable: It can't be told.
        TaskNotFound: Its record is gone.

    Cancel: safe.
    """
    left_over = remaining()
    if left_over is not None:
        seconds = min(seconds, left_over * _SHARE)
    if task.state in ENDED or seconds <= 0:
        return task
    control = (scope.get("extensions") or {}).get("sojourn")
    if isinstance(control, HttpCycle):
        control.step_aside()
    # A server of ours cancels us when the client has left; others only say so.
    stops = control.draining.wait() if isinstance(control, RequestControl) else left(receive)
    wait, stop = attend(service.wait(task.id, seconds), "task wait"), attend(stops, "task wait stop")
    try:
        await asyncio.wait((wait, stop), return_when=asyncio.FIRST_COMPLETED)
        return wait.result() if wait.done() else task
    finally:
        wait.cancel()
        stop.cancel()


async def left(receive: Receive) -> Any:
    """Wait until the client has left."""
    while (await receive())["type"] not in ("http.disconnect", "websocket.disconnect"):
        pass


def _looks(task: Task) -> tuple[Any, ...]:
    """What a change of state changes."""
    return task.state, task.epoch, task.failures, task.interruptions, task.cancelling
