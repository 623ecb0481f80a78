"""Tasks in an SQLite file: what applications and nodes call."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Collection, Coroutine, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from sojourn.clock import Clock, SystemClock
from sojourn.errors import ConfigError, JournalUnavailable
from sojourn.scopes.budget import budget
from sojourn.scopes.pausing import within
from sojourn.tasks.journal import Beat, Claimed, Counts, Listener, Query, Want
from sojourn.tasks.record import NewTask, Progress, Reading, Settlement, Submitted, Task
from sojourn.tasks.sqlite import claims, reads, settles, submits
from sojourn.tasks.sqlite.bell import Bell
from sojourn.tasks.sqlite.ears import LOOK, Ears
from sojourn.tasks.sqlite.host import Host
from sojourn.tasks.sqlite.worker import Call, Worker

__all__ = ["SqliteJournal"]

T = TypeVar("T")

#: What errors and ``deadlines.budgets`` call it, and seconds for one call without a word of that.
BUDGET: Final = "tasks"
SECONDS: Final = 5.0
#: Calls that may wait for each thread.
_QUEUE: Final = 10_000
_now: Final = SystemClock.monotonic


class SqliteJournal:
    """Tasks in an SQLite file: they outlive process and machine, and all processes of the host share them.

    No server is needed. What is submitted, said or settled has reached the disk when the call returns; calls that are
    made at the same time share that wait. Beside the file there are ``-wal`` and ``-shm``, and a folder ``-nodes`` that
    tells who lives. All of it is for its user only. A network file system won't do: SQLite's locks don't work there.

    Args:
        path: Of the file, which is made; its folder must be there.
        clock: The time; None takes the machine's, which all its processes share.

    Example:
        >>> import asyncio, tempfile
        >>> from sojourn.tasks.record import NewTask
        >>> async def main(folder):
        ...     journal = SqliteJournal(f"{folder}/tasks.db")
        ...     await journal.open("node-1")
        ...     await journal.submit([NewTask(id="a", kind="report")])
        ...     task = await journal.get("a")
        ...     await journal.aclose()
        ...     return task.state
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     asyncio.run(main(folder))
        'pending'
    """

    def __init__(self, path: str | os.PathLike[str], *, clock: Clock | None = None) -> None:
        self.path = Path(path)
        self._clock = clock or SystemClock()
        self._host: Host | None = None
        self._writer: Worker | None = None
        self._reader: Worker | None = None
        self._ears: Ears | None = None
        self._bell: Bell | None = None
        #: Who has opened it. A forked child may use nothing of it, not even close it.
        self._pid = 0
        self._looked = 0.0

    @property
    def name(self) -> str:
        """See Journal."""
        return "sqlite"

    async def open(self, node: str) -> None:
        """See Journal."""
        if self._host is not None:
            if self._pid != os.getpid():
                raise ConfigError(
                    f"the journal {self.path} was opened before a fork: open it in each child, after the fork"
                )
            return
        if not self.path.parent.is_dir():
            raise ConfigError(f"the journal {self.path} can't be made: its folder is not there")
        host, bell = Host(self.path, self._clock), Bell(asyncio.get_running_loop())
        writer = Worker("sojourn-tasks-write", host.writing.perform, bell)
        try:
            await self._ask(writer, host.open, node, durable=None)
        except BaseException:
            writer.ask(Call(host.close, (), asyncio.get_running_loop().create_future(), None))
            writer.stop()
            bell.close()
            raise
        self._pid = os.getpid()
        self._host, self._writer, self._ears, self._bell = host, writer, Ears(host, bell), bell
        self._reader = Worker("sojourn-tasks-read", host.reading.perform, bell)

    async def submit(self, tasks: Sequence[NewTask]) -> Sequence[Submitted]:
        """See Journal."""
        return await self._write(submits.submit, tasks)

    async def claim(self, node: str, wants: Sequence[Want], lease: float) -> Claimed:
        """See Journal. Not forced to the disk: when the power goes, who has claimed goes as well."""
        if _now() - self._looked > LOOK:
            await self._look()
        _, writer, _ = self._checked()
        return await self._ask(writer, claims.claim, node, wants, lease, durable=False, first=claims.nothing)

    async def beat(self, node: str, held: Sequence[tuple[str, int]], lease: float) -> Beat:
        """See Journal."""
        return await self._write(claims.beat, node, held, lease, durable=False)

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[bool]:
        """See Journal."""
        return await self._write(settles.settle, settlements)

    async def append(self, progress: Sequence[Progress]) -> Sequence[int]:
        """See Journal."""
        return await self._write(reads.append, progress)

    async def cancel(self, id: str) -> Task | None:
        """See Journal."""
        return await self._write(submits.cancel, id)

    async def retry(self, id: str) -> Task | None:
        """See Journal."""
        return await self._write(submits.retry, id)

    async def get(self, id: str) -> Task | None:
        """See Journal."""
        return await self._read(submits.record, id)

    async def read(self, id: str, after: int, limit: int = 1000) -> Reading | None:
        """See Journal."""
        return await self._read(reads.read, id, after, limit)

    async def list(self, query: Query) -> Sequence[Task]:
        """See Journal."""
        return await self._read(reads.listing, query)

    async def counts(self, kinds: Collection[str] = ()) -> Counts:
        """See Journal."""
        return await self._read(reads.count, kinds)

    async def sweep(self, limit: int = 1000) -> int:
        """See Journal."""
        return await self._write(submits.sweep, limit, durable=False)

    async def listen(self, listener: Listener) -> None:
        """See Journal."""
        self._checked()
        assert self._ears is not None
        await self._ears.listen(listener, self._look)

    async def follow(self, id: str) -> None:
        """See Journal: it tells of all."""

    def unfollow(self, id: str) -> None:
        """See Journal."""

    async def aclose(self) -> None:
        """See Journal."""
        host, writer, reader = self._host, self._writer, self._reader
        if host is None or writer is None or reader is None:
            return
        if self._pid != os.getpid():
            return  # what a forked child has is its parent's
        self._host = self._writer = self._reader = self._ears = None
        calls = []
        for worker, close in ((reader, host.reading.close), (writer, host.close)):
            calls.append(Call(close, (), asyncio.get_running_loop().create_future(), None))
            worker.ask(calls[-1])
            worker.stop()
        for call in calls:
            try:
                await self._answer(call)
            except JournalUnavailable:
                pass  # it hangs in the file system, and is left there
        if self._bell is not None:
            self._bell.close()
            self._bell = None

    async def _look(self) -> None:
        """Are all nodes alive, and is there anything that they were not told?"""
        host, writer, _ = self._checked()
        self._looked = _now()
        await self._ask(writer, host.look, durable=None)

    def _write(self, function: Callable[..., T], *args: Any, durable: bool = True) -> Coroutine[Any, Any, T]:
        _, writer, _ = self._checked()
        return self._ask(writer, function, *args, durable=durable)

    def _read(self, function: Callable[..., T], *args: Any) -> Coroutine[Any, Any, T]:
        _, _, reader = self._checked()
        return self._ask(reader, function, *args, durable=False)

    def _checked(self) -> tuple[Host, Worker, Worker]:
        if self._host is None or self._writer is None or self._reader is None:
            raise JournalUnavailable(f"{self.path}: it is not open")
        if self._pid != os.getpid():
            raise JournalUnavailable(f"{self.path}: it was opened before a fork: open it in each child, after the fork")
        return self._host, self._writer, self._reader

    async def _ask(
        self,
        worker: Worker,
        function: Callable[..., T],
        *args: Any,
        durable: bool | None,
        first: Callable[..., T | None] | None = None,
    ) -> T:
        if worker.waiting >= _QUEUE:
            raise JournalUnavailable(f"{self.path}: {_QUEUE} calls wait for it")
        call = Call(function, args, asyncio.get_running_loop().create_future(), durable, first)
        worker.ask(call)
        result: T = await self._answer(call)
        return result

    async def _answer(self, call: Call) -> Any:
        # No deadline: while one is entered, the thread waits for the interpreter.
        seconds = budget(BUDGET, default=SECONDS).seconds
        try:
            return await within(seconds, call.future)
        except TimeoutError as error:
            raise JournalUnavailable(f"{self.path}: it has not answered in {seconds:g} s") from error
