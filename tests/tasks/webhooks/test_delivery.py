"""A callback from the start of its task to its receiver, through the journal."""

from __future__ import annotations

import asyncio
import tempfile
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from sojourn.errors import ConfigError
from sojourn.policy.retry import Backoff
from sojourn.tasks.journal import Query
from sojourn.tasks.record import Task
from sojourn.tasks.tasks import Tasks
from sojourn.tasks.webhooks import WEBHOOK, Webhooks, verify_webhook
from tests.hub.stand_ins import in_a_loop, until
from tests.tasks.webhooks.receiver import SECRET, receiving


def shop(folder: str, **options: Any) -> Tasks:
    webhooks = Webhooks(SECRET, plain=True, private=True, backoff=Backoff(0.01, 0.02), **options)
    tasks = Tasks(str(Path(folder) / "tasks.db"), webhooks=webhooks)

    @tasks.define
    async def export(order: int) -> str:
        return f"/exports/{order}.csv"

    @tasks.define(retries=0)
    async def fail() -> None:
        raise ValueError("no")

    @tasks.define
    async def wait() -> None:
        await asyncio.sleep(60)

    return tasks


@in_a_loop
async def test_the_end_of_a_task_is_told_until_it_is_taken() -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with receiving("500 Oops", "503 Later", "204 No Content") as receiver, shop(folder) as tasks:
            url = f"http://127.0.0.1:{receiver.port}/hook"
            started = await tasks.start("export", 7, callback=url)
            await until(lambda: len(receiver.received) == 3)
            assert len({each.headers["webhook-id"] for each in receiver.received}) == 1
            assert len({each.body for each in receiver.received}) == 1
            said = verify_webhook(receiver.received[-1].headers, receiver.received[-1].body, SECRET)
            data = {"id": started.id, "kind": "export", "state": "completed", "result": "/exports/7.csv"}
            assert said["type"] == "task.completed"
            assert said["data"] == data | {"location": started.location}


@in_a_loop
async def test_a_receiver_that_is_gone_is_asked_once() -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with receiving("410 Gone") as receiver, shop(folder) as tasks:
            await tasks.start("fail", callback=f"http://127.0.0.1:{receiver.port}/")
            await until(lambda: receiver.received)
            identity = receiver.received[0].headers["webhook-id"]
            assert (await tasks.wait(identity, 5)).state == "failed"
            assert len(receiver.received) == 1
            said = verify_webhook(receiver.received[0].headers, receiver.received[0].body, SECRET)
            assert said["data"]["error"] == {"type": "ValueError", "detail": "no", "attempt": 1}


@in_a_loop
async def test_a_task_that_is_cancelled_while_it_runs_tells_it() -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with receiving() as receiver, shop(folder) as tasks:
            started = await tasks.start("wait", callback=f"http://127.0.0.1:{receiver.port}/")
            async with aclosing(tasks.watch(started.id)) as told:
                async for each in told:
                    if isinstance(each, Task) and each.state == "running":
                        break
            await tasks.cancel(started.id)
            await until(lambda: receiver.received)
            assert b'"task.cancelled"' in receiver.received[0].body
            assert (await tasks.cancel(started.id)).state == "cancelled"  # once more: that was told
            assert [each.kind for each in await tasks.journal.list(Query())].count(WEBHOOK) == 1


@in_a_loop
async def test_a_callback_that_can_not_be_called_starts_nothing() -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with shop(folder, allow=["hooks.example"]) as tasks:
            with pytest.raises(ConfigError, match="none of the hosts"):
                await tasks.start("export", 7, callback="http://other.example/")
