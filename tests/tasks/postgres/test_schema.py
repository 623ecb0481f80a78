"""Tables are made once, by whoever may; what does not fit is said at the beginning."""

from __future__ import annotations

import asyncio
from secrets import token_hex
from typing import Any

import asyncpg
import pytest

from sojourn.errors import ConfigError, JournalUnavailable
from sojourn.tasks.postgres.journal import PostgresJournal
from sojourn.tasks.postgres.schema import DDL, VERSION, ddl
from sojourn.tasks.record import NewTask
from tests.databases import free_port
from tests.tasks.postgres.scene import Scene, ident, run


def test_nodes_that_start_together_make_the_tables_once(postgres: int) -> None:
    async def main() -> None:
        async with Scene(postgres) as scene:
            journals = [scene.journal() for _ in range(8)]
            await asyncio.gather(*[journal.open(f"n{index}") for index, journal in enumerate(journals)])
            asked = f"SELECT array_agg(version) FROM {scene.schema}.task_version"
            assert await scene.sql.fetchval(asked) == [VERSION]

    run(main)


def test_who_may_not_make_tables_is_told_how_they_are_made_and_then_needs_no_more(postgres: int) -> None:
    async def main() -> None:
        async with Scene(postgres) as scene:
            await scene.sql.execute("CREATE ROLE modest LOGIN")
            try:
                dsn = scene.dsn().replace("postgres@", "modest@")
                journal = PostgresJournal(dsn, schema=scene.schema)
                with pytest.raises(ConfigError, match="may not make them"):
                    await journal.open("n")
                with pytest.raises(JournalUnavailable, match="may not make them"):
                    await journal.get("nothing")
                await scene.sql.execute(ddl(scene.schema))
                await scene.sql.execute(f"GRANT USAGE ON SCHEMA {scene.schema} TO modest")
                rights = f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {scene.schema} TO modest"
                await scene.sql.execute(rights)
                await journal.open("n")
                (done,) = await journal.submit([NewTask(id=ident(), kind="k")])
                assert done.new
                await journal.aclose()
            finally:
                await scene.sql.execute("DROP OWNED BY modest")
                await scene.sql.execute("DROP ROLE modest")

    run(main)


def test_tables_of_a_newer_version_are_left_alone(postgres: int) -> None:
    async def main() -> None:
        async with Scene(postgres) as scene:
            await scene.journal().open("n")
            await scene.sql.execute(f"INSERT INTO {scene.schema}.task_version VALUES ({VERSION + 1})")
            with pytest.raises(ConfigError, match="update it"):
                await scene.journal().open("n")

    run(main)


def test_tables_that_have_gone_are_made_again(postgres: int) -> None:
    async def main() -> None:
        async with Scene(postgres) as scene:
            journal = scene.journal()
            await journal.open("n")
            await scene.sql.execute(f"DROP SCHEMA {scene.schema} CASCADE")
            (done,) = await journal.submit([NewTask(id=ident(), kind="k")])
            assert done.new

    run(main)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (("/postgres?", "/nothing?"), ConfigError),
        (("postgres@", "nobody@"), ConfigError),
        (("127.0.0.1:", "127.0.0.1:a"), ConfigError),
        (("postgresql:", "mysql:"), ConfigError),
        (("127.0.0.1", "nowhere.invalid"), JournalUnavailable),
    ],
)
def test_a_wrong_address_is_said_to_be_wrong(postgres: int, change: tuple[str, str], error: Any) -> None:
    async def main() -> None:
        journal = PostgresJournal(Scene(postgres).dsn().replace(*change))
        with pytest.raises(error):
            await journal.open("n")
        await journal.aclose()

    run(main)


def test_a_server_that_is_not_there_yet_is_awaited_by_who_opens(postgres: int) -> None:
    async def main() -> None:
        journal = Scene(free_port()).journal()
        with pytest.raises(JournalUnavailable, match="refused"):
            await journal.open("n")
        await journal.aclose()
        await journal.aclose()

    run(main)


@pytest.mark.parametrize("name", ["", "Shop", "a.b", "a; DROP TABLE x", "1a", "x" * 41])
def test_a_schema_has_a_plain_name(name: str) -> None:
    with pytest.raises(ConfigError):
        PostgresJournal("postgresql://localhost/x", schema=name)


def test_the_statements_can_be_printed() -> None:
    assert "CREATE TABLE IF NOT EXISTS sojourn.tasks" in DDL
    assert "CREATE TABLE IF NOT EXISTS shop.tasks" in ddl("shop")


def test_a_pool_of_the_applications_is_used_and_stays_whole(postgres: int) -> None:
    async def main() -> None:
        async with Scene(postgres) as scene, asyncpg.create_pool(scene.dsn(), min_size=0, max_size=2) as pool:
            journal = PostgresJournal(pool, schema=scene.schema)
            ears = await scene.ears(journal)
            (done,) = await journal.submit([NewTask(id=ident(), kind="k")])
            await ears.until(lambda ears: ears.dues > 0, "who listens is not told")
            using = asyncio.ensure_future(journal.submit([NewTask(id=ident(), kind="k")]))
            await asyncio.sleep(0)
            using.cancel()
            await asyncio.gather(using, return_exceptions=True)
            assert (await journal.get(done.id)) is not None
            await scene.close()
            await journal.aclose()
            with pytest.raises(JournalUnavailable):
                await journal.get(done.id)
            async with asyncio.timeout(5):
                lent = [await pool.acquire() for _ in range(2)]
                assert [await connection.fetchval("SELECT 1") for connection in lent] == [1, 1]
                for connection in lent:
                    await pool.release(connection)

    run(main)


@pytest.mark.parametrize("text", ["a\x00b", "\ud800"])
def test_what_can_not_be_written_harms_only_who_asks_for_it(postgres: int, text: str) -> None:
    async def main() -> None:
        async with Scene(postgres) as scene:
            journal = scene.journal()
            for new in (NewTask(id=ident(), kind=text), NewTask(id=ident(), kind="k", owner="ann", key=text)):
                with pytest.raises(ValueError, match="can't be written"):
                    await journal.submit([new])
            with pytest.raises(ValueError, match="can't be written"):
                await journal.submit([NewTask(id=ident(), kind="k", key=token_hex(50_000))])
            with pytest.raises(ValueError, match="can't be written"):
                await journal.submit([NewTask(id=ident(), kind="k", priority=2**40)])
            assert await journal.get(text) is None
            assert await journal.read(text, 0) is None
            assert await journal.cancel(text) is None
            assert await journal.retry(text) is None

    run(main)
