"""Nodes of durable tasks are killed, frozen and told to go, and so is their engine: none is lost, each ends once."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest

from drills.served import now, until
from drills.tasks_fleet import Engine, Entry, Fleet, Node, balanced, engine_of, everything
from drills.tasks_node import begin, service
from sojourn.errors import JournalUnavailable
from sojourn.tasks.tasks import Tasks

#: Tasks of the long drill, and what its faults are drawn from.
TASKS = int(os.environ.get("DRILL_TASKS", "10000"))
SEED = int(os.environ.get("DRILL_SEED", "7"))
#: So many of them are started by a task, one after the other; and their kinds.
EACH = 50
LONG = ("hold", "flaky", "spread")
#: Seconds in which another node has what a node left that was killed: its lease, and one beat of who looks; of a file,
#: whose lock tells, less.
LEASE = 2.0
FOUND = LEASE + LEASE / 3
FOUND_BY_LOCK = 1.5
#: What two processors that are shared may add to a moment that is measured.
SLACK = 0.25


@pytest.fixture(scope="module", params=["sqlite", "postgres", "redis"])
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with engine_of(request.param, tmp_path_factory.mktemp(request.param)) as running:
        yield running


@asynccontextmanager
async def drill(engine: Engine, folder: Path, lease: float = LEASE, **env: Any) -> AsyncIterator[tuple[Fleet, Tasks]]:
    """A new store, nodes to start on it, and a service that only starts and watches."""
    url = await engine.store()
    fleet = Fleet(folder, url, lease, **env)
    try:
        async with service(url, work=False) as tasks:
            yield fleet, tasks
    finally:
        await fleet.close()


def test_what_a_killed_node_ran_is_run_by_another_within_the_lease_and_one_beat(engine: Engine, tmp_path: Path) -> None:
    async def main() -> None:
        async with drill(engine, tmp_path) as (fleet, tasks):
            first = await fleet.start()
            ids = [(await tasks.start("hold", 6.0)).id for _ in range(5)]
            for each in ids:
                await fleet.noted("begun", each, first.pid)
            second = await fleet.start()
            await asyncio.sleep(0.5)  # it has been renewed meanwhile, or not
            killed = now()
            first.send(signal.SIGKILL)
            again = [(await fleet.noted("begun", each, second.pid)).at - killed for each in ids]
            print(f"{engine.name}: after kill -9 again within {max(again):.2f} s, lease {LEASE:g} s")
            assert max(again) < (FOUND_BY_LOCK if engine.name == "sqlite" else FOUND) + SLACK
            for each in ids:
                assert (await tasks.result(each, 20))["pid"] == second.pid
                task = await tasks.get(each)
                assert (task.epoch, task.interruptions, task.crashes, task.failures) == (2, 1, 1, 0)
            _, ends = await balanced(tasks.journal)
            assert ends == {"completed": 5, "crash": 5}

    asyncio.run(main())


def test_what_a_node_has_not_done_when_it_stops_goes_on_elsewhere_within_a_second(
    engine: Engine, tmp_path: Path
) -> None:
    async def main() -> None:
        async with drill(engine, tmp_path, lease=30.0) as (fleet, tasks):
            first = await fleet.start(drain_requests="0.5", drain_persist="3")
            (short, *long) = [(await tasks.start("hold", seconds)).id for seconds in (5.0, 7.0, 7.0, 7.0)]
            for each in (short, *long):
                await fleet.noted("begun", each, first.pid)
            second = await fleet.start()
            await until(lambda: now() > fleet.diary("begun", short)[0].at + 4.7, 8, "the short one ends soon")
            first.send(signal.SIGTERM)
            assert await first.ended() == 0, first.served.stderr[-3000:]
            took = []
            for each in long:
                cut = await fleet.noted("cut", each, first.pid)
                took.append((await fleet.noted("begun", each, second.pid)).at - cut.at)
            print(f"{engine.name}: after SIGTERM again within {max(took):.2f} s of being cancelled")
            assert max(took) < 1.0
            assert first.counted() == {"finished": 1, "handed_over": 3, "lost": 0}
            assert (await tasks.result(short, 20))["pid"] == first.pid
            for each in long:
                result = await tasks.result(each, 20)
                assert result["pid"] == second.pid
                assert result["checkpoint"] > 4.5  # it went on from there
                task = await tasks.get(each)
                assert (task.epoch, task.interruptions, task.crashes, task.failures) == (2, 1, 0, 0)
            _, ends = await balanced(tasks.journal)
            assert ends == {"completed": 4, "handover": 3}

    asyncio.run(main())


def test_a_node_that_was_frozen_beyond_its_leases_ends_nothing_twice(engine: Engine, tmp_path: Path) -> None:
    async def main() -> None:
        async with drill(engine, tmp_path) as (fleet, tasks):
            first = await fleet.start()
            # The end of the short one comes while its node is frozen: when that goes on, it ends at once.
            short, long = [(await tasks.start("hold", seconds)).id for seconds in (5.0, 9.0)]
            for each in (short, long):
                await fleet.noted("begun", each, first.pid)
            second = await fleet.start()
            frozen = now()
            first.send(signal.SIGSTOP)
            again = [(await fleet.noted("begun", each, second.pid)).at - frozen for each in (short, long)]
            assert LEASE / 2 < min(again) <= max(again) < FOUND + SLACK
            await until(lambda: now() > fleet.diary("begun", short)[0].at + 5.2, 8, "the short one is over there")
            thawed = now()
            first.send(signal.SIGCONT)
            cut = await fleet.noted("cut", long, first.pid)
            assert cut.at - thawed < LEASE / 3 + SLACK
            await fleet.noted("done", short, first.pid)
            print(f"{engine.name}: frozen, again within {max(again):.2f} s; cancelled {cut.at - thawed:.2f} s after")
            for each in (short, long):
                assert (await tasks.result(each, 20))["pid"] == second.pid
                task = await tasks.get(each)
                assert (task.epoch, task.interruptions, task.crashes, task.failures) == (2, 1, 1, 0)
            assert fleet.diary("done", long, first.pid) == []
            _, ends = await balanced(tasks.journal)
            assert ends == {"completed": 2, "crash": 2}
            # What it runs now counts again.
            second.send(signal.SIGKILL)
            assert (await tasks.result((await tasks.start("hold", 0.1)).id, 10))["pid"] == first.pid

    asyncio.run(main())


def test_an_engine_that_is_killed_during_recovery_loses_nothing_and_strands_nothing(
    engine: Engine, tmp_path: Path
) -> None:
    async def main() -> None:
        async with drill(engine, tmp_path) as (fleet, tasks):
            nodes = [await fleet.start() for _ in range(2)]
            ids = [(await tasks.start("hold", 2.0)).id for _ in range(30)]
            await until(lambda: len(fleet.diary("begun")) >= 20, 10, "both are full")
            over = asyncio.Event()
            submitter = asyncio.create_task(_submit(tasks, over))
            nodes[0].send(signal.SIGKILL)
            await asyncio.sleep(LEASE * 0.8)
            engine.crash()
            if engine.server is None:  # a file is as dead as who uses it
                nodes[1].send(signal.SIGKILL)
            await asyncio.sleep(1.5)
            if engine.server is not None:
                engine.server.start()
            back = now()
            await fleet.start()
            await asyncio.sleep(1.0)
            over.set()
            more, refused = await submitter
            for each in ids + more:
                await tasks.result(each, 30)
            print(f"{engine.name}: all done {now() - back:.1f} s after it was back; {refused} submissions refused")
            done, ends = await balanced(tasks.journal)
            assert sorted(task.id for task in done) == sorted(ids + more)
            assert ends["completed"] == len(ids) + len(more)
            assert ends["crash"] >= 10

    asyncio.run(main())


async def _submit(tasks: Tasks, over: asyncio.Event) -> tuple[list[str], int]:
    """Start tasks until it is over, each again and again until it is known to be written. Each is one task."""
    ids: list[str] = []
    refused = 0
    while not over.is_set():
        while True:
            try:
                ids.append((await tasks.start("hold", 0.01, quiet=True, key=f"{len(ids)}")).id)
                break
            except JournalUnavailable:
                refused += 1
        await asyncio.sleep(0.02)
    return ids, refused


def test_10000_tasks_with_a_kill_each_second_are_each_completed_once(engine: Engine, tmp_path: Path) -> None:
    async def main() -> None:
        rng = Random(SEED)
        async with drill(engine, tmp_path, concurrency=10) as (fleet, tasks):
            chaos = Chaos(fleet, rng)
            await chaos.begin(3)
            began = now()
            faults = asyncio.create_task(chaos.run())
            try:
                ids, parents = await _start_all(tasks)
                started = now()
                while (await _left(tasks)) > 0:
                    assert not faults.done(), faults.exception()
                    assert now() - began < 60 + TASKS / 40, await tasks.journal.counts()
                    await asyncio.sleep(0.2)
                took = now() - began
            finally:
                chaos.over.set()
                await faults
            for each in parents:
                ids += await tasks.result(each, 10)
            done, ends = await balanced(tasks.journal)
            print(
                f"{engine.name}: {TASKS} tasks, written down in {started - began:.1f} s, all done in {took:.1f} s;",
                f"{dict(chaos.counts)};",
                f"{dict(ends)}; {sum(1 for task in done if task.interruptions)} tasks were interrupted,",
                f"one of them {max(task.interruptions for task in done)} times; seed {SEED}",
            )
            assert sorted(task.id for task in done) == sorted(ids + parents)
            assert len(ids) == TASKS
            assert ends["completed"] == TASKS + len(parents)
            assert ends["failed"] == ends["cancelled"] == 0
            assert ends["retry"] == sum(1 for task in done if task.kind == "flaky")
            counts = (await tasks.journal.counts(LONG)).states
            assert sum(states.get("completed", 0) for states in counts.values()) == len(done)
            assert not any(states.get("running") or states.get("pending") for states in counts.values())
            assert all(code == 0 for code in chaos.codes), chaos.codes

    asyncio.run(main())


class Chaos:
    """Does something bad to a node each second, and sees that there are as many as before.

    Attributes:
        over: Set when it is enough.
        counts: How often what was done.
        codes: Exit codes of the nodes that were told to go.
    """

    def __init__(self, fleet: Fleet, rng: Random) -> None:
        self.over = asyncio.Event()
        self.counts = dict.fromkeys(("SIGKILL", "SIGTERM", "SIGSTOP"), 0)
        self.codes: list[int] = []
        self._fleet = fleet
        self._rng = rng
        self._nodes: list[Node] = []
        self._going: set[asyncio.Task[None]] = set()

    async def begin(self, number: int) -> None:
        self._nodes = [self._launched() for _ in range(number)]
        await until(lambda: all(node.ready for node in self._nodes), 30, "the nodes are ready")

    def _launched(self) -> Node:
        return self._fleet.launch(drain_requests="0.05", drain_persist="2")

    async def run(self) -> None:
        due = now() + 1.0
        while not self.over.is_set():
            await asyncio.sleep(max(0.0, due - now()))
            due += 1.0
            ready = [node for node in self._nodes if node.ready]
            if not ready:
                continue
            node = self._rng.choice(ready)
            how = self._rng.choices(("SIGKILL", "SIGTERM", "SIGSTOP"), (6, 2, 2))[0]
            self.counts[how] += 1
            node.send(getattr(signal, how))
            going = asyncio.create_task(self._after(node, how))
            self._going.add(going)
            going.add_done_callback(self._going.discard)
        for node in self._nodes:
            if node.frozen:
                node.send(signal.SIGCONT)
        await asyncio.gather(*self._going)

    async def _after(self, node: Node, how: str) -> None:
        if how == "SIGSTOP":
            await asyncio.sleep(self._rng.uniform(0.2, self._fleet.lease + 1.5))
            node.send(signal.SIGCONT)
            return
        self._nodes[self._nodes.index(node)] = self._launched()
        code = await node.ended()
        if how == "SIGTERM":
            self.codes.append(code)


async def _start_all(tasks: Tasks) -> tuple[list[str], list[str]]:
    """Start them: two of three at once, the others by tasks that do it. Returns the ids of both."""
    direct = TASKS - TASKS // 3 // EACH * EACH
    parents = [(await tasks.start("spread", first, EACH)).id for first in range(direct, TASKS, EACH)]
    ids: list[str] = []
    for first in range(0, direct, 250):
        ids += await asyncio.gather(*(begin(tasks, number) for number in range(first, min(first + 250, direct))))
    return ids, parents


async def _left(tasks: Tasks) -> int:
    """How many have not ended; 1 where nobody can say."""
    try:
        counts = await tasks.journal.counts(LONG)
    except JournalUnavailable:
        return 1
    return sum(states.get("pending", 0) + states.get("running", 0) for states in counts.states.values())


def test_a_slot_of_a_periodic_task_is_done_once_though_its_nodes_are_killed(engine: Engine, tmp_path: Path) -> None:
    async def main() -> None:
        async with drill(engine, tmp_path, lease=1.0, DRILL_EVERY="1") as (fleet, tasks):
            for _ in range(2):
                await fleet.start()
            killed: set[str] = set()
            while len(killed) < 5:
                new = await _begun(fleet, killed)
                (victim,) = [node for node in fleet.nodes if node.pid == new.pid]
                victim.send(signal.SIGKILL)  # in the middle of a slot; of each once
                killed.add(new.id)
                await fleet.start()
            await asyncio.sleep(3.0)
            ticks = await everything(tasks.journal, "tick")
            slots = [msgspec.json.decode(tick.spec)["slot"] for tick in ticks]
            assert len(set(slots)) == len(slots)
            done, ends = await balanced(tasks.journal, ("tick",))
            assert ends["crash"] == len(killed)
            assert ends["completed"] == sum(1 for tick in done if tick.state == "completed")
            assert sum(1 for tick in done if tick.state == "pending") <= 1
            # A slot that was due while the one before it was lost is not made up for; others are all there.
            apart = [after - before for before, after in zip(sorted(slots), sorted(slots)[1:], strict=False)]
            print(f"{engine.name}: {len(slots)} slots, {len(killed)} nodes killed, at most {max(apart):g} s apart")
            assert max(apart) <= 3.0

    asyncio.run(main())


async def _begun(fleet: Fleet, before: set[str]) -> Entry:
    """Wait until a slot that is none of these runs."""

    seen: list[Entry] = []

    def found() -> bool:
        seen[:] = [each for each in fleet.diary()[-1:] if each.what == "begun" and each.id not in before]
        return bool(seen)

    await until(found, 10, "a slot begins")
    return seen[0]
