"""Tasks that run on when the request or WebSocket that made them has ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from sojourn.asgi.control import RequestControl
from sojourn.observe.profiles.model import Frame
from sojourn.observe.tasks.describer import Describer
from sojourn.observe.tasks.every import alive, references
from sojourn.observe.tasks.factory import origin_of
from sojourn.observe.tasks.pace import Pace

__all__ = ["Late", "Outliving"]


class Outliving(NamedTuple):
    """A task whose request or WebSocket has ended.

    Attributes:
        task: The task.
        scope: The request or WebSocket.
        created: Where the task was made.
        age: Seconds since then.
        late: Seconds since it was first seen to run on.
    """

    task: asyncio.Task[Any]
    scope: RequestControl
    created: Frame
    age: float
    late: float


class Late:
    """Remembers since when each task is late.

    Nothing is noted when a request ends: the time runs from the first look that finds the task behind its end.

    Args:
        loop: Where the tasks run.
        monotonic: The monotonic clock.
        describer: Reads tasks.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, monotonic: Callable[[], float], describer: Describer) -> None:
        self._loop = loop
        self._monotonic = monotonic
        self._describer = describer
        self._since: WeakKeyDictionary[asyncio.Task[Any], float] = WeakKeyDictionary()

    async def longer_than(self, grace: float) -> AsyncIterator[Outliving]:
        """The tasks that are late by so many seconds, in slices.

        Cancel: safe.
        """
        pace = Pace(self._loop, self._monotonic)
        for reference in references(self._loop):
            if pace.over():
                await pace.rest()
            task = alive(reference, self._loop)
            scope = self._describer.outlived(task) if task is not None else None
            if task is None or scope is None:
                continue
            now = self._monotonic()
            since = self._since.setdefault(task, now)
            created, origin = self._describer.created(task), origin_of(task)
            if now - since >= grace and created is not None and origin is not None:
                yield Outliving(task, scope, created, now - origin.born, now - since)
