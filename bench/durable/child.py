"""What a producer and a worker do, the same for every peer: commands on standard input, JSON on standard output.

It runs in the peers' environments: standard library only, uvloop where it is.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from typing import Any, Protocol

__all__ = ["CONCURRENCY", "Client", "Seen", "main"]

#: Tasks that a worker runs at once.
CONCURRENCY = 10
LOOK = 0.005


class Seen:
    """What a worker's tasks have seen: how many began, and how late those with a moment were."""

    def __init__(self) -> None:
        self.count = 0
        self.late: list[float] = []

    def add(self, at: float) -> None:
        """A task begins that was submitted at a moment of the machine's monotonic clock; 0.0 for one of a crowd."""
        self.count += 1
        if at:
            self.late.append(time.monotonic() - at)


class Client(Protocol):
    """One task queue."""

    async def open(self, store: str, role: str) -> None:
        """Connect to an address, or to a file, to be ``producer`` or ``worker``; make tables."""

    async def submit(self, at: float) -> None:
        """Write one task down."""

    async def work(self, seen: Seen) -> None:
        """Run tasks, ten at once, until it is cancelled."""

    async def unfinished(self) -> int:
        """How many tasks there are that have not ended."""


def _say(**what: Any) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


async def _measured(work: Any) -> None:
    """Run a piece of work, and say what it took."""
    cpu, start = time.process_time(), time.monotonic()
    await work
    _say(wall=time.monotonic() - start, cpu=time.process_time() - cpu)


async def _in_turn(client: Client, count: int) -> None:
    for _ in range(count):
        await client.submit(0.0)


async def _together(client: Client, count: int, callers: int) -> None:
    await asyncio.gather(*(_in_turn(client, count // callers) for _ in range(callers)))


async def _paced(client: Client, rate: float, count: int) -> None:
    start = time.monotonic()
    for number in range(count):
        await asyncio.sleep(max(0.0, start + number / rate - time.monotonic()))
        await client.submit(time.monotonic())


async def _produce(client: Client) -> None:
    """Commands: ``turn COUNT``, ``together COUNT CALLERS``, ``paced RATE COUNT``; an empty line ends it."""
    await _in_turn(client, 20)  # connections and scripts are there
    _say(ready=20)
    while words := (await asyncio.to_thread(sys.stdin.readline)).split():
        match words:
            case ["turn", count]:
                await _measured(_in_turn(client, int(count)))
            case ["together", count, callers]:
                await _measured(_together(client, int(count), int(callers)))
            case ["paced", rate, count]:
                await _measured(_paced(client, float(rate), int(count)))


async def _all_done(client: Client, seen: Seen, count: int) -> None:
    while seen.count < count:  # noqa: ASYNC110 - tasks of Huey count in threads
        await asyncio.sleep(LOOK)
    while await client.unfinished():  # noqa: ASYNC110 - the store is asked
        await asyncio.sleep(LOOK)


async def _worker(client: Client) -> None:
    """Commands: ``work COUNT`` begins and says when so many are done; ``late`` says how late the later ones began."""
    seen = Seen()
    working: asyncio.Future[None] | None = None
    _say(ready=0)
    while words := (await asyncio.to_thread(sys.stdin.readline)).split():
        match words:
            case ["work", count]:
                cpu, start = time.process_time(), time.monotonic()
                working = asyncio.ensure_future(client.work(seen))
                done = asyncio.ensure_future(_all_done(client, seen, int(count)))
                await asyncio.wait((working, done), return_when=asyncio.FIRST_COMPLETED)
                if working.done():
                    await working
                _say(wall=time.monotonic() - start, cpu=time.process_time() - cpu)
            case ["late", count]:
                until = time.monotonic() + 15
                while len(seen.late) < int(count) and time.monotonic() < until:  # noqa: ASYNC110 - as above
                    await asyncio.sleep(LOOK)
                _say(late=seen.late)
                seen.late = []


async def _run(client: Client, role: str, store: str) -> None:
    await client.open(store, role)
    await (_produce(client) if role == "producer" else _worker(client))


def main(client: Client) -> None:
    """``python -m bench.durable.clients.NAME producer|worker STORE``. The process ends when standard input does."""
    logging.disable(logging.WARNING)
    try:
        import uvloop
    except ImportError:
        asyncio.run(_run(client, *sys.argv[1:3]))
    else:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_run(client, *sys.argv[1:3]))
