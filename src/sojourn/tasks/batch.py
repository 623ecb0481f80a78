"""Calls to the journal that are made while one is under way go together in the next: one statement, one fsync."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from typing import Any, Final, Generic, TypeVar

from sojourn.errors import JournalUnavailable
from sojourn.policy.retry import Backoff
from sojourn.scopes.pausing import pause

__all__ = ["Batch"]

Q = TypeVar("Q")
A = TypeVar("A")

#: Between tries while the journal is away.
_BACKOFF: Final = Backoff(0.05, 2.0)


class Batch(Generic[Q, A]):
    """Collects calls of one kind: those of one turn of the event loop, and of the time a call takes, go together.

    While the journal is away it tries again: with backoff and jitter, for as long as anybody waits for an answer. Those
    who wait are bounded, if ``room`` says so: one more is told at once that the journal is away.

    Args:
        call: Of the journal: answers each entry for itself, in their order; may be repeated.
        launch: Makes a task of the service's own.
        name: What reports call that.
        tell: Called with what went wrong each time the journal was away, and with None when it answered.
        most: Entries that go together at most.
        room: Entries that may wait; None where what makes them is bounded.
        late: Called with an entry that was given up while its call was under way, and with its answer.
    """

    __slots__ = (
        "_call",
        "_late",
        "_launch",
        "_most",
        "_name",
        "_queue",
        "_quiet",
        "_room",
        "_stopped",
        "_task",
        "_tell",
        "_tries",
        "_wake",
    )

    def __init__(  # noqa: PLR0913 - made once each, by the node
        self,
        call: Callable[[Sequence[Q]], Awaitable[Sequence[A]]],
        launch: Callable[[Any, str], asyncio.Task[None]],
        name: str,
        tell: Callable[[Exception | None], None],
        most: int = 500,
        room: int | None = None,
        late: Callable[[Q, A], None] | None = None,
    ) -> None:
        self._call = call
        self._launch = launch
        self._name = name
        self._tell = tell
        self._most = most
        self._room = room
        self._late = late
        self._stopped = False
        self._queue: deque[tuple[Q, asyncio.Future[A]]] = deque()
        #: Makes the calls: from the first entry on, until it is stopped. A task for each call would cost as much as it.
        self._task: asyncio.Task[None] | None = None
        #: Done when there is something to do; None while something is done. And done when there is no more to do.
        self._wake: asyncio.Future[None] | None = None
        self._quiet: asyncio.Future[None] | None = None
        self._tries = 0

    def ask(self, entry: Q) -> asyncio.Future[A]:
        """Have an entry answered.

        Returns:
            Its answer. While the journal is away it stays open: who has waited long enough cancels it, or
            gives it a ``TimeoutError``.

        Raises:
            Exception: In the future: what the journal raised because of this entry, other than that it is away.
            JournalUnavailable: In the future: too many wait already, or it was stopped.
        """
        future: asyncio.Future[A] = asyncio.get_running_loop().create_future()
        if self._stopped:
            future.set_exception(_ended())
            return future
        if self._room is not None and len(self._queue) >= self._room:
            future.set_exception(JournalUnavailable(f"{len(self._queue)} calls wait for it"))
            return future
        self._queue.append((entry, future))
        if self._wake is not None:
            if not self._wake.done():
                self._wake.set_result(None)
            self._wake = None
        elif self._task is None:
            self._begin()
        return future

    def _begin(self) -> None:
        self._task = self._launch(self._work(), self._name)
        # Not in the context of the request that asks: it would be kept for as long as this runs.
        self._task.add_done_callback(self._ended, context=Context())

    async def _work(self) -> None:
        queue, loop = self._queue, asyncio.get_running_loop()
        while True:
            if not queue:
                if self._quiet is not None and not self._quiet.done():
                    self._quiet.set_result(None)
                self._wake = wake = loop.create_future()
                await wake
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
                left = [each for each in queue if not each[1].done()]  # nobody keeps what was given up
                queue.clear()
                queue.extend(each for each in taken if not each[1].done())
                queue.extend(left)
                self._tell(error)
                self._tries += 1
                await pause(max(_BACKOFF.delay(self._tries, random.uniform(0.5, 1.0)), 0.01))
            except BaseException:
                queue.extendleft(reversed(taken))
                raise

    async def _do(self, taken: list[tuple[Q, asyncio.Future[A]]]) -> None:
        try:
            answers = await self._call([entry for entry, _ in taken])
            if len(answers) != len(taken):
                raise RuntimeError(f"{self._name}: {len(answers)} answers for {len(taken)} entries")
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
        for (entry, future), answer in zip(taken, answers, strict=True):
            if not future.done():
                future.set_result(answer)
            elif self._late is not None and (future.cancelled() or isinstance(future.exception(), TimeoutError)):
                self._late(entry, answer)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """It was stopped, or the server has cancelled it: who asks next begins anew."""
        if self._task is task:
            self._task = self._wake = None
        self._give_up()

    def _give_up(self) -> None:
        while self._queue:
            future = self._queue.popleft()[1]
            if not future.done():
                future.set_exception(_ended())

    async def drain(self, seconds: float) -> bool:
        """Wait until all has been answered. Returns whether it has."""
        if self._task is not None and self._wake is None:
            self._quiet = asyncio.get_running_loop().create_future()
            await asyncio.wait((self._quiet, self._task), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        return not self._queue and (self._task is None or self._wake is not None)

    def stop(self) -> None:
        """Try no more, for good. Who waits is told that the journal is away; so is who asks from now on."""
        self._stopped = True
        if self._task is not None:
            self._task.cancel()
            self._task = self._wake = None
        self._give_up()


def _ended() -> JournalUnavailable:
    return JournalUnavailable("the service ends here")
