"""What outgoing guards cost where all is well: ``python -m bench.guards``, about ten seconds.

Each figure is the best of some rounds, in processor time, because what disturbs one only ever adds to it.
``asyncio.Semaphore`` stands beside the bulkhead, an empty ``async with`` and a bare ``await`` are what cannot be saved.
Ends with 1 when a gate is missed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import uvloop

from sojourn.bus import Bus
from sojourn.guards.breaker import CircuitBreaker
from sojourn.guards.bulkhead import Bulkhead
from sojourn.guards.registry import GUARDS, Guards
from sojourn.guards.retry import Retry
from sojourn.guards.workers import Workers

CALLS: Final = 50_000
ROUNDS: Final = 9
#: Microseconds that may not be exceeded.
GATES: Final = {"breaker, async with": 1.5, "bulkhead, async with": 1.0}


class Empty:
    """An ``async with`` that does nothing."""

    async def __aenter__(self) -> Empty:
        return self

    async def __aexit__(self, *error: object) -> None:
        pass


async def nothing() -> None:
    """What is called."""


def entered(guard: Any) -> Callable[[], Awaitable[float]]:
    """Microseconds of an ``async with``."""

    async def measure() -> float:
        began = time.thread_time()
        for _ in range(CALLS):
            async with guard:
                pass
        return (time.thread_time() - began) / CALLS * 1e6

    return measure


def called(call: Callable[..., Awaitable[None]], *arguments: Any) -> Callable[[], Awaitable[float]]:
    """Microseconds of a call."""

    async def measure() -> float:
        began = time.thread_time()
        for _ in range(CALLS):
            await call(*arguments)
        return (time.thread_time() - began) / CALLS * 1e6

    return measure


def handed_over(guard: Any, crowd: int = 100) -> Callable[[], Awaitable[float]]:
    """Microseconds of a call that waits in line for the one place, a turn of the loop included."""

    async def one() -> None:
        for _ in range(CALLS // 10 // crowd):
            async with guard:
                await asyncio.sleep(0)

    async def measure() -> float:
        began = time.thread_time()
        await asyncio.gather(*(one() for _ in range(crowd)))
        return (time.thread_time() - began) / (CALLS // 10) * 1e6

    return measure


async def main() -> int:
    """Measure, print, judge."""
    GUARDS.set(Guards(Bus()))
    breaker, workers, retry = CircuitBreaker("bench"), Workers(), Retry("bench", on=ConnectionError)
    figures = {
        "await": called(nothing),
        "async with, empty": entered(Empty()),
        "breaker, async with": entered(breaker),
        "breaker, call": called(breaker.call, nothing),
        "bulkhead, async with": entered(Bulkhead("bench", 10)),
        "asyncio.Semaphore": entered(asyncio.Semaphore(10)),
        "retry, call": called(retry.call, nothing),
        "workers, submit": called(workers.submit, nothing),
        "bulkhead, in line": handed_over(Bulkhead("bench", 1, queue=1000, wait=60.0)),
        "asyncio.Semaphore, in line": handed_over(asyncio.Semaphore(1)),
    }
    missed = 0
    for name, measure in figures.items():
        found = min([await measure() for _ in range(ROUNDS)])
        gate = GATES.get(name)
        missed += gate is not None and found > gate
        print(f"{name:28} {found:6.2f} us" + (f"   gate {gate} us" if gate is not None else ""))
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(uvloop.run(main()))
