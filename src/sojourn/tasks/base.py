"""What a node is made in: its loop, its name, its own tasks, and nobody's request."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections.abc import Coroutine
from contextvars import Context, ContextVar
from typing import Any, Final, TypeVar

from sojourn.asgi.server_control import CURRENT_SERVER
from sojourn.clock import Clock, SystemClock
from sojourn.errors import DeadlineExceeded, JournalUnavailable
from sojourn.scopes.budget import BUDGETS
from sojourn.scopes.failures import WORK, tell_failure, tell_own_failure
from sojourn.scopes.journals import JOURNALS
from sojourn.scopes.offload import OFFLOAD
from sojourn.scopes.work import launch

__all__ = ["Base"]

T = TypeVar("T")

#: What of a server its tasks see.
_OWN: Final[tuple[ContextVar[Any], ...]] = (WORK, CURRENT_SERVER, OFFLOAD, BUDGETS, JOURNALS)


class Base:
    """Made in the event loop. Its tasks belong to no request; other than those of requests they outlive the phase
    ``finish`` of a drain, so that leases are renewed until the last run has been handed back.

    Args:
        clock: For durations of its own.

    Attributes:
        id: Unique for each start of each process.
        loop: Where it runs.
        now: Monotonic seconds.
        serving: Whether a server of Sojourn's is around it.
        context: Nobody's request: for callbacks of futures that a request has made.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self.id = f"{socket.gethostname()[:40]}:{os.getpid()}:{secrets.token_hex(4)}"
        self.loop = asyncio.get_running_loop()
        self.now = (clock or SystemClock()).monotonic
        self.context = Context()
        for variable in _OWN:
            value = variable.get(None)
            if value is not None:
                self.context.run(variable.set, value)
        self._work = WORK.get(None)
        self.serving = self._work is not None
        self._kept: set[asyncio.Task[Any]] = set()

    def launch(self, coroutine: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """A task. The caller keeps it."""
        context = self.context.copy()
        return launch(coroutine, name, context) if self._work is None else self._work.launch(coroutine, name, context)

    def keep(self, coroutine: Coroutine[Any, Any, None], name: str) -> None:
        """A task that runs until :meth:`stop`."""
        task = self.launch(coroutine, name)
        self._kept.add(task)
        task.add_done_callback(self._over, context=self.context)

    def _over(self, task: asyncio.Task[Any]) -> None:
        self._kept.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:  # it should have run until it was stopped
            tell_failure(task, error, "durable tasks")

    def by_ladder(self, task: asyncio.Task[Any], cause: str, owner: str, grace: float = 0.0) -> None:
        """Cancel a task again and again, and name it if it resists."""
        if self._work is not None:
            self._work.cancel(task, cause, owner, grace=grace)
        elif grace > 0.0:
            self.loop.call_later(grace, task.cancel, cause)
        else:
            task.cancel(cause)

    def fail(self, error: BaseException) -> None:
        """Something went wrong, and nobody is there to whom it could be raised."""
        self.keep(_told(error), "durable tasks")

    def odd(self, error: Exception) -> None:
        """A call to the journal failed: what no engine should raise is told, and else is as if it were away.

        Raises:
            CancelledError: The task that calls was cancelled meanwhile, and this is what became of that.
        """
        task: asyncio.Task[Any] | None = asyncio.current_task()
        if task is not None and task.cancelling():
            raise asyncio.CancelledError from error
        if not isinstance(error, JournalUnavailable | DeadlineExceeded):
            self.fail(error)

    async def stop(self) -> None:
        """End what runs. Cancel: it is cancelled all the same."""
        kept = list(self._kept)
        for task in kept:
            task.cancel()
        if kept:
            await asyncio.wait(kept, timeout=2.0)


async def _told(error: BaseException) -> None:
    tell_own_failure(error, "durable tasks")
