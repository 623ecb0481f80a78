"""When a node asks for work: nothing that is due waits while there is room, whoever came first."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from sojourn.tasks.record import NewTask
from sojourn.tasks.tasks import Tasks
from tests.tasks.stand_ins import MemoryJournal, Store, in_a_loop, service, until


@in_a_loop
async def test_what_came_due_while_there_was_no_room_is_claimed_when_there_is() -> None:
    store = Store()
    async with service(store, concurrency=1, polite=False) as tasks:
        go = asyncio.Event()

        @tasks.define
        async def long() -> None:
            await go.wait()

        @tasks.define
        async def later() -> int:
            return 1

        node = await tasks.begin()
        started = await tasks.start(later, delay=0.1)
        await until(lambda: not node._claiming.more)
        store.listeners[:] = []  # its time comes, and nobody tells
        await tasks.start(long)
        await asyncio.sleep(0.12)
        assert store.tasks[started.id].state == "pending"
        store.listeners.append(node)
        go.set()
        assert await tasks.result(started.id, 0.5) == 1


@in_a_loop
async def test_tasks_of_a_kind_with_a_limit_follow_each_other_at_once() -> None:
    store = Store()
    async with service(store) as tasks:

        @tasks.define(limit=1)
        async def narrow() -> None:
            await asyncio.sleep(0.01)

        @tasks.define
        async def wide() -> None: ...

        spec = b'{"attempts":1}'
        journal = MemoryJournal(store)
        await journal.submit([NewTask(id=f"n{number}", kind="narrow", spec=spec) for number in range(5)])
        await tasks.begin()
        await until(lambda: all(task.state == "completed" for task in store.tasks.values()), 1.0)


@in_a_loop
async def test_a_claim_that_fails_in_an_unknown_way_does_not_end_the_claiming() -> None:
    store = Store()
    failures = told()
    async with service(store) as tasks:

        @tasks.define
        async def short() -> int:
            return 3

        broken = 2

        async def before(call: str) -> None:
            nonlocal broken
            if call == "claim" and broken:
                broken -= 1
                raise KeyError("a bug of the engine")

        store.before = before
        await tasks.begin()
        started = await tasks.start(short, delay=0.01)
        assert await tasks.result(started.id, 3.0) == 3
    assert any(isinstance(each.get("exception"), KeyError) for each in failures)


@in_a_loop
async def test_a_renewal_that_fails_in_an_unknown_way_does_not_end_the_renewing_nor_the_fence() -> None:
    store = Store()
    told()
    async with service(store, lease=0.3) as tasks:
        cut = asyncio.Event()

        @tasks.define
        async def slow() -> None:
            try:
                await asyncio.sleep(10)
            finally:
                cut.set()

        async def before(call: str) -> None:
            if call == "beat":
                raise KeyError("a bug of the engine")

        store.before = before
        await tasks.start(slow)
        async with asyncio.timeout(1.0):
            await cut.wait()
        assert tasks.stats.self_fenced == 1


def test_a_node_listens_again_when_its_ears_have_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sojourn.tasks.node._TURN", 0.2)

    class Deaf(MemoryJournal):
        failed = 0

        async def listen(self, listener: Any) -> None:
            if not self.failed:
                self.failed = 1
                raise KeyError("a bug of the engine")
            await super().listen(listener)

    @in_a_loop
    async def test() -> None:
        store = Store()
        told()
        tasks = Tasks(Deaf(store), handover=0.2)
        async with tasks:
            await until(lambda: store.listeners, 1.0)

    test()


@pytest.mark.parametrize("spec", [b'{"attempts":"many"}', b"no json"])
def test_a_task_whose_spec_can_not_be_read_has_failed_and_keeps_no_other_from_running(spec: bytes) -> None:
    @in_a_loop
    async def test() -> None:
        store = Store()
        async with service(store) as tasks:

            @tasks.define
            async def short() -> int:
                return 3

            await MemoryJournal(store).submit([NewTask(id="odd", kind="short", spec=spec)])
            await MemoryJournal(store).submit([NewTask(id="fine", kind="short")])
            await tasks.begin()
            assert await tasks.result("fine", 1.0) == 3
            await until(lambda: store.tasks["odd"].state == "failed", 1.0)
            assert msgspec.json.decode(store.tasks["odd"].error)["type"] == "Unreadable"

    test()


def test_what_waits_here_for_long_is_handed_back_once_and_not_claimed_ahead_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sojourn.tasks.running._PATIENCE", 0.3)

    @in_a_loop
    async def test() -> None:
        store = Store()
        async with service(store, concurrency=2, lease=0.6) as tasks:
            go = asyncio.Event()

            @tasks.define
            async def work(wait: bool) -> None:
                if wait:
                    await go.wait()

            node = await tasks.begin()
            node._running.room.took = 0.001
            spec = b'{"attempts":1}'
            await MemoryJournal(store).submit(
                [NewTask(id=f"w{number:02}", kind="work", spec=spec, payload=b'{"wait":true}') for number in range(20)]
            )
            await until(lambda: len(node.runs) > 2)
            await until(lambda: len(node.runs) == 2, 2.5)  # though their leases are renewed
            await asyncio.sleep(0.1)
            assert len(node.runs) == 2
            go.set()
            await until(lambda: all(task.state == "completed" for task in store.tasks.values()))

    test()


def told() -> list[dict[str, Any]]:
    """What is told to the event loop from now on."""
    failures: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
    return failures


@in_a_loop
async def test_a_node_ends_at_once_though_its_journal_answers_a_cancellation_with_an_error() -> None:
    store = Store()
    told()

    class Odd(MemoryJournal):
        async def listen(self, listener: Any) -> None:
            try:
                await super().listen(listener)
            except asyncio.CancelledError as error:
                raise KeyError("a bug of the engine") from error

    tasks = Tasks(Odd(store))
    async with asyncio.timeout(1.0), tasks:
        await until(lambda: store.listeners)
