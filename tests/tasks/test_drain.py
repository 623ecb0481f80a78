"""A server that drains while durable tasks run: they finish or are handed over; none is lost, none has failed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from sojourn.config import Bind, Config, Drain
from sojourn.tasks.current import current_task
from sojourn.tasks.tasks import Tasks
from tests.server.serving import serving
from tests.tasks.stand_ins import MemoryJournal, Store, in_a_loop, until


def config(**drain: float) -> Config:
    return Config(bind=Bind(port=0), drain=Drain(**{"delay": 0.0, "requests": 0.3, "persist": 1.0, **drain}))


class App:
    """A service with one task that lasts."""

    def __init__(self, store: Store) -> None:
        self.tasks = tasks = Tasks(MemoryJournal(store), name="work")
        self.cut = asyncio.Event()
        self.go = asyncio.Event()
        self.ended: list[str] = []

        @tasks.define
        async def wait() -> str:
            try:
                await self.go.wait()
            except asyncio.CancelledError:
                self.cut.set()
                await current_task().save("half")
                raise
            self.ended.append(current_task().id)
            return "whole"

        self.wait = wait
        self.asgi = tasks.app()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.asgi(scope, receive, send)


@in_a_loop
async def test_what_runs_is_handed_over_in_the_phase_persist_with_its_checkpoint_and_counted_in_the_report() -> None:
    store = Store()
    app = App(store)
    async with serving(app, config()) as served:
        server = served.server
        started = await app.tasks.start(app.wait)
        await until(lambda: store.tasks[started.id].state == "running")
        await asyncio.sleep(0.02)
        server.drain()
        await asyncio.sleep(0.1)
        assert not app.cut.is_set()  # it has the time of requests to end by itself
        report = await server.wait_stopped()
    task = store.tasks[started.id]
    assert (task.state, task.failures, task.interruptions, task.checkpoint) == ("pending", 0, 1, b'"half"')
    assert report.exit_code == 0
    (ended,) = [each for each in report.participants if each.phase == "persist"]
    assert (ended.name, ended.problem) == ("work", None)
    assert ended.counts == {"finished": 0, "handed_over": 1, "lost": 0}


@in_a_loop
async def test_what_ends_within_the_time_of_requests_is_finished_and_its_result_kept() -> None:
    store = Store()
    app = App(store)
    async with serving(app, config(requests=3.0)) as served:
        server = served.server
        started = await app.tasks.start(app.wait)
        await until(lambda: store.tasks[started.id].state == "running")
        await asyncio.sleep(0.02)
        server.drain()
        asyncio.get_running_loop().call_later(0.1, app.go.set)
        report = await server.wait_stopped()
    assert store.tasks[started.id].state == "completed"
    assert report.exit_code == 0
    assert report.seconds < 2.0


@in_a_loop
async def test_nothing_is_claimed_from_the_first_phase_on_and_leases_are_renewed_to_the_last() -> None:
    store = Store()
    app = App(store)
    app.tasks.settings = type(app.tasks.settings)(lease=0.3)
    async with serving(app, config(delay=0.4, requests=0.4)) as served:
        server = served.server
        started = await app.tasks.start(app.wait)
        await until(lambda: store.tasks[started.id].state == "running")
        server.drain()
        await asyncio.sleep(0.05)
        later = await app.tasks.start(app.wait)
        assert store.tasks[later.id].state == "pending"
        await server.wait_stopped()
    assert store.tasks[later.id].epoch == 0
    task = store.tasks[started.id]
    assert (task.epoch, task.crashes, task.interruptions) == (1, 0, 1)


@in_a_loop
async def test_work_that_can_not_be_handed_over_is_lost_and_said_to_be() -> None:
    store = Store()
    app = App(store)
    async with serving(app, config(requests=0.1, persist=0.5)) as served:
        server = served.server
        started = await app.tasks.start(app.wait)
        await until(lambda: store.tasks[started.id].state == "running")
        await asyncio.sleep(0.02)
        store.down = "gone"
        server.drain()
        report = await server.wait_stopped()
    assert report.exit_code == 6
    assert [each.counts for each in report.participants if each.phase == "persist"] == [
        {"finished": 0, "handed_over": 0, "lost": 1}
    ]
    assert store.tasks[started.id].state == "running"  # its lease will run out


@pytest.mark.parametrize("signals", [1, 2])
def test_a_second_signal_hands_over_at_once(signals: int) -> None:
    @in_a_loop
    async def test() -> None:
        store = Store()
        app = App(store)
        async with serving(app, config(requests=2.0)) as served:
            server = served.server
            started = await app.tasks.start(app.wait)
            await until(lambda: store.tasks[started.id].state == "running")
            await asyncio.sleep(0.02)
            began = asyncio.get_running_loop().time()
            server.drain()
            if signals == 2:
                await asyncio.sleep(0.05)
                server.hurry()
            await server.wait_stopped()
            took = asyncio.get_running_loop().time() - began
        assert store.tasks[started.id].interruptions == 1
        assert (took < 1.9) is (signals == 2)

    test()
