"""A claim reads what it takes, whatever else there is, and never spins on what others hold."""

from __future__ import annotations

from sojourn.tasks.journal import Query, Want
from sojourn.tasks.postgres.statements import SETTINGS, Statements
from sojourn.tasks.record import NewTask, Settlement
from tests.tasks.postgres.scene import Scene, ident, run


def test_what_is_not_due_or_not_known_is_not_read(postgres: int) -> None:
    async def main() -> None:
        async with Scene(postgres) as scene:
            journal = scene.journal()
            await journal.open("n")
            for kind, priority, delay in (("k", 5, 1000.0), ("other", 0, 0.0), ("k", -5, 0.0)):
                await scene.sql.execute(
                    f"INSERT INTO {scene.schema}.tasks (id, kind, priority, run_at, state, created, updated, keep, "
                    f"owner, key, fingerprint, payload, spec) SELECT '{kind}{priority}-' || n, '{kind}', {priority}, "
                    f"extract(epoch FROM now()) + {delay} + n * 1e-6, 'pending', 0, 0, 1, '', '', '', '', '' "
                    "FROM generate_series(1, 5000) n"
                )
            for name, value in SETTINGS.items():
                await scene.sql.execute(f"SET {name} = {value}")
            claim = Statements(scene.schema).claim
            await scene.sql.execute(f"PREPARE claim (int[], text[], int[], text, float8, int) AS {claim}")
            asked = "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE claim ('{0}', '{k}', '{10}', 'n', 30, 10)"
            plan = str(await scene.sql.fetchval(asked))
            read = int(plan.split('"Shared Hit Blocks": ')[1].split(",")[0])
            assert read < 200
            assert "Seq Scan" not in plan
            found = await journal.claim("n", [Want(("k",), 10)], 30.0)
            assert len(found.claims) == 10
            assert {claim.kind for claim in found.claims} == {"k"}

    run(main)


def test_what_somebody_has_locked_is_left_to_him_and_asked_for_later(postgres: int) -> None:
    async def main() -> None:
        async with Scene(postgres) as scene:
            journal = scene.journal()
            for _ in range(2):
                await journal.submit([NewTask(id=ident(), kind="k")])
            async with scene.sql.transaction():
                await scene.sql.fetch(f"SELECT 1 FROM {scene.schema}.tasks ORDER BY run_at LIMIT 1 FOR UPDATE")
                assert len((await journal.claim("n", [Want(("k",), 1)], 30.0)).claims) == 1
                found = await journal.claim("n", [Want(("k",), 1)], 30.0)
                assert not found.claims
                assert found.after is not None
                assert 0.01 < found.after < 0.2
            assert len((await journal.claim("n", [Want(("k",), 1)], 30.0)).claims) == 1

    run(main)


def test_what_follows_a_run_that_does_not_count_is_not_submitted_with_one_that_does(postgres: int) -> None:
    async def main() -> None:
        async with Scene(postgres) as scene:
            journal = scene.journal()
            new = NewTask(id=ident(), kind="k", node="n", lease=30.0)
            await journal.submit([new])
            right, wrong = NewTask(id=ident(), kind="then"), NewTask(id=ident(), kind="then")
            said = [
                Settlement(id=new.id, epoch=2, outcome="completed", then=(wrong,)),
                Settlement(id=new.id, epoch=1, outcome="completed", then=(right,)),
            ]
            assert await journal.settle(said) == [False, True]
            assert await journal.get(right.id) is not None
            assert await journal.get(wrong.id) is None

    run(main)


def test_a_page_after_a_task_that_is_gone_is_found_by_its_id(postgres: int) -> None:
    async def main() -> None:
        async with Scene(postgres) as scene:
            journal = scene.journal()
            ids = [ident() for _ in range(4)]
            for each in ids:
                await journal.submit([NewTask(id=each, kind="k")])
            await scene.sql.execute(f"DELETE FROM {scene.schema}.tasks WHERE id = $1", ids[2])
            assert [task.id for task in await journal.list(Query(before=ids[2]))] == [ids[1], ids[0]]

    run(main)
