"""Periodic tasks with a real journal and several nodes: one run for each slot, and never two at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from sojourn.clock import SystemClock
from sojourn.tasks.current import current_task
from sojourn.tasks.journal import Query
from sojourn.tasks.periodic import OWNER
from sojourn.tasks.record import Task
from sojourn.tasks.spec import Spec
from sojourn.tasks.tasks import Tasks


class Runs:
    """What two nodes do of a periodic task, and how many did it at once."""

    def __init__(self, path: Path, takes: float = 0.0, **options: Any) -> None:
        self.begun: list[str] = []
        self.first = asyncio.Event()
        self.now = self.most = 0
        self._takes = takes
        self.nodes = [Tasks(str(path / "tasks.db"), lease=3.0) for _ in range(2)]
        for node in self.nodes:
            node.define(name="tick", **options)(self.tick)

    async def tick(self) -> None:
        self.begun.append(current_task().id)
        self.first.set()
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await asyncio.sleep(self._takes)
        finally:
            self.now -= 1

    async def watched(self, seconds: float) -> list[Task]:
        """Let them work for a while; returns what is written down, oldest first."""
        async with self.nodes[0], self.nodes[1]:
            await asyncio.sleep(seconds)
            return list(reversed(await self.nodes[0].journal.list(Query(owner=OWNER, limit=1000))))


def run(main: Callable[[], Any]) -> Any:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main())


def slots(tasks: list[Task]) -> list[float]:
    return [msgspec.json.decode(task.spec, type=Spec).slot or 0.0 for task in tasks]


def test_each_slot_is_run_once_by_all_nodes_together(tmp_path: Path) -> None:
    runs = Runs(tmp_path, every=0.2)
    tasks: list[Task] = run(lambda: runs.watched(0.95))
    done = [task for task in tasks if task.state == "completed"]
    found = slots(done)
    assert len(found) >= 3
    assert len(set(runs.begun)) == len(runs.begun)
    assert {task.id for task in done} <= set(runs.begun)
    assert all(after > before for before, after in pairwise(found))
    assert all(abs(slot / 0.2 - round(slot / 0.2)) < 1e-5 for slot in found)
    assert all(task.begun >= slot for task, slot in zip(done, found, strict=True))
    assert len(tasks) - len(done) == 1  # the next one


def test_a_run_that_takes_long_leaves_slots_out_and_none_begins_beside_it(tmp_path: Path) -> None:
    runs = Runs(tmp_path, takes=0.35, every=0.1)
    tasks: list[Task] = run(lambda: runs.watched(1.1))
    assert runs.most == 1, [(task.id, task.state, task.begun, task.ended, task.epoch) for task in tasks]
    assert 2 <= len(runs.begun) <= 4
    gaps = [after - before for before, after in pairwise(slots(tasks))]
    assert min(gaps) > 0.35


def test_two_chains_become_one_and_nothing_runs_beside_another(tmp_path: Path) -> None:
    runs = Runs(tmp_path, takes=0.8, every=0.4)

    async def main() -> list[Task]:
        watching = asyncio.ensure_future(runs.watched(4.0))
        await runs.first.wait()
        one = runs.nodes[0]
        plan = one._periodic._plans["tick"]
        # As a node does that has looked before the other one's slot was written down.
        await one.journal.submit([plan.at(plan.schedule.next(SystemClock.wall()))])
        return await watching

    tasks: list[Task] = run(main)
    assert runs.most == 1
    assert len(runs.begun) >= 3
    (left_out,) = [task for task in tasks if task.state == "cancelled"]
    assert left_out.begun > 0
    assert left_out.id not in runs.begun
    assert [task.state for task in tasks].count("completed") >= len(set(runs.begun)) - 1


def test_the_record_of_a_failed_slot_has_a_successor(tmp_path: Path) -> None:
    runs = Runs(tmp_path, every=0.1, retries=0, deadline=0.05, takes=5.0)
    tasks: list[Task] = run(lambda: runs.watched(0.6))
    assert {task.state for task in tasks[:-1]} == {"failed"}
    assert len(tasks) >= 3


def test_nodes_that_come_back_make_up_for_what_was_missed_once(tmp_path: Path) -> None:
    runs = Runs(tmp_path, every=0.2)
    journal, back = runs.nodes[0].journal, SystemClock().wall()

    async def main() -> list[Task]:
        await journal.open("gone")
        await runs.nodes[0]._periodic.look(journal, back - 1.0)  # as somebody did a second ago, who is gone since
        async with asyncio.timeout(10), runs.nodes[1]:
            await runs.first.wait()
            found = list(reversed(await journal.list(Query(owner=OWNER))))
        await journal.aclose()
        return found

    tasks: list[Task] = run(main)
    missed = [slot for slot in slots(tasks) if slot < back]
    assert len(missed) == 1
    assert missed[0] <= back - 0.8
