"""Calls to the journal that are made while one is under way go together in the next: one statement, one fsync."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Generic, TypeVar

from sojourn.errors import JournalUnavailable
from sojourn.policy.retry import Backoff

__all__ = ["Batch"]

Q = TypeVar("Q")
A = TypeVar("A")

#: Between tries while the journal is away.
_BACKOFF: Final = Backoff(0.05, 2.0)


class Batch(Generic[Q, A]):
    """Collects calls of one kind: those of one turn of the event loop, and of the time a call takes, go together.

    While the journal is away it tries again: with backoff and jitter, for as long as anybody waits for an answer.

    Args:
        call: Of the journal: answers each entry for itself, in their order; may be repeated.
        launch: Makes a task of the service's own.
        name: What reports call that.
        most: Entries that go together at most.
        tell: Called with what went wrong each time the journal was away, and with None when it answered.
    """

    __slots__ = ("_call", "_launch", "_most", "_name", "_queue", "_task", "_tell", "_tries")

    def __init__(
        self,
        call: Callable[[Sequence[Q]], Awaitable[Sequence[A]]],
        launch: Callable[[Any, str], asyncio.Task[None]],
        name: str,
        tell: Callable[[Exception | None], None],
        most: int = 500,
    ) -> None:
        self._call = call
        self._launch = launch
        self._name = name
        self._tell = tell
        self._most = most
        self._queue: deque[tuple[Q, asyncio.Future[A]]] = deque()
        self._task: asyncio.Task[None] | None = None
        self._tries = 0

    @property
    def waiting(self) -> int:
        """Entries that have no answer yet."""
        return len(self._queue)

    def ask(self, entry: Q) -> asyncio.Future[A]:
        """Have an entry answered.

        Returns:
            Its answer. While the journal is away it stays open: who has waited long enough cancels it.

        Raises:
            Exception: In the future: what the journal raised because of this entry, other than that it is away.
        """
        future: asyncio.Future[A] = asyncio.get_running_loop().create_future()
        self._queue.append((entry, future))
        if self._task is None:
            self._task = self._launch(self._work(), self._name)
            self._task.add_done_callback(self._ended)
        return future

    async def _work(self) -> None:
        queue = self._queue
        while queue:
            taken: list[tuple[Q, asyncio.Future[A]]] = []
            while queue and len(taken) < self._most:
                each = queue.popleft()
                if not each[1].done():
                    taken.append(each)
            if not taken:
                continue
            try:
                await self._do(taken)
            except JournalUnavailable as error:
                queue.extendleft(reversed([each for each in taken if not each[1].done()]))
                self._tell(error)
                self._tries += 1
                await self._pause(max(_BACKOFF.delay(self._tries, random.uniform(0.5, 1.0)), 0.01))
            except BaseException:
                queue.extendleft(reversed([each for each in taken if not each[1].done()]))
                raise

    async def _do(self, taken: list[tuple[Q, asyncio.Future[A]]]) -> None:
        try:
            answers = await self._call([entry for entry, _ in taken])
        except JournalUnavailable:
            raise
        except Exception as error:  # noqa: BLE001 - it is raised to whose entry is the cause
            if len(taken) == 1:
                if not taken[0][1].done():
                    taken[0][1].set_exception(error)
                return
            for each in taken:  # one of them is at fault, and must not take the others with it
                await self._do([each])
            return
        if self._tries:
            self._tries = 0
        self._tell(None)
        for (_, future), answer in zip(taken, answers, strict=True):
            if not future.done():
                future.set_result(answer)

    async def _pause(self, seconds: float) -> None:
        """Wait, unless nobody does any more. Cancel: safe."""
        loop = asyncio.get_running_loop()
        pause = loop.create_future()
        timer = loop.call_later(seconds, pause.cancel)
        try:
            await asyncio.wait((pause,))
        finally:
            timer.cancel()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if self._queue and not task.cancelled() and task.exception() is None:
            self._task = self._launch(self._work(), self._name)
            self._task.add_done_callback(self._ended)

    async def drain(self, seconds: float) -> bool:
        """Wait until all has been answered. Returns whether it has."""
        task = self._task
        if task is not None:
            await asyncio.wait((task,), timeout=seconds)
        return not self._queue and self._task is None

    def stop(self) -> None:
        """Try no more; who waits is cancelled."""
        if self._task is not None:
            self._task.cancel()
        while self._queue:
            self._queue.popleft()[1].cancel()
