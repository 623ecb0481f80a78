"""Pools of libraries are watched from outside: what they lend is a lease, cancelled or not."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from contextvars import copy_context
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
import redis.asyncio
import sqlalchemy
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool, QueuePool

from sojourn.events import LeakFound
from sojourn.observe.leaks.adapters import watch
from sojourn.observe.leaks.leases import LEASES, Leases
from sojourn.observe.leaks.places import application
from tests.databases import postgres_server
from tests.observe.leaks.scene import Bench
from tests.server.serving import serving

HERE = str(Path(__file__))
#: More turns of the loop than any of these needs for one use of a pool.
TURNS = range(0, 60, 3)


def function_of(leases: Leases) -> str:
    """Which function of this file holds the only lease."""
    (held,) = leases._held.values()
    frame = application(held.frames)
    assert frame is not None
    assert frame.file == HERE
    return frame.function.rpartition(".")[2]


@asynccontextmanager
async def counting() -> AsyncIterator[Bench]:
    """Leases of this context are counted."""
    bench = Bench()
    LEASES.set(bench.leases)
    yield bench
    assert not any(bench.leases.counts().values())
    assert bench.events == []


async def cancelled_everywhere(use: Callable[[], Awaitable[Any]], leases: Leases) -> None:
    """Cancel a use of a pool after each number of turns: nothing may stay lent."""
    for turns in TURNS:
        task = asyncio.ensure_future(use())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        async with asyncio.timeout(5):
            while any(leases.counts().values()):  # noqa: ASYNC110 - the pool's own clean-up
                await asyncio.sleep(0.001)


# SQLAlchemy


def test_sqlalchemy_counts_what_an_engine_lends_and_names_who_took_it(tmp_path: Path) -> None:
    async def main() -> None:
        async with counting() as bench:
            engine = sqlalchemy.create_engine(f"sqlite:///{tmp_path}/a.db", poolclass=QueuePool)
            forget = watch(engine, name="db")

            def query() -> None:
                with engine.connect() as connection:
                    assert connection.scalar(sqlalchemy.text("select 1")) == 1
                    assert bench.leases.counts() == {"db": 1}
                    assert function_of(bench.leases) == "query"

            query()
            assert bench.leases.counts() == {"db": 0}
            engine.dispose()  # makes another pool, which is watched as well
            query()
            await asyncio.to_thread(query)
            connection = engine.connect()
            connection.invalidate()
            connection.close()
            assert bench.leases.counts() == {"db": 0}
            detached = engine.connect()
            detached.detach()
            assert bench.leases.counts() == {"db": 0}
            detached.close()
            taken = bench.leases.taken["db"]
            forget()
            forget()
            engine.connect().close()
            assert bench.leases.taken["db"] == taken
            engine.dispose()

    asyncio.run(main())


def test_sqlalchemy_async_names_the_coroutine_behind_the_greenlet(tmp_path: Path) -> None:
    async def main() -> None:
        async with counting() as bench:
            engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/a.db", poolclass=AsyncAdaptedQueuePool)
            watch(engine)

            async def query() -> None:
                async with engine.connect() as connection:
                    await connection.execute(sqlalchemy.text("select 1"))
                    assert bench.leases.counts() == {"sqlalchemy": 1}
                    assert function_of(bench.leases) == "query"

            await query()
            await query()
            assert bench.leases.taken == {"sqlalchemy": 2}
            await engine.dispose()

    asyncio.run(main())


def test_sqlalchemy_async_gets_everything_back_wherever_a_use_is_cancelled(tmp_path: Path) -> None:
    async def main() -> None:
        async with counting() as bench:
            engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/a.db", poolclass=AsyncAdaptedQueuePool)
            watch(engine, name="db")

            async def query() -> None:
                async with engine.connect() as connection:
                    await connection.execute(sqlalchemy.text("select 1"))

            await query()
            await cancelled_everywhere(query, bench.leases)
            await engine.dispose()
            await asyncio.sleep(0.3)  # threads of aiosqlite whose opening was cancelled still want the loop

    asyncio.run(main())


# httpx


def test_httpx_counts_an_answer_until_it_is_closed() -> None:
    async def main() -> None:
        async with serving() as served, counting() as bench, httpx.AsyncClient() as client:
            forget = watch(client, name="upstream")
            url = f"http://127.0.0.1:{served.port}/"

            async def ask() -> None:
                async with client.stream("GET", url) as response:
                    assert bench.leases.counts() == {"upstream": 1}
                    assert function_of(bench.leases) == "ask"
                    assert await response.aread() == b"hello"

            await ask()
            assert (await client.get(url)).text == "hello"
            assert bench.leases.counts() == {"upstream": 0}
            await cancelled_everywhere(lambda: client.get(url), bench.leases)
            taken = bench.leases.taken["upstream"]
            forget()
            await client.get(url)
            assert bench.leases.taken == {"upstream": taken}

    asyncio.run(main())


def test_httpx_names_an_answer_that_is_dropped_unclosed() -> None:
    async def main() -> None:
        bench = Bench()
        LEASES.set(bench.leases)

        class Endless(httpx.AsyncByteStream):
            async def __aiter__(self) -> AsyncIterator[bytes]:
                while True:
                    yield b"x"

        transport = httpx.MockTransport(lambda request: httpx.Response(200, stream=Endless()))
        async with httpx.AsyncClient(transport=transport) as client:
            watch(client, name="upstream")

            async def forgets() -> None:
                await client.send(client.build_request("GET", "http://a/"), stream=True)

            await forgets()
            gc.collect()
            bench.advance(2)
            (found,) = bench.seen(LeakFound)
            assert found.what == "upstream"
            assert found.created.startswith(HERE)
            assert found.created.endswith("forgets")

    asyncio.run(main())


def test_httpx_gives_back_what_fails_and_what_is_cancelled() -> None:
    async def main() -> None:
        async with counting() as bench:

            async def slow(request: httpx.Request) -> httpx.Response:
                for _ in range(10):
                    await asyncio.sleep(0)
                if request.url.path == "/fails":
                    raise httpx.ConnectError("refused")
                return httpx.Response(200, text="made whole")

            async with httpx.AsyncClient(transport=httpx.MockTransport(slow)) as client:
                watch(client)
                with pytest.raises(httpx.ConnectError):
                    await client.get("http://a/fails")
                assert bench.leases.counts() == {"httpx": 0}
                await cancelled_everywhere(lambda: client.get("http://a/"), bench.leases)

    asyncio.run(main())


def test_httpx_clients_without_asyncio_are_watched_too() -> None:
    bench = Bench()

    def use() -> None:
        LEASES.set(bench.leases)
        transport = httpx.MockTransport(lambda request: httpx.Response(200, content=iter([b"hello"])))
        with httpx.Client(transport=transport) as client:
            watch(client)
            with client.stream("GET", "http://a/"):
                assert bench.leases.counts() == {"httpx": 1}
            assert client.get("http://a/").text == "hello"

    copy_context().run(use)
    assert bench.leases.taken == {"httpx": 2}
    assert bench.leases.counts() == {"httpx": 0}


# redis


@asynccontextmanager
async def redis_like() -> AsyncIterator[int]:
    """Something that answers each command of RESP2 with +OK; the port it listens on."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                for _ in range(int(line[1:])):
                    size = int((await reader.readline())[1:])
                    await reader.readexactly(size + 2)
                writer.write(b"+OK\r\n")
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def test_redis_counts_commands_and_leaves_subscriptions_alone() -> None:
    async def main() -> None:
        async with counting() as bench, redis_like() as port:
            client = redis.asyncio.Redis(port=port, protocol=2)
            forget = watch(client, name="redis")
            await client.ping()
            assert bench.leases.counts() == {"redis": 0}

            async def pipelines() -> None:
                async with client.pipeline() as pipe:
                    await pipe.watch("a")
                    assert bench.leases.counts() == {"redis": 1}
                    assert function_of(bench.leases) == "pipelines"

            await pipelines()
            pubsub = client.pubsub()
            await pubsub.connect()
            assert bench.leases.counts() == {"redis": 1}
            bench.advance(60)
            assert bench.leases.late() == []
            await pubsub.aclose()
            await cancelled_everywhere(client.ping, bench.leases)
            taken = bench.leases.taken["redis"]
            forget()
            await client.ping()
            assert bench.leases.taken["redis"] == taken
            await client.aclose()

    asyncio.run(main())


# asyncpg


@pytest.fixture(scope="module")
def postgres() -> Iterator[int]:
    """The port of a PostgreSQL of our own."""
    with postgres_server() as port:
        yield port


async def pool_of(port: int) -> Any:
    """A pool of two connections."""
    return await asyncpg.create_pool(host="127.0.0.1", port=port, user="postgres", min_size=1, max_size=2)


def test_asyncpg_counts_what_a_pool_lends(postgres: int) -> None:
    async def main() -> None:
        async with counting() as bench:
            pool = await pool_of(postgres)
            forget = watch(pool, name="pg")
            with pytest.raises(TypeError, match="watched already"):
                watch(pool)

            async def query() -> None:
                async with pool.acquire() as connection:
                    assert await connection.fetchval("select 1") == 1
                    assert bench.leases.counts() == {"pg": 1}
                    assert function_of(bench.leases) == "query"

            await query()
            assert await pool.fetchval("select 2") == 2
            connection = await pool.acquire(timeout=5)
            assert bench.leases.counts() == {"pg": 1}
            await pool.release(connection)
            assert bench.leases.counts() == {"pg": 0}
            assert bench.leases.taken == {"pg": 3}
            forget()
            assert type(pool) is asyncpg.Pool
            await pool.fetchval("select 3")
            assert bench.leases.taken == {"pg": 3}
            await pool.close()

    asyncio.run(main())


def test_asyncpg_gets_everything_back_wherever_a_use_is_cancelled(postgres: int) -> None:
    async def main() -> None:
        async with counting() as bench:
            pool = await pool_of(postgres)
            watch(pool, name="pg")

            async def query() -> None:
                async with pool.acquire() as connection, connection.transaction():
                    await connection.fetchval("select pg_sleep(0.001)")

            await cancelled_everywhere(query, bench.leases)
            await pool.close()

    asyncio.run(main())


def test_what_cannot_be_watched_is_refused_with_what_to_do_instead() -> None:
    with pytest.raises(TypeError, match=r"dict is no pool that can be watched; use sojourn\.lease"):
        watch({})
