"""A task that is cancelled without the end of a run: whoever wanted to know hears of it all the same."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

import msgspec
import pytest

from sojourn.ops.journal_source import Opened
from sojourn.tasks import cancelling
from sojourn.tasks.cancelling import LOOK
from sojourn.tasks.journal import Query
from sojourn.tasks.record import NewTask, Settlement
from sojourn.tasks.spec import Spec
from sojourn.tasks.tasks import Tasks
from sojourn.tasks.webhooks import Webhooks
from tests.hub.stand_ins import in_a_loop, until
from tests.tasks.webhooks.receiver import SECRET, Receiver, receiving


@asynccontextmanager
async def scene(folder: Path) -> AsyncIterator[tuple[Tasks, Receiver]]:
    """A service that tells what other nodes do, and who is told."""
    webhooks = Webhooks(SECRET, plain=True, private=True)
    async with receiving() as receiver, Tasks(str(folder / "tasks.db"), webhooks=webhooks) as tasks:
        yield tasks, receiver


async def submitted(tasks: Tasks, receiver: Receiver, lease: float = 0.0) -> str:
    """A task of a kind that is not known here; with a lease, another node has it, which tells nobody anything."""
    spec = msgspec.json.encode(Spec(callback=f"http://127.0.0.1:{receiver.port}/"))
    node = "other" if lease else ""
    task = NewTask(id=secrets.token_hex(16), kind="export", spec=spec, node=node, lease=lease)
    await tasks.journal.submit([task])
    return task.id


async def told(receiver: Receiver, number: int) -> None:
    """So many were told, each once."""
    await until(lambda: len(receiver.received) >= number)
    await asyncio.sleep(0.5)
    assert len({each.headers["webhook-id"] for each in receiver.received}) == len(receiver.received) == number
    assert all(b'"task.cancelled"' in each.body for each in receiver.received)


async def looked(tasks: Tasks, number: int) -> list[str]:
    """What becomes of the looks, when there were so many."""
    while True:
        looks = await tasks.journal.list(Query(kind=LOOK))
        if len(looks) >= number and {each.state for each in looks} == {"completed"}:
            return [each.id for each in looks]
        await asyncio.sleep(0.01)


@in_a_loop
async def test_each_time_that_it_is_cancelled_while_it_waits_it_is_told_once(tmp_path: Path) -> None:
    async with scene(tmp_path) as (tasks, receiver):
        task = await submitted(tasks, receiver)
        for times in (1, 2):
            assert (await tasks.cancel(task)).state == "cancelled"
            assert (await tasks.cancel(task)).state == "cancelled"
            await told(receiver, times)
            assert (await tasks.retry(task)).state == "pending"


@pytest.mark.parametrize("outcome", ["handover", "retry", "unbegun"])
@in_a_loop
async def test_a_run_that_is_given_back_tells_nothing_and_it_is_told(
    tmp_path: Path, outcome: Literal["handover", "retry", "unbegun"]
) -> None:
    async with scene(tmp_path) as (tasks, receiver):
        task = await submitted(tasks, receiver, lease=60.0)
        assert (await tasks.cancel(task)).cancelling
        assert (await tasks.cancel(task)).cancelling
        assert await tasks.journal.settle([Settlement(id=task, epoch=1, outcome=outcome)]) == [True]
        assert (await tasks.get(task)).state == "cancelled"
        await told(receiver, 1)


@in_a_loop
async def test_a_node_that_is_lost_tells_nothing_and_it_is_told(tmp_path: Path) -> None:
    async with scene(tmp_path) as (tasks, receiver):
        task = await submitted(tasks, receiver, lease=0.3)
        assert (await tasks.cancel(task)).cancelling

        @tasks.define  # whoever knows its kind finds that it is lost
        async def export() -> None:
            raise AssertionError("it was to end")

        await told(receiver, 1)
        assert (await tasks.get(task)).state == "cancelled"


@in_a_loop
async def test_a_run_that_ends_by_itself_has_told_what_there_is_to_tell(tmp_path: Path) -> None:
    async with scene(tmp_path) as (tasks, receiver):
        for outcome in ("completed", "failed"):
            task = await submitted(tasks, receiver, lease=60.0)
            assert (await tasks.cancel(task)).cancelling
            await tasks.journal.settle([Settlement(id=task, epoch=1, outcome=outcome, result=b"1")])  # type: ignore[arg-type]
        await looked(tasks, 2)
        await asyncio.sleep(0.1)
        assert receiver.received == []


@in_a_loop
async def test_a_run_that_says_that_it_was_cancelled_is_told_of_once(tmp_path: Path) -> None:
    async with scene(tmp_path) as (tasks, receiver):
        task = await submitted(tasks, receiver, lease=60.0)
        await tasks.cancel(task)
        assert tasks.webhooks is not None
        url = f"http://127.0.0.1:{receiver.port}/"
        then = tasks.webhooks.delivery(task, "export", "cancelled", b"", b"", url, run="1")  # as its node would
        await tasks.journal.settle([Settlement(id=task, epoch=1, outcome="cancelled", then=(then,))])
        await looked(tasks, 1)
        await told(receiver, 1)


@in_a_loop
async def test_a_cancellation_that_was_never_asked_for_is_not_waited_for_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cancelling, "_LONGEST", 0.01)
    async with scene(tmp_path) as (tasks, receiver):
        task = await submitted(tasks, receiver, lease=60.0)
        found = await tasks.journal.get(task)
        assert found is not None
        await cancelling.look_again(tasks.journal, found, "a", 0)  # and whoever was about to cancel it was killed
        assert len(await looked(tasks, 8)) == 8
        assert receiver.received == []


@in_a_loop
async def test_who_cancels_it_in_the_journal_itself_needs_to_know_nothing_of_webhooks(tmp_path: Path) -> None:
    async with scene(tmp_path) as (tasks, receiver):
        task = await submitted(tasks, receiver)
        stored = Opened(str(tmp_path / "tasks.db"))
        assert (await asyncio.to_thread(stored.change, "cancel", task))["state"] == "cancelled"
        await told(receiver, 1)
