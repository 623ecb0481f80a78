"""Durable tasks that hold their lease although their deadline and the ladder of cancellation are over."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

from sojourn.observe.leaks.ledger import Ledger, Signature
from sojourn.observe.tasks.describer import TaskInfo
from sojourn.scopes.journals import Journals

__all__ = ["StuckRuns"]


class StuckRuns:
    """Asks the services of durable tasks which of their runs should be gone.

    Such a run goes on renewing its lease, so no other node takes the task up: nobody else would ever tell of it.

    Args:
        journals: The services; None where there can be none.
        ledger: Gets what is found.
        describe: Says what is known of a task, with its stack.
    """

    def __init__(
        self, journals: Journals | None, ledger: Ledger, describe: Callable[[asyncio.Task[Any]], TaskInfo]
    ) -> None:
        self._journals = journals
        self._ledger = ledger
        self._describe = describe
        self._told: WeakKeyDictionary[asyncio.Task[Any], Signature] = WeakKeyDictionary()

    def look(self) -> None:
        """Look once. To be called every few seconds."""
        for task in [task for task in self._told if task.done()]:
            self._ledger.gone(self._told.pop(task))
        for service in self._journals or ():
            for run, task in service.stuck():
                if task in self._told or task.done():
                    continue
                info = self._describe(task)
                signature = self._told[task] = Signature("run", run.kind, "", info.waiting)
                self._ledger.add(signature, owner=f"task {run.kind} {run.id}", age=run.age, stack=info.stack)
