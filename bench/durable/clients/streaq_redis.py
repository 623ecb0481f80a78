"""streaq on Redis, as it is: results kept for five minutes, idle tasks taken over after 60 s, three attempts."""

from __future__ import annotations

from streaq import Worker

from bench.durable.child import CONCURRENCY, Seen, main

__all__: list[str] = []


class Streaq:
    async def open(self, store: str, role: str) -> None:
        self._seen = Seen()
        self._worker = Worker(redis_url=store, concurrency=CONCURRENCY)

        async def noop(at: float) -> None:
            self._seen.add(at)

        self._noop = self._worker.task(noop)
        if role == "producer":
            await self._worker.__aenter__()

    async def submit(self, at: float) -> None:
        await self._noop.enqueue(at)

    async def work(self, seen: Seen) -> None:
        self._seen = seen
        await self._worker.run_async()

    async def unfinished(self) -> int:
        return int(await self._worker.queue_size()) + self._worker.running()


if __name__ == "__main__":
    main(Streaq())
