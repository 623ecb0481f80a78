"""What a node has: how its runs end, in which order that is written down, and what is left of them."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any

import pytest

from sojourn.errors import JournalUnavailable, TaskFailed
from sojourn.tasks.current import CurrentTask, current_task
from sojourn.tasks.record import Claim, NewTask
from sojourn.tasks.tasks import Tasks
from tests.tasks.stand_ins import MemoryJournal, Store, in_a_loop, service, until


@in_a_loop
async def test_an_end_is_written_down_though_what_should_follow_it_can_not_be_made() -> None:
    failures: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
    store = Store()
    async with service(store) as tasks:

        @tasks.define
        async def short() -> int:
            return 7

        def broken(run: Any, settlement: Any) -> list[NewTask]:
            raise LookupError("a bug of a schedule")

        node = await tasks.begin()
        node._running._then = broken
        started = await tasks.start(short)
        assert await tasks.result(started.id, 1.0) == 7
        await until(lambda: not node.runs)
    assert [type(each["exception"]) for each in failures] == [LookupError]


@pytest.mark.parametrize("fails", [False, True])
def test_what_a_run_has_told_is_written_down_before_its_end(fails: bool) -> None:
    @in_a_loop
    async def test() -> None:
        store = Store()

        async def before(call: str) -> None:
            await asyncio.sleep(0.03 if call == "append" else 0.0)

        store.before = before
        async with service(store) as tasks:

            @tasks.define(retries=0)
            async def steps() -> None:
                current_task().tell("first")
                await asyncio.sleep(0.005)
                current_task().tell("last")
                if fails:
                    raise ValueError("and then")

            started = await tasks.start(steps)
            if fails:
                with pytest.raises(TaskFailed):
                    await tasks.result(started.id, 1.0)
            else:
                await tasks.result(started.id, 1.0)
            assert [event.data for event in store.events[started.id]] == [b'"first"', b'"last"']

    test()


@in_a_loop
async def test_a_place_is_free_while_what_a_run_has_told_is_written_down() -> None:
    store = Store()
    async with service(store, concurrency=1) as tasks:

        @tasks.define
        async def talks() -> None:
            current_task().tell("on its way")

        @tasks.define
        async def short() -> int:
            return 1

        go = asyncio.Event()

        async def before(call: str) -> None:
            if call == "append":
                await go.wait()

        await tasks.begin()
        store.before = before
        await tasks.start(talks)
        started = await tasks.start(short)
        assert await tasks.result(started.id, 1.0) == 1
        go.set()


@in_a_loop
async def test_of_what_a_run_tells_while_the_journal_is_away_as_much_waits_as_would_be_kept() -> None:
    loop = asyncio.get_running_loop()
    asked: list[asyncio.Future[int]] = []

    def ask(entry: Any) -> asyncio.Future[int]:
        asked.append(loop.create_future())
        return asked[-1]

    current = CurrentTask(Claim(id="t", kind="k", epoch=1), ask)
    for number in range(1500):
        current.tell(number)
    assert [future.cancelled() for future in asked] == [True] * 500 + [False] * 1000
    for future in asked[500:]:
        future.set_result(1)
    current.tell("more")
    assert len(current._behind) == 1
    asked[-1].cancel()


def test_no_more_is_begun_while_too_many_ends_wait_and_again_when_they_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sojourn.tasks.running._BEHIND", 5)

    @in_a_loop
    async def test() -> None:
        store = Store()
        async with service(store, concurrency=2) as tasks:
            ran = 0

            @tasks.define
            async def short() -> None:
                nonlocal ran
                ran += 1

            go = asyncio.Event()

            async def before(call: str) -> None:
                if call == "settle":
                    await go.wait()

            store.before = before
            await MemoryJournal(store).submit([NewTask(id=f"t{number}", kind="short") for number in range(40)])
            node = await tasks.begin()
            await until(lambda: node._running.behind)
            await asyncio.sleep(0.05)
            assert ran <= 5 + 2 + 2
            go.set()
            await until(lambda: ran == 40, 2.0)

    test()


@in_a_loop
async def test_nothing_of_a_run_is_left_when_it_has_ended_not_even_for_the_collector() -> None:
    store = Store()
    async with service(store) as tasks:

        class Thing:
            pass

        things: list[weakref.ref[Thing]] = []

        @tasks.define(retries=0)
        async def holds(fails: bool) -> None:
            thing = Thing()
            things.append(weakref.ref(thing))
            await current_task().progress("holds it")
            if fails:
                raise ValueError("with it")

        node = await tasks.begin()
        gc.collect()
        before = {id(each) for each in gc.get_objects() if type(each) is CurrentTask}
        gc.disable()
        try:
            for number in range(20):
                await tasks.start(holds, number % 2 == 0)
            await until(lambda: len(things) == 20 and not node.runs)
            await asyncio.sleep(0.01)
            assert [each() for each in things] == [None] * 20
            assert {id(each) for each in gc.get_objects() if type(each) is CurrentTask} <= before
        finally:
            gc.enable()


@in_a_loop
async def test_a_run_of_a_node_that_was_frozen_for_all_of_its_lease_is_given_up_before_anybody_is_asked() -> None:
    store = Store()
    async with service(store, lease=30.0) as tasks:
        cut = asyncio.Event()

        @tasks.define
        async def slow() -> None:
            try:
                await asyncio.sleep(10)
            finally:
                cut.set()

        node = await tasks.begin()
        await tasks.start(slow)
        await until(lambda: node.runs)
        await asyncio.sleep(0.01)
        (run,) = node.runs.values()
        run.renewed -= 31.0

        async def before(call: str) -> None:
            if call == "beat":
                assert run.cause == "fenced"

        store.before = before
        await node._renewing.beat()
        async with asyncio.timeout(1.0):
            await cut.wait()
        assert tasks.stats.self_fenced == 1


@in_a_loop
async def test_a_survivor_that_saves_after_the_end_of_its_service_is_told_and_asks_nobody() -> None:
    store = Store()
    tasks = Tasks(MemoryJournal(store), handover=0.1)
    begun, go, said = asyncio.Event(), asyncio.Event(), asyncio.Event()

    @tasks.define
    async def stubborn() -> None:
        begun.set()
        while not go.is_set():
            try:
                await go.wait()
            except asyncio.CancelledError:
                continue
        try:
            await current_task().save("too late")
        except JournalUnavailable:
            said.set()

    async with tasks:
        await tasks.start(stubborn)
        await begun.wait()
    calls = len(store.calls)
    go.set()
    async with asyncio.timeout(1.0):
        await said.wait()
    await asyncio.sleep(0.05)
    assert len(store.calls) == calls
