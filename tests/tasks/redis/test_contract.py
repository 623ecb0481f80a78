"""RedisJournal keeps the contract of journals."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import uvloop

from sojourn.tasks.redis.journal import RedisJournal
from sojourn.testing.task_journal import TASK_PROMISES, JournalContract
from tests.databases import RedisServer

_numbers = itertools.count()


@pytest.mark.parametrize("promise", TASK_PROMISES)
def test_contract(promise: str, redis_server: RedisServer) -> None:
    @asynccontextmanager
    async def store(nodes: int) -> AsyncIterator[list[RedisJournal]]:
        prefix = f"{{contract:{next(_numbers)}}}:"
        yield [RedisJournal(redis_server.url, prefix=prefix) for _ in range(nodes)]

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(JournalContract(store).check(promise))
