"""Tasks that the collector took before they had ended: asyncio holds them weakly, and tells when it is too late."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from sojourn.observe.leaks.ledger import Ledger, Signature
from sojourn.observe.profiles.model import Frame

__all__ = ["Described", "LostTask", "LostTasks"]

#: What asyncio and uvloop say of it.
_MESSAGE: Final = "Task was destroyed but it is pending!"
#: Set in the context of what was counted, because an application may chain its handler to ours and we ours to it.
_COUNTED: Final = "sojourn_counted"

#: Says what is known of a task.
Described = Callable[[asyncio.Task[Any]], "LostTask"]
_Handler = Callable[[asyncio.AbstractEventLoop, dict[str, Any]], object]


class LostTask(NamedTuple):
    """A task that the collector takes, with its coroutine. Which of them goes first is not known.

    Attributes:
        what: What it runs.
        created: Where it was made, as ``file:line in function``; "" when nobody noted it.
        waiting: Where it waits; "" when its coroutine is gone already.
        owner: Whose it is.
        age: Seconds since it was made.
        stack: Where it waits, innermost first; the function it runs when that is gone.
    """

    what: str
    created: str
    waiting: str
    owner: str
    age: float
    stack: list[Frame]


class LostTasks:
    """Stands in front of the exception handler of a loop.

    Args:
        loop: The loop.
        ledger: Gets the tasks.
        described: Says what is known of a task.

    Attributes:
        total: Tasks lost so far.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, ledger: Ledger, described: Described) -> None:
        self._loop = loop
        self._ledger = ledger
        self._described = described
        self._before: _Handler | None = None
        self._ours: _Handler | None = None
        self.total = 0
        self.check()

    def check(self) -> None:
        """Go in front again, when the application has set a handler of its own meanwhile."""
        current = self._loop.get_exception_handler()
        if self._ours is not None and current is self._ours:
            return
        before = self._before = current

        # One of its own for each handler behind it: one that is chained to our former one must not come back to itself.
        def ours(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
            if self._ours is not None and context.get("message") == _MESSAGE and _COUNTED not in context:
                context[_COUNTED] = True
                self._lost(context["task"])
            if before is not None:
                before(loop, context)
            else:
                loop.default_exception_handler(context)

        self._ours = ours
        self._loop.set_exception_handler(ours)

    def close(self) -> None:
        """Step back, unless somebody stands in front: then let everything pass. Idempotent."""
        ours, self._ours = self._ours, None
        if ours is not None and self._loop.get_exception_handler() is ours:
            self._loop.set_exception_handler(self._before)

    def _lost(self, task: asyncio.Task[Any]) -> None:
        self.total += 1
        lost = self._described(task)
        signature = Signature("lost_task", lost.what, lost.created, lost.waiting)
        self._ledger.add(signature, owner=lost.owner, age=lost.age, stack=lost.stack, alive=False)
