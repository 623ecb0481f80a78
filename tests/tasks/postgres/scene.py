"""Tables of a test's own, and who looks at the server besides."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from itertools import count
from secrets import token_hex
from typing import Any, TypeVar

import asyncpg
import uvloop

from sojourn.tasks.postgres.journal import PostgresJournal
from sojourn.testing.task_journal import Ears

T = TypeVar("T")

_numbers = count(1)


def run(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a test's own coroutine, within 30 seconds."""

    async def bounded() -> T:
        async with asyncio.timeout(30):
            return await main()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(bounded())


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = 10.0) -> None:
    """Wait until something outside of this process is so."""
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


def ident() -> str:
    """An id that no other task has."""
    return f"{next(_numbers):08d}{token_hex(12)}"


class Scene:
    """A schema, which is left to the end of the server.

    Attributes:
        schema: Its name.
        sql: A connection of the test's own.
    """

    sql: Any

    def __init__(self, port: int) -> None:
        self.port = port
        self.schema = f"test_{next(_numbers)}"
        self._journals: list[PostgresJournal] = []
        self._listening: list[asyncio.Task[None]] = []

    def dsn(self, port: int = 0) -> str:
        """Where the server is, or what stands before it."""
        return f"postgresql://postgres@127.0.0.1:{port or self.port}/postgres?sslmode=disable"

    def journal(self, port: int = 0, **options: Any) -> PostgresJournal:
        """One of these tables, not opened yet."""
        journal = PostgresJournal(self.dsn(port), schema=self.schema, **options)
        self._journals.append(journal)
        return journal

    async def ears(self, journal: PostgresJournal) -> Ears:
        """Somebody who listens."""
        ears = Ears()
        self._listening.append(asyncio.ensure_future(journal.listen(ears)))
        await ears.until(lambda ears: ears.misses > 0, "it does not listen")
        return ears

    async def sessions(self) -> int:
        """How many connections journals have to the server."""
        await self.sql.execute("SELECT pg_stat_clear_snapshot()")  # in a transaction it would be as it was before
        asked = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'sojourn tasks'"
        return int(await self.sql.fetchval(asked))

    async def terminate(self) -> None:
        """End all these connections."""
        asked = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'sojourn tasks'"
        await self.sql.fetch(asked)

    async def close(self) -> None:
        """Close all journals; then nothing of theirs is left."""
        for task in self._listening:
            task.cancel()
        await asyncio.gather(*self._listening, return_exceptions=True)
        for journal in self._journals:
            await journal.aclose()

        async def gone() -> bool:
            return await self.sessions() == 0

        await until(gone)

    async def __aenter__(self) -> Scene:
        self.sql = await asyncpg.connect(self.dsn())
        return self

    async def __aexit__(self, *error: object) -> None:
        if self.sql.is_closed():  # the server was restarted
            self.sql = await asyncpg.connect(self.dsn())
        try:
            if not any(error):
                await self.close()
        finally:
            for thing in (*self._listening, *self._journals):
                if isinstance(thing, PostgresJournal):
                    await thing.aclose()
                else:
                    thing.cancel()
            await self.sql.close()
