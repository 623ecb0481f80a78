"""Pools that are bounded and watched, whichever came first."""

from __future__ import annotations

import asyncpg
import httpx
import pytest
import redis.asyncio

from sojourn.clients.asyncpg import bounded as bounded_asyncpg
from sojourn.clients.httpx import bounded as bounded_httpx
from sojourn.clients.redis import bounded as bounded_redis
from sojourn.errors import DeadlineExceeded
from sojourn.observe.leaks.adapters import watch
from sojourn.observe.leaks.leases import LEASES
from sojourn.scopes.deadline import deadline
from sojourn.testing.faults import FaultProxy
from tests.clients.scene import run
from tests.clients.upstream import upstream
from tests.observe.leaks.scene import Bench

ORDERS = pytest.mark.parametrize("first", ["bounded", "watched"])


@ORDERS
def test_an_asyncpg_pool_gives_back_what_was_cut(postgres: int, first: str) -> None:
    async def main() -> None:
        bench = Bench()
        LEASES.set(bench.leases)
        async with FaultProxy(("127.0.0.1", postgres)) as proxy:
            host, port = proxy.address
            pool = asyncpg.create_pool(host=host, port=port, user="postgres", ssl=False, min_size=0, max_size=1)
            if first == "watched":
                watch(pool, name="pg")
                bounded_asyncpg(pool)
            else:
                bounded_asyncpg(pool)
                watch(pool, name="pg")
            await pool
            assert await pool.fetchval("select 1") == 1
            lost = proxy.timeout()

            async def ask() -> None:
                async with deadline(0.1, "orders"):
                    await pool.fetchval("select 1")

            with pytest.raises(DeadlineExceeded):
                await ask()
            assert bench.leases.counts() == {"pg": 0}
            lost.remove()
            assert await pool.fetchval("select 1") == 1
            assert bench.leases.taken["pg"] == 3
            assert bench.leases.counts() == {"pg": 0}
            pool.terminate()

    run(main())


@ORDERS
def test_a_redis_client_gives_back_what_was_cut(redis_port: int, first: str) -> None:
    async def main() -> None:
        bench = Bench()
        LEASES.set(bench.leases)
        async with FaultProxy(("127.0.0.1", redis_port)) as proxy:
            client = redis.asyncio.Redis(port=proxy.address[1])
            for step in (bounded_redis, watch) if first == "bounded" else (watch, bounded_redis):
                step(client)
            await client.set("a", 1)
            lost = proxy.timeout()

            async def ask() -> None:
                async with deadline(0.1, "cached"):
                    await client.get("a")

            with pytest.raises(DeadlineExceeded):
                await ask()
            lost.remove()
            assert await client.get("a") == b"1"
            assert bench.leases.counts() == {"redis": 0}
            await client.aclose()

    run(main())


@ORDERS
def test_an_httpx_client_gives_back_what_was_cut(first: str) -> None:
    async def main() -> None:
        bench = Bench()
        LEASES.set(bench.leases)
        async with upstream() as site, httpx.AsyncClient(base_url=f"http://127.0.0.1:{site.port}") as client:
            for step in (bounded_httpx, watch) if first == "bounded" else (watch, bounded_httpx):
                step(client)

            async def ask(path: str) -> None:
                async with deadline(0.1, "pay"):
                    await client.get(path)

            for path in ("/slow", "/drip"):
                with pytest.raises(DeadlineExceeded):
                    await ask(path)
            assert bench.leases.counts() == {"httpx": 0}
            await ask("/")
            assert bench.leases.counts() == {"httpx": 0}

    run(main())
