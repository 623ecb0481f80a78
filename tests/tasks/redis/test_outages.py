"""A Redis that is away, full, read-only or new: calls end in time, and nothing that was acknowledged is lost."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import BlockingConnectionPool, Redis

from sojourn.errors import DeadlineExceeded, JournalUnavailable
from sojourn.scopes.deadline import deadline
from sojourn.scopes.work import attend
from sojourn.tasks.journal import Query, Want
from sojourn.tasks.record import Claim, Progress, Settlement
from sojourn.tasks.redis.journal import RedisJournal
from sojourn.testing.faults import FaultProxy
from sojourn.testing.task_recorder import Ears
from tests.databases import RedisServer, free_port
from tests.databases import redis_server as running
from tests.tasks.redis.scene import WANT, consistent, hurried, journal_at, kept, new, play

Call = Callable[[], Coroutine[Any, Any, Any]]


def calls(journal: RedisJournal, claim: Claim) -> dict[str, Call]:
    """Each call of a journal, with arguments for which it has something to do."""
    done = Settlement(id=claim.id, epoch=claim.epoch, outcome="completed")
    return {
        "submit": lambda: journal.submit([new()]),
        "claim": lambda: journal.claim("n", WANT, 30.0),
        "beat": lambda: journal.beat("n", [(claim.id, claim.epoch)], 30.0),
        "append": lambda: journal.append([Progress(claim.id, claim.epoch, b"1")]),
        "settle": lambda: journal.settle([done]),
        "cancel": lambda: journal.cancel(claim.id),
        "retry": lambda: journal.retry(claim.id),
        "get": lambda: journal.get(claim.id),
        "read": lambda: journal.read(claim.id, 0),
        "list": lambda: journal.list(Query()),
        "counts": lambda: journal.counts(),
        "sweep": lambda: journal.sweep(),
    }


async def begun(journal: RedisJournal) -> Claim:
    """A task that runs, and one that is due."""
    await journal.open("n")
    await journal.submit([new(), new("other")])
    return (await journal.claim("n", [Want(("k",), 1)], 30.0)).claims[0]


async def heard(journal: RedisJournal) -> tuple[Ears, asyncio.Task[None]]:
    ears = Ears()
    task = attend(journal.listen(ears), "listen")
    await until(lambda: ears.misses == 1)
    return ears, task


async def until(right: Callable[[], Any]) -> None:
    async with asyncio.timeout(5):
        while not right():  # noqa: ASYNC110 - what it waits for has no event
            await asyncio.sleep(0.005)


async def ended(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


def test_what_was_acknowledged_outlives_a_kill_of_redis(tmp_path: Path) -> None:
    options = ("--appendonly", "yes", "--appendfsync", "always", "--dir", str(tmp_path))

    async def main(server: RedisServer) -> None:
        hurried(1.0)
        journal = journal_at(server.url)
        submitted: set[str] = set()
        completed: set[str] = set()
        going = True

        async def work(node: str) -> None:
            while going:
                tasks = [new() for _ in range(5)]
                try:
                    submitted.update(done.id for done in await journal.submit(tasks))
                    claims = (await journal.claim(node, WANT, 0.3)).claims
                    said = [Settlement(id=each.id, epoch=each.epoch, outcome="completed") for each in claims]
                    right = await journal.settle(said)
                    completed.update(each.id for each, counts in zip(claims, right, strict=True) if counts)
                except JournalUnavailable:
                    await asyncio.sleep(0.01)

        ears, ear = await heard(journal)
        workers = [attend(work(f"n{index}"), "work") for index in range(3)]
        for _ in range(2):
            ears.clear()
            await asyncio.sleep(0.1)
            server.stop()  # kill -9
            await until(lambda: ears.aways)
            server.start()
            await until(lambda: ears.misses)
        going = False
        await asyncio.wait(workers)
        for worker in workers:
            worker.result()
        client: Any = Redis.from_url(server.url)
        await consistent(client, journal._prefix)
        there = {task.id: task.state for task in await journal.list(Query(limit=100_000))}
        assert len(submitted) > 50
        assert submitted <= set(there)
        assert completed
        assert {there[ident] for ident in completed} == {"completed"}
        await ended(ear)
        await client.aclose()
        await journal.aclose()

    with running(*options) as server:
        play(main(server))


def test_connections_that_are_killed_are_made_anew(redis_server: RedisServer) -> None:
    async def main() -> None:
        journal = journal_at(redis_server.url)
        client: Any = Redis.from_url(redis_server.url)
        ears, ear = await heard(journal)
        written: list[str] = []
        for turn in range(5):
            ears.clear()
            task = new()

            async def submit(task: Any = task) -> None:
                for _ in range(3):
                    try:
                        written.extend(done.id for done in await journal.submit([task]))
                    except JournalUnavailable:
                        continue
                    return

            asking = [attend(submit(), "submit") for _ in range(3)]
            await asyncio.sleep(random.uniform(0, 0.003))
            for kind in ("normal", "pubsub"):
                await client.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
            await asyncio.wait(asking)
            await until(lambda: ears.misses)
            assert set(written) == {task.id for task in await journal.list(Query())}
            assert len(set(written)) == turn + 1
        ears.clear()
        await journal.claim("n", WANT, 30.0)
        await journal.submit([new()])
        await until(lambda: ears.dues)
        await ended(ear)
        await client.aclose()
        await journal.aclose()

    play(main())


def test_a_redis_that_does_not_answer_is_unavailable_in_time(redis_server: RedisServer) -> None:
    async def main() -> None:
        async with FaultProxy(("127.0.0.1", redis_server.port)) as proxy:
            journal = journal_at(f"redis://127.0.0.1:{proxy.address[1]}")
            claim = await begun(journal)
            hurried(0.05)
            hole = proxy.timeout()
            for name, call in calls(journal, claim).items():
                began = time.monotonic()
                with pytest.raises(JournalUnavailable, match=r"has not answered in 0\.05 s"):
                    await call()
                assert time.monotonic() - began < 2.5, name
            with pytest.raises(DeadlineExceeded, match="handler"):  # the caller's own, which is no outage
                async with deadline(0.02, "handler"):
                    await journal.get(claim.id)
            hole.remove()
            proxy.cut()
            hurried(2.0)
            for name, call in calls(journal, claim).items():
                assert await call() is not None, name
            await journal.aclose()

    play(main())


def test_a_listener_is_told_of_a_redis_that_fell_silent(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sojourn.tasks.redis.ears._QUIET", 0.05)
    monkeypatch.setattr("sojourn.tasks.redis.ears._PONG", 0.1)

    async def main() -> None:
        hurried(0.2)
        async with FaultProxy(("127.0.0.1", redis_server.port)) as proxy:
            journal = journal_at(f"redis://127.0.0.1:{proxy.address[1]}")
            ears, ear = await heard(journal)
            await asyncio.sleep(0.3)
            assert (ears.misses, ears.aways) == (1, 0)  # quiet, and it answers
            proxy.timeout()
            await until(lambda: ears.aways)
            proxy.clear()
            proxy.cut()
            await until(lambda: ears.misses == 2)
            await ended(ear)
            assert ear.cancelled()
            await journal.aclose()

    play(main())


@pytest.mark.parametrize("stale", ["yes", "no"])
def test_a_replica_changes_nothing_and_after_its_promotion_all_goes_on(stale: str, tmp_path: Path) -> None:
    async def main(server: RedisServer) -> None:
        journal = journal_at(server.url)
        claim = await begun(journal)
        client: Any = Redis.from_url(server.url)
        before = await consistent(client, journal._prefix)
        await client.config_set("replica-serve-stale-data", stale)
        await client.execute_command("REPLICAOF", "127.0.0.1", str(free_port()))
        for name, call in calls(journal, claim).items():
            if stale == "no" or name not in ("get", "read", "list", "counts", "sweep", "retry"):
                with pytest.raises(JournalUnavailable, match=r"ReadOnlyError|MASTERDOWN|MasterDown"):
                    await call()
        await client.execute_command("REPLICAOF", "NO", "ONE")
        assert await consistent(client, journal._prefix) == before
        for name, call in calls(journal, claim).items():
            assert await call() is not None, name
        await client.aclose()
        await journal.aclose()

    with running("--dir", str(tmp_path)) as server:
        play(main(server))


def test_without_memory_nothing_begins_and_what_runs_is_ended() -> None:
    async def main(server: RedisServer) -> None:
        journal = journal_at(server.url)
        claim = await begun(journal)
        await journal.submit([over := new(keep=0.0, delay=50.0), later := new(delay=0.01)])
        await journal.cancel(over.id)
        client: Any = Redis.from_url(server.url)
        before = await consistent(client, journal._prefix)
        await asyncio.sleep(0.02)
        await client.config_set("maxmemory", "1mb")
        another = RedisJournal(server.url, prefix=journal._prefix)
        await another.open("another")
        await another.aclose()
        said = calls(journal, claim)
        for name in ("submit", "claim", "append"):
            with pytest.raises(JournalUnavailable, match="OutOfMemory"):
                await said[name]()
            assert await consistent(client, journal._prefix) == before, name
        beat = await journal.beat("n", [(claim.id, claim.epoch)], 30.0)
        assert not beat.lost
        assert await journal.settle([Settlement(id=claim.id, epoch=1, outcome="handover", checkpoint=b"1")]) == [True]
        assert await journal.sweep() == 1
        assert await journal.cancel(later.id) is not None
        await consistent(client, journal._prefix)
        await client.config_set("maxmemory", "0")
        assert {each.checkpoint for each in (await journal.claim("n", WANT, 30.0)).claims} == {b"1", b""}
        await client.aclose()
        await journal.aclose()

    with running() as server:
        play(main(server))


def test_replicas_have_what_is_acknowledged(
    redis_server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sojourn.tasks.redis.journal.SECONDS", 3.0)

    async def main(replica: RedisServer) -> None:
        client, second = Redis.from_url(redis_server.url), Redis.from_url(replica.url)
        alone = journal_at(redis_server.url, replicas=2)
        hurried(5.0)
        await client.config_set("repl-diskless-sync-delay", 0)
        await until_async(lambda: _counted(client))
        journal = journal_at(redis_server.url, replicas=1)
        for _ in range(2):
            await journal.submit([task := new()])
            assert await second.exists(f"{journal._prefix}t:{task.id}")
            await client.script_flush()
        (claim, _) = (await journal.claim("n", WANT, 30.0)).claims
        assert await journal.settle([Settlement(id=claim.id, epoch=1, outcome="completed", result=b"1")]) == [True]
        assert await second.hget(f"{journal._prefix}t:{claim.id}", "r") == b"1"
        await client.script_flush()
        with pytest.raises(JournalUnavailable, match="1 replicas have it, and 2 should"):
            await alone.submit([task := new()])
        assert await alone.get(task.id) is not None  # which may be: it is to be said again
        for each in (client, second, journal, alone):
            await each.aclose()

    options = ("--replicaof", "127.0.0.1", str(redis_server.port), "--dir", str(tmp_path))
    with running(*options) as replica:
        play(main(replica))


async def _counted(client: Redis) -> bool:
    """Whether its primary takes the replica's word: only after a first one, up to a second after the replica is up."""
    return bool((await client.info("replication")).get("slave0", {}).get("state") == "online")


async def until_async(right: Callable[[], Coroutine[Any, Any, bool]]) -> None:
    while not await right():  # noqa: ASYNC110 - what it waits for has no event
        await asyncio.sleep(0.01)


def test_a_redis_that_has_forgotten_all_begins_anew(redis_server: RedisServer) -> None:
    async def main() -> None:
        journal = journal_at(redis_server.url)
        claim = await begun(journal)
        client: Any = Redis.from_url(redis_server.url)
        for name in await kept(client, journal._prefix):
            await client.delete(journal._prefix + name)
        await client.script_flush()
        assert (await journal.beat("n", [(claim.id, claim.epoch)], 30.0)).lost == {claim.id}
        assert await journal.settle([Settlement(id=claim.id, epoch=1, outcome="completed")]) == [False]
        assert await journal.get(claim.id) is None
        await journal.submit([new()])
        await consistent(client, journal._prefix)
        await client.aclose()
        await journal.aclose()

    play(main())


def test_who_stops_waiting_leaves_no_connection_in_use(redis_server: RedisServer) -> None:
    async def main() -> None:
        client: Any = Redis.from_url(redis_server.url)
        journal = journal_at(client)
        claim = await begun(journal)
        for turns in range(12):
            for name, call in calls(journal, claim).items():
                task = attend(call(), "call")
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.wait((task,))
                assert task.cancelled() or task.exception() is None, name
        listening = attend(journal.listen(Ears()), "listen")
        await asyncio.sleep(0.05)
        await ended(listening)
        pool: Any = client.connection_pool
        assert not pool._in_use_connections
        assert journal._slots._value == 16
        for name, call in calls(journal, claim).items():
            assert await call() is not None, name
        await consistent(client, journal._prefix)
        await journal.aclose()
        await client.aclose()

    play(main())


def test_a_pool_of_one_connection_is_enough(redis_server: RedisServer) -> None:
    async def main() -> None:
        pool = BlockingConnectionPool.from_url(redis_server.url, max_connections=1, timeout=2)
        journal = journal_at(Redis.from_pool(pool))
        ears, ear = await heard(journal)
        claim = await begun(journal)
        await until(lambda: ears.dues)
        await asyncio.gather(*(call() for call in calls(journal, claim).values()))
        await ended(ear)
        await journal.aclose()
        await pool.aclose()

    play(main())
