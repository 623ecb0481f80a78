"""Durable tasks in a file on a disk that is full."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from drills.shoppers import Ledger, kept, overlaps, runs_of, shop

MIB = 1 << 20
#: Seconds that it is full: longer than a lease.
FULL = 8.0
LEASE = 3.0


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Path]:
    """A file system of so many bytes."""
    if os.geteuid():
        pytest.skip("only root can mount a file system")
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path) -> Path:
    """Leave no byte."""
    ballast = disk / "ballast"
    with ballast.open("ab", buffering=0) as file:
        for size in (MIB, 4096, 1):
            while True:
                try:
                    file.write(b"\0" * size)
                except OSError:
                    break
    return ballast


def test_a_full_disk_refuses_orders_loses_none_and_is_forgotten_when_there_is_space(tmp_path: Path) -> None:
    (runs := tmp_path / "runs").mkdir()

    async def main(disk: Path) -> None:
        url = str(disk / "tasks.db")
        async with shop(url, runs, LEASE) as one, shop(url, runs, LEASE) as two:
            ledger, over = Ledger(), asyncio.Event()
            async with asyncio.TaskGroup() as group:
                for each in (one, two):
                    group.create_task(ledger.plainly(each.client, over))
                    for _ in range(3):
                        group.create_task(ledger.order(each.client, over))
                    group.create_task(ledger.orders(each.client, 5, seconds=FULL / 2))
                began = time.monotonic()
                await asyncio.sleep(3.0)
                left, before = time.monotonic(), len(ledger.accepted)
                ballast = await asyncio.to_thread(fill, disk)
                await asyncio.sleep(FULL)
                during = len(ledger.accepted)
                refused = await one.client.post("/orders/0")
                await asyncio.to_thread(ballast.unlink)
                back = time.monotonic()
                await asyncio.sleep(4.0)
                over.set()
            tasks = await kept(url, ledger, 15.0)
            p99 = [ledger.p99(began, left), ledger.p99(left, back), ledger.p99(back, time.monotonic())]
            figures = {
                "accepted": (before, during - before, len(ledger.accepted) - during),
                "refused": {str(key): number for key, number in ledger.refused.items()},
                "p99": [round(1000 * each, 1) for each in p99],
                "crashes": sum(task.crashes for task in tasks),
                "accepted again after": round(min(at for at in ledger.moments if at > back) - back, 2),
                "at the same time": len(overlaps(runs_of(runs))),
                "detail": refused.text,
            }
            print(json.dumps(figures))
            assert refused.status_code == 503
            assert refused.json()["detail"] == "the journal of durable tasks can't be used"
            assert int(refused.headers["retry-after"]) >= 1
            assert set(ledger.refused) == {(503, "tasks_unavailable", True)}
            assert "no space left" in one.served.stderr
            assert len(ledger.accepted) - during > 50
            assert p99[1] < p99[0] + 0.25
            assert not overlaps(runs_of(runs))

    with small_disk(tmp_path / "disk", 64 * MIB) as disk:
        asyncio.run(main(disk))
