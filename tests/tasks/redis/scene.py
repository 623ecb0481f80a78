"""What tests of the journal in Redis share: journals, tasks, and a look at all that is kept."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Coroutine
from typing import Any

from sojourn.scopes.budget import BUDGETS, Budgets
from sojourn.tasks.journal import Want
from sojourn.tasks.record import NewTask
from sojourn.tasks.redis.journal import RedisJournal

__all__ = ["WANT", "consistent", "hurried", "journal_at", "kept", "new", "play"]

WANT = [Want(("k", "other"), 10)]
_numbers = itertools.count()


def play(main: Coroutine[Any, Any, None], seconds: float = 20.0) -> None:
    """Run a test, within a time."""

    async def bounded() -> None:
        async with asyncio.timeout(seconds):
            await main

    asyncio.run(bounded())


def hurried(seconds: float = 0.25) -> None:
    """Give each call less time, from here on in this context."""
    BUDGETS.set(Budgets({"tasks": seconds}))


def journal_at(redis: Any, **options: Any) -> RedisJournal:
    """A journal with keys of its own."""
    return RedisJournal(redis, prefix=f"{{test:{next(_numbers)}}}:", **options)


def new(kind: str = "k", **fields: Any) -> NewTask:
    """A task with an id of its own; later ones sort later."""
    return NewTask(id=f"{next(_numbers):010d}", kind=kind, **fields)


async def kept(client: Any, prefix: str) -> list[str]:
    """Names of keys behind the prefix."""
    return sorted(key.decode().removeprefix(prefix) for key in await client.keys(prefix.replace("[", "\\[") + "*"))


async def consistent(client: Any, prefix: str) -> Counter[str]:
    """Hold all indexes against the records; how many records there are by state and kind."""
    records: dict[str, dict[str, str]] = {}
    for name in await kept(client, prefix):
        if name.startswith("t:"):
            found = await client.hgetall(prefix + name)
            records[name[2:]] = {field.decode(): value.decode() for field, value in found.items()}

    async def members(name: str, cut: int = 0) -> list[str]:
        return sorted(member.decode()[cut:] for member in await client.zrange(prefix + name, 0, -1))

    counted = Counter(record["s"] + record["k"] for record in records.values())
    said = {name.decode(): int(number) for name, number in (await client.hgetall(prefix + "n")).items()}
    assert {name: number for name, number in said.items() if number} == dict(counted)
    assert await members("all") == sorted(f"{int(record['m']):016d}{ident}" for ident, record in records.items())
    assert await members("over") == sorted(ident for ident, record in records.items() if record["s"] in "cfx")
    for letter in "rfx":
        listed = [f"{int(record['m']):016d}{ident}" for ident, record in records.items() if record["s"] == letter]
        assert await members(f"l:{letter}") == sorted(listed)
    waiting: list[str] = []
    for kind in {record["k"] for record in records.values()}:
        ready, later = await members(f"r:{kind}", 16), await members(f"w:{kind}")
        waiting += ready + later
        assert all(records[ident]["k"] == kind for ident in ready + later)
        assert all(records[ident]["s"] == "p" for ident in ready)
    assert sorted(waiting) == sorted(ident for ident, record in records.items() if record["s"] in "pr")
    keys = {value.decode() for value in (await client.hgetall(prefix + "keys")).values()}
    assert keys == {ident for ident, record in records.items() if "i" in record}
    return counted
