"""SAQ on Redis, as it is: results kept for ten minutes, no heartbeat, one attempt."""

from __future__ import annotations

from typing import Any

from saq import Queue, Worker

from bench.durable.child import CONCURRENCY, Seen, main

__all__: list[str] = []


class Saq:
    async def open(self, store: str, role: str) -> None:
        self._queue = Queue.from_url(store)
        await self._queue.connect()

    async def submit(self, at: float) -> None:
        await self._queue.enqueue("noop", at=at)

    async def work(self, seen: Seen) -> None:
        async def noop(ctx: dict[str, Any], *, at: float) -> None:
            seen.add(at)

        await Worker(self._queue, functions=[("noop", noop)], concurrency=CONCURRENCY).start()

    async def unfinished(self) -> int:
        return int(await self._queue.count("incomplete"))


if __name__ == "__main__":
    main(Saq())
