"""Durable tasks whose journal goes away: behind a network that swallows all, stopped, killed, or read-only."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from drills.shoppers import NUMBERS, Ledger, Shop, admin, kept, overlaps, runs_of, shop
from drills.stores import Store, store

#: Seconds that the journal is away.
SECONDS = float(os.environ.get("DRILL_SECONDS", "30"))
LEASE = 6.0
#: Seconds of each phase around it.
PHASE = 4.0
#: What the machine, which the load, the servers and the proxy share, may add to a figure.
SLACK = 0.25


# What happens

Fault = Callable[[Store, float], Awaitable[None]]


async def black_hole(store: Store, seconds: float) -> None:
    toxic = store.proxy.timeout()
    await asyncio.sleep(seconds)
    toxic.remove()
    store.proxy.cut()  # what was swallowed is lost: no connection of before is any good


async def stopped(store: Store, seconds: float) -> None:
    await asyncio.to_thread(store.server.stop)
    await asyncio.sleep(seconds)
    await asyncio.to_thread(store.server.start)


async def crashed(store: Store, seconds: float) -> None:
    """As at a failover: all sessions are cut, and it recovers."""
    await asyncio.to_thread(store.server.stop, signal.SIGQUIT)
    await asyncio.sleep(seconds)
    await asyncio.to_thread(store.server.start)


async def read_only(store: Store, seconds: float) -> None:
    """Another one is the primary, and nobody has told the clients."""
    port = str(store.server.port)
    await asyncio.to_thread(admin, "redis-cli", "-p", port, "replicaof", "127.0.0.1", "1")
    await asyncio.sleep(seconds)
    await asyncio.to_thread(admin, "redis-cli", "-p", port, "replicaof", "no", "one")


@pytest.mark.parametrize(
    ("engine", "fault"),
    [
        ("redis", black_hole),
        ("redis", stopped),
        ("redis", read_only),
        ("postgres", black_hole),
        ("postgres", stopped),
        ("postgres", crashed),
    ],
    ids=lambda each: each if isinstance(each, str) else each.__name__,
)
def test_nothing_acknowledged_is_lost_while_the_journal_is_away_and_nobody_else_feels_it(
    engine: str, fault: Fault, tmp_path: Path
) -> None:
    (runs := tmp_path / "runs").mkdir()

    async def main() -> None:
        async with (
            store(engine, tmp_path) as journal,
            shop(journal.url, runs, LEASE) as one,
            shop(journal.url, runs, LEASE) as two,
        ):
            await _drill(journal, (one, two), fault, runs)

    asyncio.run(main())


async def _drill(journal: Store, shops: tuple[Shop, Shop], fault: Fault, runs: Path) -> None:
    ledger, over = Ledger(), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for each in shops:
            for _ in range(3):
                group.create_task(ledger.plainly(each.client, over))
                group.create_task(ledger.order(each.client, over))
            group.create_task(ledger.orders(each.client, 20, seconds=LEASE * 3))
        began = time.monotonic()
        await asyncio.sleep(PHASE)
        left, before = time.monotonic(), len(ledger.accepted)
        group.create_task(_patience(shops[0], ledger))
        links = journal.proxy.accepted
        await fault(journal, SECONDS)
        back, during = time.monotonic(), len(ledger.accepted)
        tries = journal.proxy.accepted - links
        await asyncio.sleep(PHASE)
        over.set()
    ended = time.monotonic()
    tasks = await kept(journal.direct, ledger, 3 * LEASE + 15)
    settled = time.monotonic()
    notes = runs_of(runs)
    cut = [entry for entries in notes.values() for entry in entries if entry["what"] == "cut"]
    p99 = [ledger.p99(began, left), ledger.p99(left, back), ledger.p99(back, ended)]
    figures = {
        "accepted": (before, during - before, len(ledger.accepted) - during),
        "refused": {str(key): number for key, number in ledger.refused.items()},
        "p99": [round(1000 * each, 1) for each in p99],
        "longest wait": round(max(ledger.waited), 2),
        "tries": tries,
        "cut": len(cut),
        "last cut": round(max((entry["at"] for entry in cut), default=left) - left, 2),
        "crashes": sum(task.crashes for task in tasks),
        "all done after": round(settled - back, 2),
        "accepted again after": round(min(at for at in ledger.moments if at > back) - back, 2),
        "overlaps": len(overlaps(notes)),
    }
    print(json.dumps(figures))

    # Who needs no task does not feel it, and who needs one is told when to come again.
    assert p99[1] < p99[0] + SLACK
    assert set(ledger.refused) == {(503, "tasks_unavailable", True)}
    assert ledger.refused.total() > 20
    assert max(ledger.waited) < 2.0 + 1.0 or fault is black_hole
    # It comes back, and is used.
    assert len(ledger.accepted) > during + 50
    assert before > 50
    # Leases: whoever held one gave up before it was over, and nothing ran twice at the same time.
    assert len(cut) >= 30
    assert all(entry["at"] < left + LEASE * 2 / 3 + SLACK for entry in cut)
    assert not overlaps(notes)
    # Both nodes try, but nobody in a hurry.
    assert 2 <= tries < 2 * 20 * SECONDS
    for each in shops:
        assert each.served.stderr.count("can't be reached, serving goes on") >= 1
        assert "answers again after" in each.served.stderr


async def _patience(shop: Shop, ledger: Ledger) -> None:
    """One who waits until it is back, in one request."""
    number = next(NUMBERS)
    ledger.note(number, await shop.client.post(f"/patient/{number}"))
    assert number in ledger.accepted
