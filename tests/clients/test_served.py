"""Inside a Sojourn server: requests bound their calls, the operator's budgets count, pools survive a black hole."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import asyncpg
import redis.asyncio

from sojourn.clients.asyncpg import bounded as bounded_asyncpg
from sojourn.clients.redis import bounded as bounded_redis
from sojourn.config import Deadlines, Timeouts
from sojourn.errors import DeadlineExceeded
from sojourn.testing.faults import FaultProxy
from tests.clients.scene import run, took
from tests.server.serving import serving

BUDGETS = Deadlines(budgets=("cache=100ms", "database=300ms"))


def test_twenty_requests_survive_a_database_and_a_cache_that_vanish(postgres: int, redis_port: int) -> None:
    async def main() -> None:
        async with FaultProxy(("127.0.0.1", postgres)) as database, FaultProxy(("127.0.0.1", redis_port)) as store:
            host, port = database.address
            pool = asyncpg.create_pool(host=host, port=port, user="postgres", ssl=False, min_size=0, max_size=4)
            await bounded_asyncpg(pool, dependency="database")
            connections = redis.asyncio.BlockingConnectionPool(port=store.address[1], max_connections=4)
            cache = bounded_redis(redis.asyncio.Redis(connection_pool=connections), dependency="cache")

            async def app(scope: Any, receive: Any, send: Any) -> None:
                if scope["type"] != "http":
                    raise NotImplementedError
                try:
                    found = await cache.get("nothing")
                except DeadlineExceeded as error:
                    found, missed[error.deadline] = None, missed.get(error.deadline, 0) + 1
                if found is None:
                    found = await pool.fetchval("select 42")
                await send({"type": "http.response.start", "status": 200, "headers": []})
                await send({"type": "http.response.body", "body": str(found).encode()})

            missed: dict[str, int] = {}
            async with serving(app, deadlines=BUDGETS) as served:
                assert (await served.get()).endswith(b"42")
                lost = [database.timeout(), store.timeout()]
                with took(0.35, 1.5):
                    answers = await asyncio.gather(*(served.get() for _ in range(20)))
                for answer in answers:
                    head, _, body = answer.partition(b"\r\n\r\n")
                    assert head.startswith(b"HTTP/1.1 504 ")
                    assert json.loads(body)["deadline"] == "database"
                assert missed == {"cache": 20}
                for toxic in lost:
                    toxic.remove()
                answers = await asyncio.gather(*(served.get() for _ in range(20)))
                assert all(answer.endswith(b"42") for answer in answers)
                assert missed == {"cache": 20}
                assert pool.get_idle_size() == pool.get_size() <= 4
                await cache.aclose()
                await connections.disconnect()
                pool.terminate()

    run(main())


def test_what_is_left_of_the_request_bounds_a_call_without_a_budget(postgres: int) -> None:
    async def main() -> None:
        pool = asyncpg.create_pool(host="127.0.0.1", port=postgres, user="postgres", ssl=False, min_size=0, max_size=1)
        await bounded_asyncpg(pool)

        async def app(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] != "http":
                raise NotImplementedError
            await pool.fetchval("select pg_sleep(10)")

        async with serving(app, timeouts=Timeouts(handler=0.5)) as served:
            with took(0.3, 1.2):
                assert (await served.get()).startswith(b"HTTP/1.1 504 ")
            assert await pool.fetchval("select 42") == 42
            pool.terminate()

    run(main())
