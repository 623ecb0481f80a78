"""SQLAlchemy's asynchronous engine with asyncpg against a real PostgreSQL, some behind a proxy that swallows all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from sojourn.clients.sqlalchemy import bounded
from sojourn.errors import DeadlineExceeded, PoolWaitExceeded
from sojourn.scopes.deadline import deadline, remaining
from sojourn.testing.faults import FaultProxy
from tests.clients.scene import budgets, cancelled_everywhere, run, took

PID = text("select pg_backend_pid()")
SLOW = text("select pg_sleep(10)")


DRIVERS = pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])


@asynccontextmanager
async def engine_at(port: int, size: int = 2, *, driver: str = "asyncpg", **options: Any) -> AsyncIterator[Any]:
    """A bounded engine without overflow."""
    plain = "ssl=disable" if driver == "asyncpg" else "sslmode=disable"
    url = f"postgresql+{driver}://postgres@127.0.0.1:{port}/postgres?{plain}"
    engine = bounded(create_async_engine(url, pool_size=size, max_overflow=0, **options), dependency="database")
    try:
        yield engine
    finally:
        await engine.dispose()


async def is_whole(engine: Any, size: int) -> None:
    """All of its connections can be had at once, and each is clean."""
    async with asyncio.timeout(5):
        lent = [await engine.connect() for _ in range(size)]
        for connection in lent:
            assert await connection.scalar(text("select 42")) == 42
            assert await connection.scalar(text("select txid_current_if_assigned() is null"))
        for connection in lent:
            await connection.close()
        assert engine.pool.checkedout() == 0


@DRIVERS
def test_the_server_ends_a_slow_statement_in_time_and_the_connection_survives(postgres: int, driver: str) -> None:
    async def main() -> None:
        async with engine_at(postgres, 1, driver=driver) as engine:

            async def slow() -> None:
                async with deadline(2.0, "orders"), engine.begin() as connection:
                    before.append(await connection.scalar(PID))
                    await connection.execute(SLOW)

            before: list[int] = []
            with took(1.6, 2.5), pytest.raises(DeadlineExceeded) as raised:
                await slow()
            assert (raised.value.deadline, raised.value.seconds) == ("orders", 2.0)
            async with engine.connect() as connection:
                assert await connection.scalar(PID) == before[0]
                assert await connection.scalar(text("show statement_timeout")) == "0"
            await is_whole(engine, 1)

    run(main())


@DRIVERS
def test_a_budget_bounds_each_statement_also_through_a_session(postgres: int, driver: str) -> None:
    async def main() -> None:
        budgets(database=1.5)
        async with engine_at(postgres, 1, driver=driver) as engine:
            async with AsyncSession(engine) as session:
                with took(1.2, 1.95), pytest.raises(DeadlineExceeded, match=r"'database' of 1\.5 s passed"):
                    await session.execute(SLOW)
                await session.rollback()
                assert await session.scalar(text("select 1")) == 1
            async with engine.connect() as connection:
                result = await connection.stream(text("select generate_series(1, 10), pg_sleep(0.01)"))
                assert len([row async for row in result]) == 10
            await is_whole(engine, 1)

    run(main())


@DRIVERS
def test_in_autocommit_the_timeout_does_not_stay_behind(postgres: int, driver: str) -> None:
    async def main() -> None:
        async with engine_at(postgres, 1, isolation_level="AUTOCOMMIT", driver=driver) as engine:
            with took(1.6, 2.5), pytest.raises(DeadlineExceeded):
                async with deadline(2.0, "orders"), engine.connect() as connection:
                    await connection.execute(SLOW)
            async with engine.connect() as connection:
                assert await connection.scalar(text("show statement_timeout")) == "0"

    run(main())


def test_nothing_is_sent_when_no_time_is_left(postgres: int) -> None:
    async def main() -> None:
        async with engine_at(postgres, 1) as engine, engine.connect() as connection:

            async def late() -> None:
                async with deadline(0.01, "orders"):
                    try:
                        await asyncio.sleep(1)
                    finally:
                        assert remaining() == 0.0
                        with pytest.raises(DeadlineExceeded, match="'orders'"):
                            await connection.execute(text("create table not_sent_here (a int)"))

            with pytest.raises(DeadlineExceeded, match="'orders'"):
                await late()
            assert await connection.scalar(text("select to_regclass('not_sent_here') is null"))

    run(main())


def test_a_full_pool_is_told_apart_from_a_slow_statement(postgres: int) -> None:
    async def main() -> None:
        async with engine_at(postgres, 1) as engine:

            async def ask(seconds: float | None) -> None:
                async with deadline(seconds, "orders"), engine.connect():
                    pass

            async with engine.connect() as connection:
                await connection.scalar(PID)
                waited = r"waited for a connection of pool 'database': deadline 'orders' of 0\.05 s passed"
                with took(0.04, 0.30), pytest.raises(PoolWaitExceeded, match=waited):
                    await ask(0.05)
                budgets(database=0.05)
                with took(0.04, 0.30), pytest.raises(PoolWaitExceeded, match="deadline 'database' of"):
                    await ask(None)
            budgets()
            await is_whole(engine, 1)
            await engine.dispose()  # makes another pool, which is bounded as well
            async with engine.connect():
                with pytest.raises(PoolWaitExceeded):
                    await ask(0.05)

    run(main())


@DRIVERS
@pytest.mark.parametrize("inside", ["a statement", "a connect", "a ping", "a commit"])
def test_a_half_open_server_ends_at_the_deadline_and_the_pool_is_back_at_its_size(
    postgres: int, driver: str, inside: str
) -> None:
    most = 0.55 if driver == "asyncpg" else 1.2  # psycopg first asks the server, for half a second

    async def main() -> None:
        async with (
            FaultProxy(("127.0.0.1", postgres)) as proxy,
            engine_at(proxy.address[1], 2, pool_pre_ping=True, driver=driver) as engine,
        ):

            async def use() -> None:
                async with deadline(0.2, "orders"), engine.begin() as connection:
                    await connection.scalar(PID)
                    lost.append(proxy.timeout())
                    if inside != "a commit":
                        await connection.scalar(PID)

            async def ends() -> None:
                with took(0.19, most), pytest.raises(DeadlineExceeded, match="'orders'"):
                    await use()

            lost: list[Any] = []
            if inside == "a ping":
                await is_whole(engine, 2)
            if inside in ("a connect", "a ping"):
                lost.append(proxy.timeout())
            await asyncio.gather(ends(), ends())
            for toxic in lost:
                toxic.remove()
            await is_whole(engine, 2)

    run(main())


def test_a_budget_that_passes_without_the_servers_word_costs_the_connection(postgres: int) -> None:
    async def main() -> None:
        async with FaultProxy(("127.0.0.1", postgres)) as proxy, engine_at(proxy.address[1], 1) as engine:
            budgets(database=0.2)
            async with engine.connect() as connection:
                before = await connection.scalar(PID)
                lost = proxy.timeout()
                with took(0.1, 0.45), pytest.raises(DeadlineExceeded, match="'database'"):
                    await connection.scalar(PID)
            lost.remove()
            await is_whole(engine, 1)
            async with engine.connect() as connection:
                assert await connection.scalar(PID) != before

    run(main())


@DRIVERS
def test_who_is_cancelled_gives_everything_back_clean_wherever_that_is(postgres: int, driver: str) -> None:
    async def main() -> None:
        async with engine_at(postgres, 2, driver=driver) as engine:

            async def use() -> None:
                async with deadline(5, "orders"), engine.begin() as connection:
                    await connection.execute(text("select pg_sleep(0.002)"))
                    await connection.scalar(text("select txid_current()"))

            await use()
            await cancelled_everywhere(use, range(0, 80, 4))
            async with asyncio.timeout(5):
                while engine.pool.checkedout():  # noqa: ASYNC110 - SQLAlchemy's own clean-up
                    await asyncio.sleep(0.001)
            await is_whole(engine, 2)

    run(main())


@DRIVERS
def test_what_is_cut_at_any_moment_never_leaves_an_answer_for_the_next(postgres: int, driver: str) -> None:
    async def main() -> None:
        async with engine_at(postgres, 1, driver=driver) as engine:

            async def use(number: int) -> None:
                async with deadline(0.001 * (number % 12) + 0.0005, "orders"), engine.connect() as connection:
                    assert await connection.scalar(text("select cast(:n as int)"), {"n": number}) == number
                    await connection.scalar(text("select pg_sleep(0.02)"))

            for number in range(40):
                with pytest.raises(DeadlineExceeded):
                    await use(number)
            await is_whole(engine, 1)

    run(main())


def test_a_driver_that_cannot_tell_its_server_is_bounded_all_the_same(tmp_path: Path) -> None:
    async def main() -> None:
        engine = bounded(create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/a.db"), dependency="files")
        async with engine.connect() as connection:
            assert await connection.scalar(text("select 1")) == 1

            async def late() -> None:
                async with deadline(0.005, "report"):
                    try:
                        await asyncio.sleep(1)
                    finally:
                        with pytest.raises(DeadlineExceeded, match="'report'"):
                            await connection.scalar(text("select 1"))

            with pytest.raises(DeadlineExceeded, match="'report'"):
                await late()
        await engine.dispose()

    run(main())


def test_what_is_no_engine_is_refused() -> None:
    with pytest.raises(TypeError, match="dict is no asynchronous engine"):
        bounded({})  # type: ignore[arg-type]
