"""DBOS on SQLite, or on PostgreSQL. The workflow begins in the first process; the second has its executor id or not."""

from __future__ import annotations

import asyncio
import os
import signal

from dbos import DBOS, DBOSConfig

from drills.recovery.work import STORE, WHO, work

CONFIG: DBOSConfig = {
    "name": "recovery",
    "system_database_url": STORE if "://" in STORE else f"sqlite:///{STORE}",
    "executor_id": WHO if os.environ.get("RECOVERY_APART") else "same",
    "application_version": "1",
    "log_level": "ERROR",
}


@DBOS.step()
async def long() -> None:
    await work()


@DBOS.workflow()
async def task() -> None:
    await long()


async def main() -> None:
    DBOS(config=CONFIG)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    DBOS.launch()
    if WHO == "A":
        await DBOS.start_workflow_async(task)
    await stop.wait()
    await asyncio.to_thread(DBOS.destroy)


if __name__ == "__main__" and WHO:
    asyncio.run(main())
