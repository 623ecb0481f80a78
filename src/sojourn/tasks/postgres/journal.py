"""The journal in PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Coroutine, Sequence
from typing import Any, Final, TypeAlias

from sojourn.errors import JournalUnavailable
from sojourn.scopes.work import launch
from sojourn.tasks.journal import Beat, Claimed, Counts, Listener, Query, Want
from sojourn.tasks.postgres.batches import Ends, News, Said
from sojourn.tasks.postgres.calls import SECONDS, Calls
from sojourn.tasks.postgres.connecting import Connector
from sojourn.tasks.postgres.hints import Hints
from sojourn.tasks.postgres.link import hear
from sojourn.tasks.postgres.pool import Borrowed, Lender, Pool
from sojourn.tasks.postgres.rows import claimed, counted, reading, task_of
from sojourn.tasks.postgres.schema import ddl
from sojourn.tasks.postgres.statements import Statements
from sojourn.tasks.record import NewTask, Progress, Reading, Settlement, Submitted, Task

__all__ = ["PostgresJournal"]

Connect: TypeAlias = Callable[[], Awaitable[Any]]

#: How often entries whose key was in use are looked at, when what used it is gone by then.
_LOOKS: Final = 3


class PostgresJournal:
    """Durable tasks in PostgreSQL 12 or newer (the extra ``asyncpg``), for nodes of all hosts.

    What has been answered is as safe as the server's ``synchronous_commit`` makes it. Each call is one statement, by
    the server's clock, and has 5 seconds, or what ``deadlines.budgets`` says for ``tasks``; after that, and while the
    server is away, stands by or is full, it raises JournalUnavailable. Tables are made at the first use, under a lock,
    unless they are there; ``sojourn.tasks.postgres.schema.ddl`` gives the statements for a role that may.

    Args:
        dsn: Such as ``postgresql://user:password@host/database``. With several hosts and
            ``?target_session_attrs=read-write`` it follows a failover. Or an ``asyncpg.Pool``, which stays yours and
            lends one connection for as long as somebody listens.
        schema: Where the tables are.
        connections: Of this process, at most; one more listens.
        direct: The server's own address, when ``dsn`` is that of a pooler that shares sessions between transactions
            (PgBouncer): nothing is prepared then, and one connection goes past it, to listen.

    Raises:
        ConfigError: The schema has no plain name, or the package ``asyncpg`` is missing.

    Example:
        >>> journal = PostgresJournal("postgresql://localhost/shop")
        >>> journal.name
        'postgres'
    """

    def __init__(self, dsn: Any, *, schema: str = "sojourn", connections: int = 5, direct: str = "") -> None:
        ddl(schema)
        self._sql = Statements(schema)
        pool: Lender
        if isinstance(dsn, str):
            connector = Connector(dsn, seconds=SECONDS, prepared=not direct)
            pool = Pool(connector, max(1, connections))
            self._ear: Connect = Connector(direct, seconds=SECONDS) if direct else connector
        else:
            pool = Borrowed(dsn)
            self._ear = pool.keep
        self._pool = pool
        self._calls = Calls(pool, schema)
        self._fetch = self._calls.fetch
        self._hints = Hints(self._notify, self._launch)

    @property
    def name(self) -> str:
        """See Journal."""
        return "postgres"

    async def open(self, node: str) -> None:
        """See Journal."""
        await self._calls.open()

    async def submit(self, tasks: Sequence[NewTask]) -> Sequence[Submitted]:
        """See Journal."""
        news = News(tasks)
        for _ in range(_LOOKS):
            rows = news.missing()
            if not rows:
                break
            for (ident,) in await self._fetch(self._sql.insert, *rows):
                news.written(ident)
            asked = news.conflicts()
            if asked is not None:
                for row in await self._fetch(self._sql.known, *asked):
                    news.known(row)
        else:
            if news.missing():
                raise JournalUnavailable("what used a key was removed again and again meanwhile")
        self._hints.tell(due=news.due)
        return news.answers()

    async def claim(self, node: str, wants: Sequence[Want], lease: float) -> Claimed:
        """See Journal."""
        wanted = [(place, kind, want.n) for place, want in enumerate(wants) for kind in want.kinds if want.n > 0]
        if not wanted:
            return Claimed()
        places, kinds, numbers = map(list, zip(*wanted, strict=True))
        total = sum(want.n for want in wants)
        rows = await self._fetch(self._sql.claim, places, kinds, numbers, node, lease, total, repeat=False)
        found, ids = claimed(rows)
        self._hints.tell(changed=ids)
        return found

    async def beat(self, node: str, held: Sequence[tuple[str, int]], lease: float) -> Beat:
        """See Journal."""
        if not held:
            return Beat()
        ids, epochs = zip(*sorted(held), strict=True)
        rows = await self._fetch(self._sql.beat, ids, epochs, lease, node)
        kept = {row["id"] for row in rows}
        return Beat(
            lost=frozenset(ids) - kept,
            cancelled=frozenset(row["id"] for row in rows if row["cancelling"]),
        )

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[bool]:
        """See Journal."""
        if not settlements:
            return []
        ends = Ends(settlements)
        if ends.follow:
            rows = await self._fetch(self._sql.settle_then, *ends.columns(), *ends.following())
        else:
            rows = await self._fetch(self._sql.settle, *ends.columns())
        for ident, epoch in rows:
            ends.counted(ident, epoch)
        if ids_epochs := ends.open():
            for ident, epoch, outcome in await self._fetch(self._sql.settled, *ids_epochs):
                ends.before(ident, epoch, outcome)
        self._hints.tell(due=ends.due, changed=ends.changed)
        return ends.answers()

    async def append(self, progress: Sequence[Progress]) -> Sequence[int]:
        """See Journal."""
        if not progress:
            return []
        said = Said(progress)
        for ident, epoch, base in await self._fetch(self._sql.append, *said.columns(), repeat=False):
            said.counted(ident, epoch, base)
        self._hints.tell(changed=said.changed)
        return said.answers()

    async def cancel(self, id: str) -> Task | None:
        """See Journal."""
        rows = await self._of(self._sql.cancel, id)
        if not rows:
            return await self.get(id)
        task = task_of(rows[0])
        self._hints.tell(changed=(id,), cancelled=(id,) if task.state == "running" else ())
        return task

    async def retry(self, id: str) -> Task | None:
        """See Journal."""
        rows = await self._of(self._sql.retry, id)
        if not rows:
            return await self.get(id)
        self._hints.tell(due=True, changed=(id,))
        return task_of(rows[0])

    async def get(self, id: str) -> Task | None:
        """See Journal."""
        rows = await self._of(self._sql.get, id)
        return task_of(rows[0]) if rows else None

    async def read(self, id: str, after: int, limit: int = 1000) -> Reading | None:
        """See Journal."""
        rows = await self._of(self._sql.read, id, after, limit)
        return reading(rows[0]) if rows else None

    async def list(self, query: Query) -> Sequence[Task]:
        """See Journal."""
        asked = (query.states, query.kind, query.owner, query.before, query.limit)
        return [task_of(row) for row in await self._fetch(self._sql.list, *asked)]

    async def counts(self, kinds: Collection[str] = ()) -> Counts:
        """See Journal."""
        return counted(await self._fetch(self._sql.counts, list(kinds) or None))

    async def sweep(self, limit: int = 1000) -> int:
        """See Journal."""
        return int((await self._fetch(self._sql.sweep, limit))[0][0])

    async def listen(self, listener: Listener) -> None:
        """See Journal."""
        await hear(self._ear, self._sql.channel, self._hints, listener)

    async def follow(self, id: str) -> None:
        """See Journal: it tells of all."""

    def unfollow(self, id: str) -> None:
        """See Journal."""

    async def aclose(self) -> None:
        """See Journal."""
        await self._hints.aclose()
        await self._pool.aclose()

    # The way to the server

    async def _of(self, statement: str, id: str, *values: Any) -> Any:
        """Ask for one task. An id that can't be one is that of none."""
        try:
            return await self._fetch(statement, id, *values)
        except ValueError:
            return ()

    async def _notify(self, payloads: Sequence[str]) -> None:
        await self._fetch(self._sql.notify, payloads)

    def _launch(self, coroutine: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        return launch(coroutine, name, self._calls.context.copy())
