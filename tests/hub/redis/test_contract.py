"""The Redis engine does what every engine promises."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from sojourn.hub.redis.engine import RedisEngine
from sojourn.testing.hub_engine import PROMISES, EngineContract
from tests.databases import RedisServer
from tests.hub.redis.nodes import fresh, play


@pytest.mark.parametrize("promise", PROMISES)
def test_two_nodes(promise: str, redis_server: RedisServer) -> None:
    @asynccontextmanager
    async def store(nodes: int) -> AsyncIterator[list[RedisEngine]]:
        prefix = fresh()
        yield [RedisEngine(redis_server.url, prefix=prefix) for _ in range(nodes)]

    play(EngineContract(store).check(promise))
