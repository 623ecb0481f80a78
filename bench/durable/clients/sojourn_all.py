"""Sojourn on the journal that the address names, as it is: SQLite with synchronous=FULL."""

from __future__ import annotations

import asyncio

from bench.durable.child import CONCURRENCY, Seen, main
from sojourn import Tasks

__all__: list[str] = []


class Sojourn:
    async def open(self, store: str, role: str) -> None:
        self._seen = Seen()
        self._tasks = Tasks(store, concurrency=CONCURRENCY, work=role == "worker")

        async def noop(at: float) -> None:
            self._seen.add(at)

        self._noop = self._tasks.define(noop)
        if role == "producer":
            await self._tasks.begin()

    async def submit(self, at: float) -> None:
        await self._tasks.start(self._noop, at)

    async def work(self, seen: Seen) -> None:
        self._seen = seen
        async with self._tasks:
            await asyncio.Event().wait()

    async def unfinished(self) -> int:
        counts = await self._tasks.journal.counts()
        return sum(of.get("pending", 0) + of.get("running", 0) for of in counts.states.values())


if __name__ == "__main__":
    main(Sojourn())
