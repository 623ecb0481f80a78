"""asyncpg against a real PostgreSQL, some of it behind a proxy that swallows what it gets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import asyncpg
import pytest

from sojourn.clients.asyncpg import bounded
from sojourn.errors import DeadlineExceeded, PoolWaitExceeded
from sojourn.scopes.deadline import deadline, remaining
from sojourn.testing.faults import FaultProxy
from tests.clients.scene import budgets, cancelled_everywhere, run, took


@asynccontextmanager
async def pool_at(port: int, size: int = 2, **options: Any) -> AsyncIterator[Any]:
    """A bounded pool, with connections that are made when they are needed."""
    pool = asyncpg.create_pool(
        host="127.0.0.1", port=port, user="postgres", ssl=False, min_size=0, max_size=size, **options
    )
    await bounded(pool, dependency="database")
    try:
        yield pool
    finally:
        pool.terminate()


async def is_whole(pool: Any, size: int) -> None:
    """All of its connections can be had at once, and each is clean."""
    async with asyncio.timeout(5):
        lent = [await pool.acquire() for _ in range(size)]
        for connection in lent:
            assert await connection.fetchval("select 42") == 42
            assert not connection.is_in_transaction()
            assert await connection.fetchval("select txid_current_if_assigned() is null")
        for connection in lent:
            await pool.release(connection)


def test_the_server_ends_a_slow_statement_in_time_and_the_connection_survives(postgres: int) -> None:
    async def main() -> None:
        async with pool_at(postgres, 1) as pool:
            before = await pool.fetchval("select pg_backend_pid()")
            with took(1.6, 2.5), pytest.raises(DeadlineExceeded) as raised:
                async with deadline(2.0, "orders"):
                    await pool.fetchval("select pg_sleep(10)")
            assert (raised.value.deadline, raised.value.seconds) == ("orders", 2.0)
            assert "test_asyncpg.py" in raised.value.where
            assert isinstance(raised.value.__cause__, asyncpg.QueryCanceledError)
            assert await pool.fetchval("select pg_backend_pid()") == before
            assert await pool.fetchval("show statement_timeout") == "0"

    run(main())


def test_in_a_transaction_too_and_it_is_rolled_back(postgres: int) -> None:
    async def main() -> None:
        async with pool_at(postgres, 1) as pool:
            before = await pool.fetchval("select pg_backend_pid()")
            await pool.execute("create table if not exists in_a_transaction (a int)")

            async def use() -> None:
                async with deadline(2.0, "orders"), pool.acquire() as connection, connection.transaction():
                    await connection.execute("insert into in_a_transaction values (1)")
                    async with connection.transaction():
                        await connection.fetch("select pg_sleep(10)")

            with took(1.6, 2.5), pytest.raises(DeadlineExceeded):
                await use()
            assert await pool.fetchval("select pg_backend_pid()") == before
            assert await pool.fetchval("select count(*) from in_a_transaction") == 0
            await is_whole(pool, 1)

    run(main())


def test_a_budget_bounds_each_statement_without_a_deadline_around_it(postgres: int) -> None:
    async def main() -> None:
        budgets(database=1.5)
        async with pool_at(postgres, 1) as pool, pool.acquire() as connection:
            with took(1.2, 1.95), pytest.raises(DeadlineExceeded, match=r"'database' of 1\.5 s passed"):
                await connection.execute("select pg_sleep(10)")
            assert await connection.fetchval("select 1") == 1
            statement = await connection.prepare("select pg_sleep(10)")
            with took(1.2, 1.95), pytest.raises(DeadlineExceeded, match="'database'"):
                await statement.fetch()

            async def read() -> None:
                async with connection.transaction():
                    async for _ in connection.cursor("select pg_sleep(10)"):
                        pass

            with took(1.2, 1.95), pytest.raises(DeadlineExceeded, match="'database'"):
                await read()
            assert await connection.fetchval("select 1") == 1

    run(main())


@pytest.mark.parametrize("inside", [False, True], ids=["alone", "in a transaction"])
def test_a_statement_that_was_prepared_within_a_deadline_is_good_long_after_it(postgres: int, inside: bool) -> None:
    async def main() -> None:
        async with pool_at(postgres, 1) as pool, pool.acquire() as connection, AsyncExitStack() as stack:
            if inside:
                await stack.enter_async_context(connection.transaction())
                await connection.execute("create temporary table kept (a int) on commit drop")
            async with deadline(0.3, "orders"):
                statement = await connection.prepare("select $1::int")
            await asyncio.sleep(0.4)
            async with deadline(5, "orders"):
                assert await statement.fetchval(1) == 1
            assert await statement.fetchval(2) == 2
            if inside:
                assert await connection.fetchval("select count(*) from kept") == 0

    run(main())


class Ending:
    """A protocol whose server ends so many SETs."""

    def __init__(self, protocol: Any, ends: int) -> None:
        self._protocol, self.ends, self.sent = protocol, ends, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._protocol, name)

    async def query(self, query: str, timeout: float | None) -> Any:
        if query.startswith("SET"):
            self.sent += 1
            if self.sent <= self.ends:
                raise asyncpg.QueryCanceledError("canceling statement due to statement timeout")
        return await self._protocol.query(query, timeout)


def test_a_set_that_the_timeout_before_has_ended_is_sent_again(postgres: int) -> None:
    async def main() -> None:
        async with pool_at(postgres, 1) as pool, pool.acquire() as connection:
            await connection.fetchval("select 1")
            guarding = connection._protocol
            guarding._protocol = ending = Ending(guarding._protocol, 2)
            async with deadline(5, "orders"):
                assert await connection.fetchval("select 1") == 1
            assert ending.sent == 3
            ending.ends = 99
            with pytest.raises(asyncpg.QueryCanceledError):
                async with deadline(60, "orders"):
                    await connection.fetchval("select 1")
            assert ending.sent == 6
            with pytest.raises(asyncpg.QueryCanceledError):
                async with deadline(60, "orders"), connection.transaction():
                    await connection.fetchval("select 1")
            assert ending.sent == 7
            ending.ends = 0

    run(main())


def test_copies_are_bounded_too(postgres: int) -> None:
    async def main() -> None:
        async with pool_at(postgres, 1) as pool, pool.acquire() as connection:
            await connection.execute("create temporary table copied (a int)")
            async with deadline(5, "orders"):
                await connection.copy_records_to_table("copied", records=[(number,) for number in range(1000)])
                assert await connection.fetchval("select count(*) from copied") == 1000

            async def slowly() -> AsyncIterator[bytes]:
                while True:
                    yield b"1\n"
                    await asyncio.sleep(0.05)

            async def copy() -> None:
                async with deadline(0.3, "orders"):
                    await connection.copy_to_table("copied", source=slowly())

            with took(0.2, 0.8), pytest.raises(DeadlineExceeded, match="'orders'"):
                await copy()
        assert pool.get_size() <= 1

    run(main())


def test_without_a_cache_of_statements_they_keep_their_place(postgres: int) -> None:
    async def main() -> None:
        async with pool_at(postgres, 1, statement_cache_size=0) as pool, pool.acquire() as connection:
            async with deadline(2, "orders"):
                assert await connection.fetchval("select $1::int + 1", 41) == 42
                statement = await connection.prepare("select $1::int + 1", name="")
                async with deadline(0.2, "tighter"):
                    assert await statement.fetchval(41) == 42
            assert await statement.fetchval(41) == 42
            assert await connection.fetchval("select 1") == 1

    run(main())


def test_many_short_statements_are_one_call_that_is_given_up_with_its_connection(postgres: int) -> None:
    async def main() -> None:
        budgets(database=0.2)
        async with pool_at(postgres, 1) as pool:
            with took(0.15, 0.55), pytest.raises(DeadlineExceeded, match=r"'database' of 0\.2 s passed"):
                # The server's timeout is for each of them: none is slow.
                await pool.executemany("select pg_sleep($1)", [(0.05,)] * 40)
            assert pool.get_size() == 0
            await is_whole(pool, 1)

    run(main())


def test_nothing_is_sent_when_no_time_is_left(postgres: int) -> None:
    async def main() -> None:
        async with pool_at(postgres, 1) as pool, pool.acquire() as connection:
            await connection.execute("create table if not exists not_sent (a int)")

            async def late() -> None:
                async with deadline(0.01, "orders"):
                    try:
                        await asyncio.sleep(1)
                    finally:
                        assert remaining() == 0.0
                        with pytest.raises(DeadlineExceeded, match="'orders'"):
                            await connection.execute("insert into not_sent values (1)")

            with pytest.raises(DeadlineExceeded, match="'orders'"):
                await late()
            assert await connection.fetchval("select count(*) from not_sent") == 0

    run(main())


def test_the_server_is_told_again_only_when_it_has_to_be(postgres: int) -> None:
    async def main() -> None:
        asked = "select setting::int from pg_settings where name = 'statement_timeout'"
        async with pool_at(postgres, 1) as pool, pool.acquire() as connection, deadline(10, "orders"):
            told = await connection.fetchval(asked)
            assert 8000 <= told < 10_000
            for _ in range(20):
                await connection.fetchval("select 1")
            assert await connection.fetchval(asked) == told
            async with deadline(0.5, "tighter"):
                assert 300 <= await connection.fetchval(asked) < 500
            assert 8000 <= await connection.fetchval(asked) < 10_000

    run(main())


def test_a_transaction_that_found_no_time_to_begin_leaves_no_trace(postgres: int) -> None:
    async def main() -> None:
        async with pool_at(postgres, 1) as pool, pool.acquire() as connection:

            async def late() -> None:
                async with deadline(0.005, "orders"):
                    try:
                        await asyncio.sleep(1)
                    finally:
                        await connection.transaction().start()

            with pytest.raises(DeadlineExceeded, match="'orders'"):
                await late()
            async with connection.transaction():
                assert await connection.fetchval("select 1") == 1

    run(main())


def test_a_shorter_timeout_of_the_session_itself_stays(postgres: int) -> None:
    async def main() -> None:
        async with pool_at(postgres, 1, server_settings={"statement_timeout": "100"}) as pool:
            async with deadline(10, "orders"):
                assert await pool.fetchval("show statement_timeout") == "100ms"
                with took(0.08, 0.45), pytest.raises(asyncpg.QueryCanceledError):
                    await pool.fetchval("select pg_sleep(10)")
            with took(0.03, 0.24), pytest.raises(DeadlineExceeded):
                async with deadline(0.06, "orders"):
                    await pool.fetchval("select pg_sleep(10)")
            assert await pool.fetchval("show statement_timeout") == "100ms"

    run(main())


def test_a_full_pool_is_told_apart_from_a_slow_statement(postgres: int) -> None:
    async def main() -> None:
        async with pool_at(postgres, 1) as pool:

            async def ask() -> None:
                async with deadline(0.05, "orders"):
                    await pool.fetchval("select 1")

            async with pool.acquire():
                waited = r"waited for a connection of pool 'database': deadline 'orders' of 0\.05 s passed"
                with took(0.04, 0.3), pytest.raises(PoolWaitExceeded, match=waited):
                    await ask()
                budgets(database=0.05)
                with took(0.04, 0.3), pytest.raises(PoolWaitExceeded, match="deadline 'database' of"):
                    await pool.acquire()
            budgets()
            await is_whole(pool, 1)

    run(main())


@pytest.mark.parametrize("inside", ["a statement", "a transaction", "a connect"])
def test_a_half_open_server_ends_at_the_deadline_and_the_pool_is_back_at_its_size(postgres: int, inside: str) -> None:
    async def main() -> None:
        async with FaultProxy(("127.0.0.1", postgres)) as proxy, pool_at(proxy.address[1], 2) as pool:

            async def use() -> None:
                async with deadline(0.2, "orders"), pool.acquire() as connection, connection.transaction():
                    if inside == "a transaction":
                        await connection.fetchval("select txid_current()")
                    lost.append(proxy.timeout())
                    await connection.fetchval("select 1")

            async def ends() -> None:
                with took(0.19, 0.55), pytest.raises(DeadlineExceeded, match="'orders'"):
                    await use()

            lost: list[Any] = []
            if inside == "a connect":
                lost.append(proxy.timeout())
            await asyncio.gather(ends(), ends())
            assert pool.get_size() == 0
            for toxic in lost:
                toxic.remove()
            await is_whole(pool, 2)
            assert pool.get_size() == 2

    run(main())


def test_a_server_that_hangs_while_a_connection_goes_back_costs_the_connection_and_a_second(postgres: int) -> None:
    async def main() -> None:
        async with FaultProxy(("127.0.0.1", postgres)) as proxy, pool_at(proxy.address[1], 1) as pool:
            with took(0.9, 1.75):
                async with pool.acquire() as connection:
                    assert await connection.fetchval("select 1") == 1
                    lost = proxy.timeout()
            lost.remove()
            await is_whole(pool, 1)

    run(main())


def test_who_is_cancelled_gives_everything_back_clean_wherever_that_is(postgres: int) -> None:
    async def main() -> None:
        async with pool_at(postgres, 2) as pool:

            async def use() -> None:
                async with deadline(5, "orders"), pool.acquire() as connection, connection.transaction():
                    await connection.fetchval("select pg_sleep(0.002)")
                    await connection.fetchval("select txid_current()")

            await use()
            await cancelled_everywhere(use, range(0, 80, 3))
            await is_whole(pool, 2)

    run(main())


def test_what_is_cut_at_any_moment_never_leaves_an_answer_for_the_next(postgres: int) -> None:
    async def main() -> None:
        async with pool_at(postgres, 1) as pool:

            async def use(number: int) -> None:
                async with deadline(0.001 * (number % 12) + 0.0005, "orders"):
                    assert await pool.fetchval("select $1::int", number) == number
                    await pool.fetchval("select pg_sleep(0.01)")

            for number in range(60):
                with pytest.raises(DeadlineExceeded):
                    await use(number)
            await is_whole(pool, 1)

    run(main())


def test_a_connection_without_a_pool_is_bounded_and_closes_in_time(postgres: int) -> None:
    async def main() -> None:
        async with FaultProxy(("127.0.0.1", postgres)) as proxy:
            host, port = proxy.address
            connection = bounded(await asyncpg.connect(host=host, port=port, user="postgres", ssl=False), "database")
            assert await connection.fetchval("select 1") == 1
            with took(1.2, 1.8), pytest.raises(DeadlineExceeded):
                async with deadline(1.5, "orders"):
                    await connection.fetchval("select pg_sleep(10)")
            assert await connection.fetchval("select 1") == 1
            proxy.timeout()
            with took(0.09, 0.45), pytest.raises(DeadlineExceeded):
                async with deadline(0.1, "orders"):
                    await connection.fetchval("select 1")
            with pytest.raises(asyncpg.InterfaceError, match="was cut when a deadline passed"):
                await connection.fetchval("select 1")
            with took(0.0, 0.25):
                await connection.close()

    run(main())


def test_what_is_no_pool_is_refused() -> None:
    with pytest.raises(TypeError, match="dict is neither a pool nor a connection of asyncpg"):
        bounded({})
