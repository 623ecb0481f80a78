"""The task that the present code does: who it is, what it has saved, and how it says how far it is."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Final

from sojourn.tasks.kinds import decoded, encoded
from sojourn.tasks.record import Claim, Progress

__all__ = ["CURRENT", "CurrentTask", "current_task"]

#: Events of a task that journals keep.
_KEPT: Final = 1000


class CurrentTask:
    """What runs here; get it from :func:`current_task`.

    Attributes:
        id: Of the task.
        kind: Of the task.
        attempt: Which attempt it is, from 1: one more than have failed.
        interruptions: How often it was begun and not brought to an end: handed over, or lost with its node.
        owner: Principal who started it; "" for nobody.
        checkpoint: What it saved last, in this run or an earlier one; None when nothing.
        slot: Of a task that comes by a schedule, the moment it stands for, in seconds since 1970; None for others.
    """

    __slots__ = ("_ask", "_behind", "_claim", "_loop", "checkpoint", "slot")

    def __init__(self, claim: Claim, ask: Callable[[Progress], asyncio.Future[int]], slot: float | None = None) -> None:
        self.slot = slot
        self._claim = claim
        self._ask = ask
        self._loop = asyncio.get_running_loop()
        #: What was told and may not be written down yet, oldest first.
        self._behind: deque[asyncio.Future[int]] = deque()
        self.checkpoint: Any = decoded(claim.checkpoint)

    id = property(lambda self: self._claim.id)
    kind = property(lambda self: self._claim.kind)
    owner = property(lambda self: self._claim.owner)
    attempt = property(lambda self: self._claim.failures + 1)
    interruptions = property(lambda self: self._claim.interruptions)

    async def progress(self, data: Any) -> int:
        """Tell who watches how far it is. It is written down: who comes back later gets it, too.

        The last 1,000 of a task are kept. While the journal is away it waits for it.

        Args:
            data: Anything that JSON can hold, at most 1 MiB.

        Returns:
            Its number: 1, 2, 3, ... over all runs.

        Raises:
            TypeError: It is no JSON.
            ValueError: It is too long.

        Cancel: safe; it may have been written.
        """
        return await self._ask(Progress(self.id, self._claim.epoch, encoded(data, "progress")))

    def tell(self, data: Any) -> None:
        """As :meth:`progress`, without waiting for it; also from the thread that does the task.

        It is written before the end of the task is. While the journal is away the last 1,000 wait for it, as no more
        are kept.

        Raises:
            TypeError: It is no JSON.
            ValueError: It is too long.
        """
        entry = Progress(self.id, self._claim.epoch, encoded(data, "progress"))
        try:
            here = asyncio.get_running_loop() is self._loop
        except RuntimeError:
            here = False
        if here:
            self._tell(entry)
        else:
            self._loop.call_soon_threadsafe(self._tell, entry)

    async def save(self, checkpoint: Any) -> None:
        """Keep something for the next run, if this one is interrupted or fails: where to go on.

        It may be called while the task is cancelled: in ``except asyncio.CancelledError``, before it is raised again.

        Args:
            checkpoint: Anything that JSON can hold, at most 1 MiB; in place of the last.

        Raises:
            TypeError: It is no JSON.
            ValueError: It is too long.

        Cancel: safe; it may have been written.
        """
        await self._ask(Progress(self.id, self._claim.epoch, b"", encoded(checkpoint, "a checkpoint")))
        self.checkpoint = checkpoint

    def _tell(self, entry: Progress) -> None:
        behind = self._behind
        while behind and (behind[0].done() or len(behind) >= _KEPT):
            behind.popleft().cancel()
        behind.append(self._ask(entry))


#: The task that the present context does.
CURRENT: Final[ContextVar[CurrentTask]] = ContextVar("sojourn_task")


def current_task() -> CurrentTask:
    """The durable task that the present code does; also in a thread that does one.

    Raises:
        LookupError: It does none.

    Example:
        >>> async def export(pages: int) -> None:
        ...     task = current_task()
        ...     for page in range(task.checkpoint or 0, pages):
        ...         await task.progress({"page": page})
        ...         await task.save(page + 1)
    """
    try:
        return CURRENT.get()
    except LookupError:
        raise LookupError("no durable task is done here; one of to='process' has none in its process") from None
