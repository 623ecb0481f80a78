"""What is known of one task: where it was made, whose it is, where it stands, what it waits for."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any, Final, NamedTuple
from weakref import WeakKeyDictionary

from sojourn.asgi.control import RequestControl
from sojourn.asgi.site import Site
from sojourn.net.connection import Connection
from sojourn.observe.profiles.model import Frame
from sojourn.observe.profiles.text import one_line
from sojourn.observe.tasks.chain import Places, awaited_by, frames_of_task
from sojourn.observe.tasks.factory import origin_of
from sojourn.observe.tasks.owners import Kind, Owner, began, ended, kind_of, owner_of, request_of, runs_beside
from sojourn.observe.tasks.waiting import Wait, wait_of
from sojourn.scopes.adoption import adopter_of
from sojourn.scopes.work import OwnedTask

__all__ = ["Describer", "TaskInfo"]

#: Where a task was made that the server made itself.
_BY_SERVER: Final = "the server"


class TaskInfo(NamedTuple):
    """A task that has not ended.

    Attributes:
        id: Its number on the worker, the same in each look.
        name: Its name.
        coroutine: What it runs.
        created: ``file:line in function`` that made it; "the server" for its own, "" when nobody noted it.
        age: Seconds since then; None when nobody noted it.
        owner: Whose it is, such as ``connection 12 GET /slow``, ``the server``, ``the application``, or its adopter.
        connection: Number of the connection it belongs to; None when it belongs to none.
        route: The pattern of its request's route; "" when the application's router does not say.
        state: ``running``, ``ready`` (about to run), ``waiting`` or ``cancelling`` (asked to end).
        waiting: ``file:line in function``, the innermost place of the application or a library.
        waits_for: What it waits for, in words; "" when it does not wait.
        parent: Number of the task that waits for this one to end; None when none does.
        retained: Whether its request or WebSocket has ended and nobody adopted it.
        stack: The frames, innermost first; empty unless asked for.
    """

    id: int
    name: str
    coroutine: str
    created: str
    age: float | None
    owner: str
    connection: int | None
    route: str
    state: str
    waiting: str
    waits_for: str
    parent: int | None
    retained: bool
    stack: list[Frame]


class Describer:
    """Reads tasks. Nothing of a task is kept longer than the task.

    Args:
        site: What the worker serves.
    """

    def __init__(self, site: Site) -> None:
        self._monotonic = site.monotonic
        self._ticker = site.ticker
        self._places = Places()
        self._numbers: WeakKeyDictionary[asyncio.Task[Any], int] = WeakKeyDictionary()
        self._next = itertools.count(1)

    def describe(self, task: asyncio.Task[Any], owner: Owner | None = None, *, stacks: bool = False) -> TaskInfo:
        """One task as it is now.

        Args:
            task: The task.
            owner: Whose it is; None looks it up.
            stacks: With its frames.
        """
        owner = owner or self.owner(task)
        born = self.born(task)
        stack, wait = self.standing(task, owner)
        place = self._places.first_outside(stack)
        created = self.created(task)
        parent = runs_beside(task) or awaited_by(task)
        return TaskInfo(
            id=self.number(task),
            name=one_line(task.get_name()),
            coroutine=_coroutine(task),
            created=str(created) if created is not None else "" if owner.kind == "application" else _BY_SERVER,
            age=None if born is None else round(max(0.0, self._monotonic() - born), 3),
            owner=owner.text,
            connection=owner.connection,
            route=owner.route,
            state=self.state(task, wait),
            waiting=str(place) if place is not None else "",
            waits_for=str(wait),
            parent=None if parent is None or parent.done() else self.number(parent),
            retained=self.outlived(task) is not None,
            stack=[*stack] if stacks else [],
        )

    def owner(self, task: asyncio.Task[Any]) -> Owner:
        """Whose it is."""
        return owner_of(task, self._places.part)

    def kind(self, task: asyncio.Task[Any]) -> Kind:
        """What kind of owner it has."""
        return kind_of(task, self._places.part)

    def number(self, task: asyncio.Task[Any]) -> int:
        """What reports call it, the same in each look."""
        number = self._numbers.get(task)
        if number is None:
            number = self._numbers[task] = next(self._next)
        return number

    def born(self, task: asyncio.Task[Any]) -> float | None:
        """When it was made, on the monotonic clock; None when nobody noted it."""
        origin = origin_of(task)
        if origin is not None:
            return origin.born
        if isinstance(task, OwnedTask):
            served: float | None = getattr(task, "born", None)
            return None if served is None else self._monotonic() - (self._ticker.now - served)
        belongs = request_of(task)
        if isinstance(belongs, Connection):
            return self._monotonic() - belongs.age
        return None if belongs is None else began(belongs)

    def created(self, task: asyncio.Task[Any]) -> Frame | None:
        """Where it was made; None when nobody noted it."""
        origin = origin_of(task)
        return None if origin is None else self._places.of_code(origin.code, origin.instruction)

    def stack(self, task: asyncio.Task[Any]) -> tuple[Frame, ...]:
        """Where it stands, innermost first."""
        return tuple(map(self._places.of_frame, frames_of_task(task)))

    def standing(self, task: asyncio.Task[Any], owner: Owner) -> tuple[tuple[Frame, ...], Wait]:
        """Where it stands, innermost first, and what it waits for."""
        frames = frames_of_task(task)
        wait = wait_of(task, frames, self._name, self._monotonic(), owner.connection)
        return tuple(map(self._places.of_frame, frames)), wait

    def state(self, task: asyncio.Task[Any], wait: Wait) -> str:
        """``running``, ``ready``, ``waiting`` or ``cancelling``."""
        if asyncio.current_task(task.get_loop()) is task:
            return "running"
        if task.cancelling():
            return "cancelling"
        return "waiting" if wait.kind else "ready"

    def outlived(self, task: asyncio.Task[Any]) -> RequestControl | None:
        """The request or WebSocket that it has outlived without leave; None when it has not.

        What is adopted has leave, and so has what an adopted task waits for.
        """
        origin = origin_of(task)
        scope = origin.request if origin is not None else None
        if scope is None or not ended(scope):
            return None
        seen: set[asyncio.Task[Any]] = set()
        waits: asyncio.Task[Any] | None = task
        while waits is not None and waits not in seen:
            if adopter_of(waits):
                return None
            seen.add(waits)
            waits = awaited_by(waits)
        return scope

    def _name(self, task: asyncio.Task[Any]) -> str:
        return f"{self.number(task)} ({one_line(task.get_name())})"


def _coroutine(task: asyncio.Task[Any]) -> str:
    coroutine = task.get_coro()
    return getattr(coroutine, "__qualname__", None) or type(coroutine).__qualname__
