"""What reaches a node that ends, or was frozen: it is not begun, and others have it at once."""

from __future__ import annotations

import asyncio

from sojourn.tasks.record import NewTask
from tests.tasks.stand_ins import MemoryJournal, Store, in_a_loop, service, until

WORK = NewTask(id="one", kind="work")


@in_a_loop
async def test_what_is_claimed_while_a_service_ends_is_handed_back() -> None:
    store = Store()
    claiming, go = asyncio.Event(), asyncio.Event()

    async def before(call: str) -> None:
        if call == "claim":
            claiming.set()
            await go.wait()

    async with service(store) as tasks:

        @tasks.define
        async def work() -> None: ...

        store.before = before
        await tasks.begin()
        await claiming.wait()
        await MemoryJournal(store).submit([WORK])
        asyncio.get_running_loop().call_later(0.05, go.set)  # the answer comes when it is ending
    task = store.tasks["one"]
    assert (task.state, task.epoch, task.failures, task.interruptions) == ("pending", 1, 0, 0)


@in_a_loop
async def test_what_is_submitted_while_a_service_ends_is_handed_back() -> None:
    store = Store()
    async with service(store) as tasks:

        @tasks.define
        async def work() -> None: ...

        node = await tasks.begin()
        await until(lambda: "claim" in store.calls)
        await until(lambda: not node._claiming.more)
        store.slow = 0.05
        starting = asyncio.ensure_future(tasks.start(work))
        await until(lambda: "submit" in store.calls)
    started = await starting
    assert store.tasks[started.id].epoch == 1
    assert store.tasks[started.id].state == "pending"


@in_a_loop
async def test_a_service_that_ends_while_the_journal_hangs_ends_in_its_time() -> None:
    store = Store()
    async with service(store, handover=0.2) as tasks:

        @tasks.define
        async def work() -> None: ...

        node = await tasks.begin()
        await until(lambda: "claim" in store.calls)
        store.slow = 60.0
        node.due()
        await until(lambda: store.calls.count("claim") >= 2)
        began = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - began < 2.0


@in_a_loop
async def test_what_was_claimed_longer_ago_than_its_lease_is_not_begun() -> None:
    store = Store()
    epochs = []
    await MemoryJournal(store).submit([WORK])

    async def before(call: str) -> None:
        if call == "claim":
            store.before = None
            await asyncio.sleep(0.4)  # as if the process were frozen

    async with service(store, lease=0.3) as tasks:

        @tasks.define
        async def work() -> None:
            epochs.append(store.tasks["one"].epoch)

        store.before = before
        await tasks.begin()
        await until(lambda: epochs)
    assert epochs == [2]
