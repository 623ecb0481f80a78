"""Durable tasks while clocks jump by an hour: those of the nodes, and that of the journal's own machine."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import struct
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from drills.shoppers import Ledger, Shop, kept, overlaps, runs_of, shop
from tests.databases import PostgresServer, RedisServer

HOUR = 3600
LEASE = 2.0
#: Seconds between two jumps: several beats.
PHASE = 3.0
SOURCE = Path(__file__).with_name("jump.c")


def library(folder: Path) -> Path:
    """What gives processes another wall clock. libfaketime can't: with it Redis, whose allocator asks for the time,
    waits for itself at its start."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler (Debian: gcc)")
    made = folder / "jump.so"
    if not made.exists():
        subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", str(made), str(SOURCE)], check=True, timeout=60)
    return made


class FakeClock:
    """The wall clock of processes, which can be set while they run. Their monotonic clock stays what it is.

    Args:
        folder: Where it is kept; not only for this user.
        name: Of the clock.
    """

    def __init__(self, folder: Path, name: str = "clock") -> None:
        self._path = folder / name
        self.jump(0)
        self.variables = {"LD_PRELOAD": str(library(folder)), "JUMP_BY": str(self._path)}

    def jump(self, seconds: int) -> None:
        """Set it so many seconds from the true time."""
        with self._path.open("r+b" if self._path.exists() else "wb", buffering=0) as file:
            file.write(struct.pack("d", seconds))
        self._path.chmod(0o644)

    @contextmanager
    def around(self) -> Iterator[None]:
        """Processes that are started meanwhile have it."""
        before = dict(os.environ)
        os.environ.update(self.variables)
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)


@asynccontextmanager
async def _store(engine: str, folder: Path, clock: FakeClock | None = None) -> AsyncIterator[str]:
    """The URL of a journal whose server has this clock."""
    if engine == "sqlite":
        yield str(folder / "tasks.db")
        return
    server: Any = RedisServer() if engine == "redis" else PostgresServer()
    try:
        if clock is None:
            await asyncio.to_thread(server.start)
        else:
            with clock.around():
                await asyncio.to_thread(server.start)
        scheme, name = ("redis://", "0") if engine == "redis" else ("postgresql://postgres@", "postgres")
        yield f"{scheme}127.0.0.1:{server.port}/{name}"
    finally:
        await asyncio.to_thread(server.stop if engine == "redis" else server.remove)


@pytest.mark.parametrize("engine", ["sqlite", "redis", "postgres"])
def test_nodes_whose_clocks_jump_by_an_hour_lose_no_lease_and_run_nothing_twice(engine: str, tmp_path: Path) -> None:
    (runs := tmp_path / "runs").mkdir()

    async def main() -> None:
        clocks = [FakeClock(tmp_path, f"clock-{number}") for number in range(2)]
        async with _store(engine, tmp_path) as url, AsyncExitStack() as stack:
            shops = [await stack.enter_async_context(shop(url, runs, LEASE, **clock.variables)) for clock in clocks]
            ledger, over = Ledger(), asyncio.Event()
            async with asyncio.TaskGroup() as group:
                for each in shops:
                    # These run through all of it.
                    group.create_task(ledger.orders(each.client, 10, seconds=5 * PHASE))
                    group.create_task(ledger.order(each.client, over))
                for forth, back in ((HOUR, -HOUR), (-HOUR, HOUR), (0, 0), (HOUR, 0)):
                    # One host has one clock; several need not agree.
                    offsets = (forth, forth) if engine == "sqlite" else (forth, back)
                    for clock, each, seconds in zip(clocks, shops, offsets, strict=True):
                        clock.jump(seconds)
                        await _is_off(each, seconds)
                    await asyncio.sleep(PHASE)
                over.set()
            tasks = await kept(url, ledger, 6 * PHASE)
            print(json.dumps({"engine": engine, "tasks": len(tasks), "refused": ledger.refused.total()}))
            assert len(tasks) > 100
            assert not ledger.refused
            assert sum(task.interruptions for task in tasks) == 0
            notes = runs_of(runs)
            assert all([entry["what"] for entry in entries] == ["begun", "done"] for entries in notes.values())
            assert {task.epoch for task in tasks} == {1}

    asyncio.run(main())


async def _is_off(shop: Shop, seconds: int) -> None:
    """Its clock is where it was set, and its monotonic clock goes on."""
    told = (await shop.client.get("/clock")).json()
    assert abs(told["wall"] - time.time() - seconds) < 2.0
    assert abs(told["monotonic"] - time.clock_gettime(time.CLOCK_MONOTONIC)) < 2.0


@pytest.mark.parametrize("engine", ["redis", "postgres"])
def test_a_journal_whose_own_clock_jumps_by_an_hour_records_each_end_once(engine: str, tmp_path: Path) -> None:
    (runs := tmp_path / "runs").mkdir()
    folder = Path(tempfile.mkdtemp(prefix="clock-"))  # PostgreSQL is another user
    folder.chmod(0o755)

    async def main() -> None:
        clock = FakeClock(folder)
        async with (
            _store(engine, tmp_path, clock) as url,
            shop(url, runs, LEASE, DRILL_CONCURRENCY="12") as one,
            shop(url, runs, LEASE, DRILL_CONCURRENCY="12") as two,
        ):
            ledger, over = Ledger(), asyncio.Event()
            async with asyncio.TaskGroup() as group:
                for each in (one, two):
                    group.create_task(ledger.orders(each.client, 10, seconds=2 * PHASE))
                    for _ in range(3):  # more than there is room for: both claim all the time
                        group.create_task(ledger.order(each.client, over, seconds=0.4))
                # When it is set back, what waits is due later than it was, until it is right again.
                for offset in (0, -HOUR, 0, HOUR):
                    clock.jump(offset)
                    await asyncio.sleep(PHASE)
                over.set()
            tasks = await kept(url, ledger, 10 * PHASE)
            notes = runs_of(runs)
            crashes = sum(task.crashes for task in tasks)
            figures = {
                "engine": engine,
                "tasks": len(tasks),
                "refused": ledger.refused.total(),
                "leases that ran out": crashes,
                "at the same time": len(overlaps(notes)),
            }
            print(json.dumps(figures))
            assert len(tasks) > 100
            assert not ledger.refused
            assert max(task.created for task in tasks) - min(task.created for task in tasks) > 1.9 * HOUR
            # All leases were over at once: what ran was begun elsewhere, and its end is that of the last epoch.
            assert crashes >= 1
            assert all(task.epoch == 1 + task.interruptions for task in tasks)

    try:
        asyncio.run(main())
    finally:
        shutil.rmtree(folder, ignore_errors=True)
