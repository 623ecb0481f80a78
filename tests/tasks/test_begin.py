"""How a service begins and ends: whoever needs it first, whatever fails, whoever leaves meanwhile."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from sojourn.config import Bind, Config, Drain
from sojourn.errors import JournalUnavailable
from sojourn.scopes.budget import BUDGETS, Budgets
from sojourn.tasks.tasks import Tasks
from tests.server.serving import serving
from tests.tasks.stand_ins import MemoryJournal, Store, in_a_loop, until


def service_of(store: Store) -> tuple[Tasks, Any]:
    tasks = Tasks(MemoryJournal(store), handover=0.5)

    @tasks.define
    async def short() -> int:
        return 7

    return tasks, short


@in_a_loop
async def test_a_beginning_that_fails_is_told_to_all_who_wait_for_it_and_the_next_tries_again() -> None:
    store = Store()
    tasks, short = service_of(store)
    store.down, store.slow = "gone", 0.02
    answers = await asyncio.gather(*(tasks.start(short) for _ in range(20)), return_exceptions=True)
    assert all(isinstance(each, JournalUnavailable) for each in answers)
    assert store.calls == ["open"]
    store.down, store.slow = "", 0.0
    started = await tasks.start(short)
    assert await tasks.result(started.id, 1.0) == 7
    await tasks.aclose()


@in_a_loop
async def test_a_submission_waits_for_the_beginning_no_longer_than_its_budget() -> None:
    store = Store()
    tasks, short = service_of(store)
    store.slow = 0.3
    BUDGETS.set(Budgets({"tasks": 0.05}))
    with pytest.raises(JournalUnavailable):
        await tasks.start(short)
    store.slow = 0.0
    await until(lambda: tasks._node is not None)  # it goes on, for the next
    await tasks.aclose()


@pytest.mark.parametrize("down", ["", "gone"])
def test_who_leaves_while_it_begins_keeps_nobody_from_it(down: str) -> None:
    @in_a_loop
    async def test() -> None:
        failures: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
        store = Store()
        tasks, short = service_of(store)
        store.slow, store.down = 0.05, down
        first = asyncio.get_running_loop().create_task(tasks.begin())
        await asyncio.sleep(0.01)
        first.cancel()
        await asyncio.sleep(0.06)
        store.slow, store.down = 0.0, ""
        started = await tasks.start(short)
        assert await tasks.result(started.id, 1.0) == 7
        await tasks.aclose()
        assert not failures

    test()


@in_a_loop
async def test_what_ends_while_it_begins_leaves_nothing() -> None:
    store = Store()
    tasks, _ = service_of(store)
    store.slow = 0.05
    beginning = asyncio.get_running_loop().create_task(tasks.begin())
    await asyncio.sleep(0.01)
    await tasks.aclose()
    await asyncio.wait((beginning,))
    assert tasks.journal.closed  # type: ignore[attr-defined]
    assert not store.listeners


@in_a_loop
async def test_who_begins_in_a_drain_can_still_start_tasks_for_others() -> None:
    store = Store()
    tasks, short = service_of(store)
    asked = asyncio.Event()
    draining = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            raise RuntimeError("no lifespan")
        asked.set()
        await draining.wait()
        started = await tasks.start(short)
        assert started.state == "pending"
        await send({"type": "http.response.start", "status": started.status, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    config = Config(bind=Bind(port=0), drain=Drain(delay=0.1, requests=1.0, persist=0.5))
    async with serving(app, config) as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        await asked.wait()
        served.server.drain()
        await asyncio.sleep(0.02)
        draining.set()
        assert (await reader.readline()).split()[1] == b"202"
        writer.close()
        await tasks.aclose()
        await served.server.wait_stopped()


@in_a_loop
async def test_what_was_written_after_its_caller_had_left_is_handed_back_at_once() -> None:
    store = Store()
    tasks, short = service_of(store)
    await tasks.begin()
    await until(lambda: not tasks._node._claiming.more)  # type: ignore[union-attr]
    store.slow = 0.02
    leaving = asyncio.get_running_loop().create_task(tasks.start(short))
    await asyncio.sleep(0.01)
    leaving.cancel()
    await until(lambda: store.tasks and next(iter(store.tasks.values())).state == "completed", 1.0)
    (task,) = store.tasks.values()
    assert (task.crashes, task.interruptions) == (0, 0)
    await tasks.aclose()


@in_a_loop
async def test_what_is_written_while_the_service_ends_is_handed_back() -> None:
    store = Store()
    tasks, short = service_of(store)
    await tasks.begin()
    await until(lambda: not tasks._node._claiming.more)  # type: ignore[union-attr]
    store.slow = 0.02
    starting = asyncio.get_running_loop().create_task(tasks.start(short))
    await asyncio.sleep(0.01)
    await tasks.aclose()
    started = await starting
    task = store.tasks[started.id]
    assert (task.state, task.interruptions, task.crashes) == ("pending", 0, 0)


@in_a_loop
async def test_who_waits_when_the_service_ends_is_told_and_nobody_asks_the_closed_journal() -> None:
    store = Store()
    tasks, short = service_of(store)
    await tasks.begin()
    started = await tasks.start(short, delay=100)
    loop = asyncio.get_running_loop()

    async def watch() -> None:
        async for _ in tasks.watch(started.id):
            pass

    waiting = [loop.create_task(tasks.result(started.id)), loop.create_task(watch())]
    await asyncio.sleep(0.02)
    await tasks.aclose()
    answers = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 1.0)
    assert [type(each) for each in answers] == [JournalUnavailable, JournalUnavailable]
    calls = len(store.calls)
    await asyncio.sleep(0.05)
    assert len(store.calls) == calls
