"""PostgreSQL goes away, comes back, hangs, refuses: calls end in time, and nothing that was answered is lost."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

import pytest

from sojourn.errors import DeadlineExceeded, JournalUnavailable
from sojourn.scopes.deadline import deadline
from sojourn.tasks.journal import Query, Want
from sojourn.tasks.postgres.journal import PostgresJournal
from sojourn.tasks.record import NewTask, Progress, Settlement
from sojourn.testing.faults import FaultProxy
from sojourn.testing.task_journal import Ears
from tests.clients.scene import budgets, cancelled_everywhere, took
from tests.databases import PostgresServer
from tests.tasks.postgres.scene import Scene, ident, run, until


class Load:
    """Somebody who submits, claims and settles as fast as it goes, and takes note of what was answered.

    Attributes:
        submitted: Ids.
        settled: Ids.
        away: How often the journal was away.
    """

    def __init__(self, journal: PostgresJournal) -> None:
        self.journal = journal
        self.submitted: set[str] = set()
        self.settled: set[str] = set()
        self.away = 0
        self.over = False

    async def go(self) -> None:
        """Until it is over."""
        while not self.over:
            try:
                await self.submit()
                await self.work()
            except JournalUnavailable:
                self.away += 1
                await asyncio.sleep(0.01)

    async def submit(self) -> None:
        """Submit some."""
        news = [NewTask(id=ident(), kind="k") for _ in range(5)]
        self.submitted.update(done.id for done in await self.journal.submit(news))

    async def work(self, most: int = 5) -> None:
        """Settle what can be claimed."""
        claims = (await self.journal.claim("n", [Want(("k",), most)], 0.5)).claims
        said = [Settlement(id=claim.id, epoch=claim.epoch, outcome="completed", result=b"1") for claim in claims]
        for each, counted in zip(said, await self.journal.settle(said), strict=True):
            if counted:
                assert each.id not in self.settled, "completed twice"
                self.settled.add(each.id)


async def finish(loads: list[Load]) -> None:
    """All that was answered is there, and can be completed."""
    journal = loads[0].journal

    async def nothing_left() -> bool:
        await loads[0].work(100)
        counts = (await journal.counts()).states.get("k", {})
        return counts.get("running", 0) == 0 and counts.get("pending", 0) == 0

    await until(nothing_left)
    done = {task.id for task in await journal.list(Query(states=("completed",), limit=100_000))}
    assert all(load.submitted | load.settled <= done for load in loads)


async def loaded(journal: PostgresJournal, disturb: Any) -> list[Load]:
    """Put a journal under load while something is done to the server."""
    loads = [Load(journal) for _ in range(3)]
    going = [asyncio.ensure_future(load.go()) for load in loads]
    try:
        await disturb()
    finally:
        for load in loads:
            load.over = True
        await asyncio.gather(*going)
    return loads


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT], ids=["stopped", "crashed"])
def test_a_restart_under_load_loses_nothing_that_was_answered(server: PostgresServer, how: signal.Signals) -> None:
    async def main() -> None:
        async with Scene(server.port) as scene:
            journal = scene.journal()
            await journal.open("n")
            ears = await scene.ears(journal)

            async def restart() -> None:
                await asyncio.sleep(0.15)
                await asyncio.to_thread(server.stop, how)
                with took(0.0, 0.3), pytest.raises(JournalUnavailable):
                    await journal.get("nothing")
                await asyncio.to_thread(server.start)
                await asyncio.sleep(0.2)

            try:
                loads = await loaded(journal, restart)
            finally:
                server.start()
            assert sum(load.away for load in loads) > 0
            await finish(loads)
            await ears.until(lambda ears: ears.misses > 1, "who listens is not told that it may have missed something")
            assert ears.aways > 0

    run(main)


def test_connections_that_are_terminated_are_made_again_and_nothing_is_lost(postgres: int) -> None:
    async def main() -> None:
        async with Scene(postgres) as scene:
            journal = scene.journal()
            await journal.open("n")
            ears = await scene.ears(journal)

            async def terminate() -> None:
                for _ in range(5):
                    await asyncio.sleep(0.05)
                    await scene.terminate()

            await finish(await loaded(journal, terminate))
            await ears.until(lambda ears: ears.misses > 1, "who listens is not told")
            assert await scene.sessions() <= 6

    run(main)


def test_a_connection_that_was_lost_while_it_was_idle_is_no_error(postgres: int) -> None:
    async def main() -> None:
        async with Scene(postgres) as scene:
            journal = scene.journal()
            new = NewTask(id=ident(), kind="k", node="n", lease=30.0)
            await journal.submit([new])
            for call in (
                lambda: journal.submit([NewTask(id=ident(), kind="k")]),
                lambda: journal.beat("n", [(new.id, 1)], 30.0),
                lambda: journal.settle([Settlement(id=new.id, epoch=1, outcome="completed")]),
                lambda: journal.get(new.id),
            ):
                await scene.terminate()
                await call()

    run(main)


def test_a_server_that_takes_no_connection_is_tried_once_for_each_call(postgres: int) -> None:
    async def main() -> None:
        tried = []

        async def refused() -> Any:
            tried.append(1)
            raise ConnectionRefusedError("connect call failed")

        journal = PostgresJournal(f"postgresql://postgres@127.0.0.1:{postgres}/postgres")
        journal._pool._connect = refused  # type: ignore[union-attr]
        with pytest.raises(JournalUnavailable, match="connect call failed"):
            await journal.get("nothing")
        assert len(tried) == 1
        await journal.aclose()

    run(main)


def test_a_server_that_is_not_heard_of_any_more_is_given_up_in_time(postgres: int) -> None:
    async def main() -> None:
        async with Scene(postgres) as scene, FaultProxy(("127.0.0.1", postgres)) as proxy:
            journal = scene.journal(proxy.address[1])
            new = NewTask(id=ident(), kind="k")
            await journal.submit([new])
            budgets(tasks=0.15)
            hole = proxy.timeout()
            for call in (
                lambda: journal.submit([NewTask(id=ident(), kind="k")]),
                lambda: journal.claim("n", [Want(("k",), 5)], 30.0),
                lambda: journal.append([Progress(new.id, 1, b"1")]),
            ):
                with took(0.1, 0.6), pytest.raises(JournalUnavailable, match=r"has not answered in 0\.15 s"):
                    await call()
            with took(0.03, 0.3), pytest.raises(DeadlineExceeded, match="mine"):  # whoever asks may have less time
                async with deadline(0.05, "mine"):
                    await journal.get(new.id)
            hole.remove()
            budgets(tasks=5.0)
            assert (await journal.get(new.id)) is not None

    run(main)


def test_who_listens_to_a_server_that_has_vanished_is_told(postgres: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sojourn.tasks.postgres.link._QUIET", 0.06)
    monkeypatch.setattr("sojourn.tasks.postgres.link._ANSWER", 0.2)
    monkeypatch.setattr("sojourn.tasks.postgres.link._CONNECT", 0.2)

    async def main() -> None:
        async with Scene(postgres) as scene, FaultProxy(("127.0.0.1", postgres)) as proxy:
            far, near = scene.journal(proxy.address[1]), scene.journal()
            await near.open("n")
            ears = await scene.ears(far)
            await asyncio.sleep(0.2)  # it is asked some times, and answers
            assert (ears.misses, ears.aways) == (1, 0)
            ears.clear()
            hole = proxy.timeout()
            async with asyncio.timeout(5):
                while not ears.aways:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            hole.remove()
            await ears.until(lambda ears: ears.misses > 0, "it does not listen again")
            ears.clear()
            await near.submit([NewTask(id=ident(), kind="k")])
            await ears.until(lambda ears: ears.dues > 0, "it is not told any more")

    run(main)


def test_a_standby_can_not_be_written_to_and_says_so(postgres: int) -> None:
    async def main() -> None:
        async with Scene(postgres) as scene:
            journal = scene.journal()
            await journal.open("n")
            standby = PostgresJournal(scene.dsn() + "&default_transaction_read_only=on", schema=scene.schema)
            with pytest.raises(JournalUnavailable, match="read-only"):
                await standby.submit([NewTask(id=ident(), kind="k")])
            assert await standby.get("nothing") is None
            await standby.aclose()

    run(main)


def test_too_many_connections_are_said_to_be_too_many(postgres: int) -> None:
    async def main() -> None:
        async with Scene(postgres) as scene:
            await scene.sql.execute("CREATE ROLE few LOGIN CONNECTION LIMIT 0")
            try:
                journal = PostgresJournal(scene.dsn().replace("postgres@", "few@"), schema=scene.schema)
                with pytest.raises(JournalUnavailable, match="too many connections"):
                    await journal.get("nothing")
                await journal.aclose()
            finally:
                await scene.sql.execute("DROP ROLE few")

    run(main)


def test_who_is_cancelled_leaves_no_connection_behind(postgres: int) -> None:
    async def main() -> None:
        async with Scene(postgres) as scene:
            journal = scene.journal(connections=2)
            await journal.open("n")
            new = NewTask(id=ident(), kind="k", node="n", lease=30.0)

            async def use() -> None:
                await journal.submit([new])
                await journal.append([Progress(new.id, 1, b"1")])
                await journal.claim("n", [Want(("none",), 1)], 30.0)
                await journal.settle([Settlement(id=new.id, epoch=1, outcome="completed")])

            await cancelled_everywhere(use, range(40))
            many = [asyncio.ensure_future(use()) for _ in range(10)]  # most of them wait for a connection
            await asyncio.sleep(0.002)
            for task in many[::2]:
                task.cancel()
            await asyncio.gather(*many, return_exceptions=True)
            async with asyncio.timeout(5):
                await asyncio.gather(*[use() for _ in range(4)])
            assert journal._pool.open <= 2
            await scene.close()

    run(main)


def test_listening_can_be_ended_at_any_moment(postgres: int) -> None:
    async def main() -> None:
        async with Scene(postgres) as scene:
            journal = scene.journal()
            await cancelled_everywhere(lambda: journal.listen(Ears()), range(0, 40, 3))
            await scene.close()

    run(main)


def test_what_waits_for_a_lock_is_ended_by_the_server_too(postgres: int) -> None:
    async def main() -> None:
        async with Scene(postgres) as scene:
            await scene.journal().submit([NewTask(id="one", kind="k")])
            await scene.close()
            budgets(tasks=0.15)
            journal = scene.journal()
            await journal.open("n")
            async with scene.sql.transaction():
                await scene.sql.execute(f"LOCK TABLE {scene.schema}.tasks")
                for _ in range(2):
                    with took(0.1, 0.6), pytest.raises(JournalUnavailable):
                        await journal.submit([NewTask(id=ident(), kind="k")])

                async def given_up() -> bool:  # nobody waits any more
                    return await scene.sessions() == 0

                await until(given_up, 2.0)
            budgets(tasks=5.0)
            assert await journal.get("one") is not None

    run(main)
