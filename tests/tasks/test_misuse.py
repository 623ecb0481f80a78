"""What goes wrong in the hands of others: odd errors, odd values, and a service that is used where it is not."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from sojourn.errors import ConfigError, SecurityContextError, TaskArguments, TaskConflict, TaskFailed
from sojourn.scopes.context import SecurityContext, acting_as
from sojourn.tasks.tasks import Tasks
from tests.tasks.stand_ins import MemoryJournal, Store, in_a_loop, service


class Mute(Exception):
    """Can't say what it is."""

    def __str__(self) -> str:
        raise LookupError("no words")


class Unsure(Exception):
    """Does not know when to come back."""

    @property
    def retry_after(self) -> float:
        raise RuntimeError("no request")


@pytest.mark.parametrize(
    ("error", "detail"),
    [
        (Mute(), "Mute: it can't be said: LookupError"),
        (Unsure(), "Unsure: it can't be said: RuntimeError"),
        (ValueError(os.fsdecode(b"no file \xff")), r"ValueError: no file \\udcff"),
    ],
)
def test_an_error_that_can_not_be_written_down_as_it_is_ends_its_run_all_the_same(error: Any, detail: str) -> None:
    @in_a_loop
    async def test() -> None:
        async with service() as tasks:

            @tasks.define(retries=0)
            async def broken() -> None:
                raise error

            started = await tasks.start(broken)
            with pytest.raises(TaskFailed, match=detail):
                await tasks.result(started.id, 2.0)
            assert not (await tasks.begin()).runs

    test()


@in_a_loop
async def test_clients_are_not_told_where_in_the_code_a_deadline_was_set() -> None:
    async with service() as tasks:

        @tasks.define(deadline=0.02, retries=0)
        async def slow() -> None:
            await asyncio.sleep(10)

        started = await tasks.start(slow)
        with pytest.raises(TaskFailed, match=r"0\.02 s") as raised:
            await tasks.result(started.id, 2.0)
        assert ".py" not in str(raised.value)


@in_a_loop
async def test_the_same_arguments_in_another_order_are_the_same_task() -> None:
    async with service() as tasks:

        @tasks.define
        async def export(order: int, options: dict[str, int]) -> None: ...

        first = await tasks.start(export, 7, {"a": 1, "b": 2}, key="k")
        for again in (
            await tasks.start(export, options={"b": 2, "a": 1}, order=7, key="k"),
            await tasks.submit("export", {"options": {"b": 2, "a": 1}, "order": 7}, key="k"),
        ):
            assert (again.id, again.new) == (first.id, False)
        with pytest.raises(TaskConflict):
            await tasks.start(export, 7, {"a": 2, "b": 1}, key="k")


@in_a_loop
async def test_arguments_that_are_nested_too_deeply_are_refused() -> None:
    deep: list[Any] = []
    for _ in range(5000):
        deep = [deep]
    async with service() as tasks:

        @tasks.define
        async def take(it: Any) -> None: ...

        with pytest.raises(TaskArguments, match="recursion"):
            await tasks.start(take, deep)


@in_a_loop
async def test_who_acts_no_more_starts_nothing() -> None:
    store = Store()
    async with service(store) as tasks:

        @tasks.define(public=True)
        async def work() -> None: ...

        with acting_as(SecurityContext("ada", expires_at=1.0)):
            for call in (tasks.start(work), tasks.submit("work", {}), tasks.submit("work", {}, owner="ada")):
                with pytest.raises(SecurityContextError, match="has expired"):
                    await call
        assert not store.tasks


def test_a_service_that_is_used_in_another_event_loop_says_so() -> None:
    async def first() -> None:
        async with tasks:
            await asyncio.to_thread(elsewhere)
            assert not store.tasks

    def elsewhere() -> None:
        for call in (tasks.start(work), tasks.get("t1")):
            with pytest.raises(RuntimeError, match="another event loop"):
                asyncio.run(call)  # type: ignore[arg-type]

    store = Store()
    tasks = Tasks(MemoryJournal(store))

    @tasks.define
    async def work() -> None: ...

    asyncio.run(first())


def test_what_comes_by_a_schedule_needs_no_arguments() -> None:
    with pytest.raises(ConfigError, match=r"without arguments: .*`order`"):

        @Tasks(MemoryJournal()).define(every=60)
        async def export(order: int) -> None: ...


def test_a_journal_may_be_a_path_and_nothing_may_not(tmp_path: Path) -> None:
    assert Tasks(tmp_path / "tasks.db").journal.name == "sqlite"
    for nothing in (None, 5):
        with pytest.raises(ConfigError, match="is no journal: give a path"):
            Tasks(nothing)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "detail"),
    [
        ({"concurrency": "4"}, "concurrency is at least 1, not '4'"),
        ({"concurrency": 2.5}, "concurrency"),
        ({"path": "tasks"}, "begins with a slash"),
        ({"kinds": "export"}, "{'export'}"),
        ({"concurency": 4}, "concurency"),
    ],
)
def test_settings_that_can_not_be_are_said_when_the_service_is_made(settings: dict[str, Any], detail: str) -> None:
    with pytest.raises(ConfigError, match=detail):
        Tasks(MemoryJournal(), **settings)
