"""Sessions in a file, for all workers of one host."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable, Collection, Sequence
from typing import Any, Final, TypeVar

from sojourn.clock import Clock, SystemClock
from sojourn.errors import DeadlineExceeded, OffloadFull, SessionStoreUnavailable
from sojourn.scopes.budget import budget
from sojourn.scopes.offload import Offload
from sojourn.sessions.store import Watcher
from sojourn.sessions.stored import Draft, Revocation, Saved, Stored
from sojourn.sessions.tables import Tables

__all__ = ["SqliteSessions"]

T = TypeVar("T")

#: What errors and ``deadlines.budgets`` call it, and seconds for one call without a word of that.
BUDGET: Final = "sessions"
SECONDS: Final = 1.0
#: Calls that may wait for the thread.
_QUEUE: Final = 1000
#: Seconds between two looks for revocations, while anything is open.
_POLL: Final = 0.25


class SqliteSessions:
    """Sessions in an SQLite file: they outlive the process, and all workers of the host share them. Needs no server.

    One thread does the work, so the event loop never waits for the disk. Each call has a second, or what
    ``deadlines.budgets`` says for ``sessions``. The file is for its user only. A network file system won't do: SQLite's
    locks don't work there.

    Args:
        path: Of the file; its folder must be there.
        clock: The time; None takes the machine's, which all its processes share.

    Example:
        >>> async def app(scope, receive, send): ...
        >>> app = Sessions(app, SqliteSessions("/tmp/shop-sessions.db"))
    """

    def __init__(self, path: str | os.PathLike[str], *, clock: Clock | None = None) -> None:
        self._tables = Tables(os.fspath(path), clock or SystemClock())
        self._thread = Offload(threads=1, queue=_QUEUE)

    async def load(self, key: str) -> Stored | None:
        """See SessionStore."""
        return await self._call(self._tables.load, key)

    async def create(self, key: str, draft: Draft) -> Stored:
        """See SessionStore."""
        return await self._call(self._tables.create, key, draft)

    async def save(self, key: str, version: int, data: bytes) -> Saved:
        """See SessionStore."""
        return await self._call(self._tables.save, key, version, data)

    async def rotate(self, key: str, version: int, new: str, draft: Draft) -> Saved:
        """See SessionStore."""
        return await self._call(self._tables.rotate, key, version, new, draft)

    async def touch(self, keys: Collection[str]) -> set[str]:
        """See SessionStore."""
        return await self._call(self._tables.touch, keys)

    async def revoke(self, revocation: Revocation) -> None:
        """See SessionStore."""
        await self._call(self._tables.revoke, revocation)

    async def of(self, user: str) -> Sequence[Stored]:
        """See SessionStore."""
        return await self._call(self._tables.of, user)

    async def watch(self, watcher: Watcher) -> None:
        """See SessionStore. Other processes can't call: it looks four times a second."""
        latest = -1
        while True:
            try:
                since = latest
                told, latest, hole = await self._call(self._tables.told, since)
            except (SessionStoreUnavailable, DeadlineExceeded):
                if latest >= 0:
                    latest = -1
                    watcher.away()
            else:
                if since < 0 or hole:
                    watcher.missed()
                for revocation in told:
                    watcher.revoked(revocation)
            waiter = asyncio.get_running_loop().create_future()
            await asyncio.wait((waiter,), timeout=_POLL)

    async def aclose(self) -> None:
        """See SessionStore."""
        try:
            await self._call(self._tables.close)
        except SessionStoreUnavailable:
            pass  # it hangs in the file system, and is left there
        thread, self._thread = self._thread, Offload(threads=1, queue=_QUEUE)
        await thread.close(SECONDS)

    async def _call(self, function: Callable[..., T], *args: Any) -> T:
        try:
            async with budget(BUDGET, default=SECONDS):
                return await self._thread.run(function, *args, name=f"sessions.{function.__name__}")
        except DeadlineExceeded as error:
            if error.deadline != BUDGET:
                raise
            raise SessionStoreUnavailable(f"the file has not answered in {error.seconds:g} s") from error
        except OffloadFull as error:
            raise SessionStoreUnavailable("too many wait for the file") from error
        except (sqlite3.Error, OSError) as error:
            raise SessionStoreUnavailable(f"{type(error).__name__}: {error}") from error
