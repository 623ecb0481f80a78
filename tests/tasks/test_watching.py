"""Who watches tasks: what is told to each."""

from __future__ import annotations

import asyncio
from typing import Any

from sojourn.tasks.base import Base
from sojourn.tasks.record import NewTask, Progress, Task
from sojourn.tasks.watching import Watchers
from tests.tasks.stand_ins import MemoryJournal, Store, in_a_loop


async def held(store: Store) -> MemoryJournal:
    """A journal with a task that runs."""
    journal = MemoryJournal(store)
    await journal.submit([NewTask(id="t", kind="any", node="here", lease=100.0)])
    return journal


@in_a_loop
async def test_who_comes_while_it_is_read_is_told_of_what_had_changed_before() -> None:
    store = Store()
    journal = await held(store)
    watchers = Watchers(journal, Base())
    began, go = asyncio.Event(), asyncio.Event()

    class Late(MemoryJournal):
        """A read that was begun before a change, and is answered after it."""

        async def read(self, id: str, after: int, limit: int = 1000) -> Any:
            found = await super().read(id, after, limit)
            if not began.is_set():
                began.set()
                await go.wait()
            return found

    watchers = Watchers(Late(store), Base())

    async def first() -> Any:
        async for each in watchers.watch("t"):
            return each

    async def second() -> Any:
        async for each in watchers.watch("t"):
            if not isinstance(each, Task):
                return each.data

    loop = asyncio.get_running_loop()
    one = loop.create_task(first())
    await began.wait()
    await journal.append([Progress("t", 1, b"1")])
    watchers.changed("t")
    two = loop.create_task(second())
    await asyncio.sleep(0.01)
    go.set()
    async with asyncio.timeout(1.0):  # and not when it would look anyway
        assert await two == b"1"
        await one
    assert not watchers._reading
    assert not watchers._waiting


@in_a_loop
async def test_many_who_watch_one_task_read_it_once() -> None:
    store = Store()
    watchers = Watchers(await held(store), Base())
    store.slow = 0.01
    seen = []

    async def watch() -> None:
        async for each in watchers.watch("t"):
            seen.append(each)
            return

    await asyncio.gather(*(watch() for _ in range(50)))
    assert len(seen) == 50
    assert store.calls.count("read") == 1


@in_a_loop
async def test_who_waits_for_the_end_of_a_task_that_says_much_does_not_look_each_time() -> None:
    store = Store()
    journal = await held(store)
    watchers = Watchers(journal, Base())
    waiting = asyncio.get_running_loop().create_task(watchers.ended("t", 0.2))
    while not waiting.done():
        watchers.changed("t")
        await asyncio.sleep(0)
    assert store.calls.count("get") < 40  # and not some thousands


@in_a_loop
async def test_that_a_task_is_to_end_is_told() -> None:
    store = Store()
    journal = await held(store)
    watchers = Watchers(journal, Base())
    seen = []

    async def watch() -> None:
        async for each in watchers.watch("t"):
            assert isinstance(each, Task)
            seen.append(each.cancelling)
            if each.cancelling:
                return
            await journal.cancel("t")
            watchers.changed("t")

    async with asyncio.timeout(1.0):
        await watch()
    assert seen == [False, True]
