"""A shop that keeps its orders as durable tasks; each run notes its beginning and its end in a file of its process."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.responses import JSONResponse

import sojourn

__all__ = ["TASKS", "app"]

TASKS = sojourn.Tasks(
    os.environ["DRILL_JOURNAL"],
    name="orders",
    lease=float(os.environ.get("DRILL_LEASE", "6")),
    concurrency=int(os.environ.get("DRILL_CONCURRENCY", "50")),
    work=os.environ.get("DRILL_WORK", "1") == "1",
    handover=2.0,
)
#: Where runs are noted: by appending, so that a process that is killed has noted all that it did.
NOTES = os.open(
    os.path.join(os.environ["DRILL_RUNS"], f"{os.getpid()}.jsonl"), os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600
)


def note(what: str, number: int) -> None:
    """Write down what a run does. The monotonic clock is that of all processes of the machine."""
    entry = {"what": what, "number": number, "pid": os.getpid(), "at": time.clock_gettime(time.CLOCK_MONOTONIC)}
    os.write(NOTES, json.dumps(entry).encode() + b"\n")


@TASKS.define(deadline=120, retries=2)
async def order(number: int, seconds: float) -> dict[str, int]:
    """Take so long."""
    note("begun", number)
    how = "cut"
    try:
        await asyncio.sleep(seconds)
        how = "done"
    finally:
        note(how, number)
    return {"number": number, "pid": os.getpid()}


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    async with TASKS:
        yield


app = FastAPI(lifespan=lifespan)
app.mount("/_tasks", TASKS.app())


@app.post("/orders/{number}")
async def accept(number: int, seconds: float = 0.05) -> Any:
    started = await TASKS.start(order, number, seconds, key=str(number))
    return started.response(JSONResponse)


@app.post("/hurried/{number}")
async def hurried(number: int) -> Any:
    """A handler that has less time than the budget of tasks."""
    async with sojourn.deadline(0.5, "hurried"):
        started = await TASKS.start(order, number, 0.05, key=str(number))
    return started.response(JSONResponse)


@app.post("/patient/{number}")
async def patient(number: int) -> Any:
    """A handler that asks again and again: the same key is the same task."""
    async with sojourn.deadline(90, "patient"):
        while True:
            try:
                started = await TASKS.start(order, number, 0.05, key=str(number))
            except sojourn.JournalUnavailable as error:
                await asyncio.sleep(min(0.3, error.retry_after or 0.3))
            else:
                return started.response(JSONResponse)


@app.get("/plain")
async def plain() -> dict[str, str]:
    return {"plain": "yes"}


@app.get("/clock")
async def clock() -> dict[str, float]:
    return {"wall": time.time(), "monotonic": time.monotonic()}


@app.get("/waiting")
async def waiting() -> dict[str, Any]:
    """What waits for the journal, and what this process has by name; requests are counted, not named."""
    node = TASKS._node
    assert node is not None
    names = [task.get_name() for task in asyncio.all_tasks()]
    own = sorted(name for name in names if name.startswith("tasks "))
    return {
        "submits": len(node._submits._queue),
        "held": len(node.runs),
        "names": own,
        "requests": names.count("request") - 1,  # without this one
        "threads": threading.active_count(),
    }
