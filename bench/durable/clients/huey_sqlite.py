"""Huey on SQLite: a task is removed when it is taken, so it is lost with its worker.

Its default is synchronous=FULL, as SQLite comes: the same as ``fsync=True``.
"""

from __future__ import annotations

import asyncio
import os

from huey import SqliteHuey

from bench.durable.child import CONCURRENCY, Seen, main

__all__: list[str] = []

#: ``on``, ``off`` or nothing: Huey's ``fsync``.
FSYNC = {"on": True, "off": False}.get(os.environ.get("BENCH_FSYNC", ""))
#: Submit in a thread, as who has an event loop to keep going must: Huey waits for the disk in the caller.
THREAD = bool(os.environ.get("BENCH_THREAD"))


class Huey:
    async def open(self, store: str, role: str) -> None:
        self._seen = Seen()
        self._huey = SqliteHuey(filename=store, fsync=FSYNC)
        self._noop = self._huey.task(name="noop")(self._run)

    def _run(self, at: float) -> None:
        self._seen.add(at)

    async def submit(self, at: float) -> None:
        if THREAD:
            await asyncio.to_thread(self._noop, at)
        else:
            self._noop(at)

    async def work(self, seen: Seen) -> None:
        self._seen = seen
        consumer = self._huey.create_consumer(workers=CONCURRENCY, periodic=False)
        consumer.start()
        await asyncio.Event().wait()

    async def unfinished(self) -> int:
        return int(self._huey.pending_count())


if __name__ == "__main__":
    main(Huey())
