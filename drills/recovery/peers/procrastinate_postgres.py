"""Procrastinate, as it is."""

from __future__ import annotations

import asyncio

from procrastinate import App, PsycopgConnector

from drills.recovery.work import STORE, work

app = App(connector=PsycopgConnector(conninfo=STORE), import_paths=["drills.recovery.peers.procrastinate_postgres"])


@app.task(name="task")
async def task() -> None:
    await work()


async def submit() -> None:
    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        await task.defer_async()


if __name__ == "__main__":
    asyncio.run(submit())
