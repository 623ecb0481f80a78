"""Procrastinate on PostgreSQL, as it is: jobs are kept, no retries, LISTEN/NOTIFY; a pool of up to 20 connections."""

from __future__ import annotations

from procrastinate import App, PsycopgConnector

from bench.durable.child import CONCURRENCY, Seen, main

__all__: list[str] = []

_LEFT = "SELECT count(*) AS n FROM procrastinate_jobs WHERE status IN ('todo', 'doing')"


class Procrastinate:
    async def open(self, store: str, role: str) -> None:
        self._seen = Seen()
        self._app = App(connector=PsycopgConnector(conninfo=store, min_size=4, max_size=20))

        async def noop(at: float) -> None:
            self._seen.add(at)

        self._noop = self._app.task(noop, name="noop")
        await self._app.open_async()
        if role == "producer":
            await self._app.schema_manager.apply_schema_async()

    async def submit(self, at: float) -> None:
        await self._noop.defer_async(at=at)

    async def work(self, seen: Seen) -> None:
        self._seen = seen
        await self._app.run_worker_async(concurrency=CONCURRENCY, install_signal_handlers=False)

    async def unfinished(self) -> int:
        row = await self._app.connector.execute_query_one_async(_LEFT)
        return int(row["n"])


if __name__ == "__main__":
    main(Procrastinate())
