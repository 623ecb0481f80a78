"""2,000 deadlines of 100 ms at once, over and over, beside work that fills the processor to four fifths.

``python -m bench.apps.overshoot sojourn uvloop`` prints one line of JSON: how late who waited got to know it.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from collections.abc import Awaitable, Callable

import anyio
import uvloop

from sojourn.scopes.deadline import deadline

COUNT = 2_000
LENGTH = 0.1
SECONDS = 3.0
BUSY = 0.8
#: Seconds of one piece of other work, such as a request.
PIECE = 0.001


async def _asyncio() -> None:
    async with asyncio.timeout(LENGTH):
        await asyncio.get_running_loop().create_future()


async def _anyio() -> None:
    with anyio.fail_after(LENGTH):
        await asyncio.get_running_loop().create_future()


async def _sojourn() -> None:
    async with deadline(LENGTH):
        await asyncio.get_running_loop().create_future()


KINDS: dict[str, Callable[[], Awaitable[None]]] = {"asyncio": _asyncio, "anyio": _anyio, "sojourn": _sojourn}


def _used() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


async def _work(until: float) -> None:
    """Fill the processor: pieces of work, and pauses that are made to fit what everything takes together."""
    pause = 0.002
    used, seen = _used(), time.monotonic()
    while time.monotonic() < until:
        began = time.monotonic()
        while time.monotonic() - began < PIECE:
            pass
        await asyncio.sleep(pause)
        if (now := time.monotonic()) - seen > 0.05:
            share = (_used() - used) / (now - seen)
            pause = min(0.05, max(0.0, pause * (1.0 + (share - BUSY)) + (share - BUSY) * 0.001))
            used, seen = _used(), now


async def _wait(kind: str, late: list[float], until: float, after: float) -> None:
    await asyncio.sleep(after)
    wait = KINDS[kind]
    warm = until - SECONDS
    while (began := time.monotonic()) < until:
        try:
            await wait()
        except TimeoutError:
            if began > warm:
                late.append(time.monotonic() - began - LENGTH)


async def main(kind: str) -> None:
    """One measurement."""
    until = time.monotonic() + 1.0 + SECONDS
    late: list[float] = []
    waits = [asyncio.create_task(_wait(kind, late, until, LENGTH * number / COUNT)) for number in range(COUNT)]
    work = asyncio.create_task(_work(until))
    await asyncio.sleep(1.0)
    used, began = _used(), time.monotonic()
    await work
    busy = (_used() - used) / (time.monotonic() - began)
    await asyncio.gather(*waits)
    late.sort()
    found = {f"p{share}_ms": late[len(late) * share // 100] * 1000 for share in (50, 99)}
    print(json.dumps({**found, "max_ms": late[-1] * 1000, "busy": busy, "count": len(late)}))


if __name__ == "__main__":
    factory = uvloop.new_event_loop if sys.argv[2] == "uvloop" else asyncio.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main(sys.argv[1]))
