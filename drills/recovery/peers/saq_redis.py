"""SAQ on Redis: as it is, or with retries and a heartbeat that the job has to send."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from saq import Queue

from drills.recovery.work import STORE, WHO, work

queue = Queue.from_url(STORE)
TUNED = bool(os.environ.get("RECOVERY_TUNED"))


async def _beat(job: Any) -> None:
    while True:
        await job.update()
        await asyncio.sleep(1)


async def task(ctx: dict[str, Any]) -> None:
    beating = asyncio.create_task(_beat(ctx["job"])) if TUNED else None
    try:
        await work()
    finally:
        if beating:
            beating.cancel()


settings = {"queue": queue, "functions": [task], "timers": {"sweep": 1}}


async def submit() -> None:
    await queue.connect()
    await queue.enqueue("task", **({"heartbeat": 4, "retries": 3} if TUNED else {}))


if __name__ == "__main__" and not WHO:
    asyncio.run(submit())
