"""Hints: as few as will do, and nobody sleeps while something is due for it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvloop
from redis.asyncio import Redis

from sojourn.scopes.work import attend
from sojourn.tasks.journal import Query, Want
from sojourn.tasks.record import Progress, Settlement
from sojourn.tasks.redis.journal import RedisJournal
from sojourn.tasks.tasks import Tasks
from sojourn.testing.faults import FaultProxy
from sojourn.testing.task_recorder import Ears
from tests.databases import RedisServer
from tests.tasks.redis.scene import WANT, consistent, journal_at, new, play


@asynccontextmanager
async def hearing(journal: RedisJournal, claims: bool = True) -> AsyncIterator[Ears]:
    ears = Ears()
    ears.claims = claims  # type: ignore[misc]
    task = attend(journal.listen(ears), "listen")
    try:
        await until(lambda: ears.misses)
        yield ears
    finally:
        task.cancel()
        await asyncio.wait((task,))


async def until(right: Any) -> None:
    async with asyncio.timeout(5):
        while not right():  # noqa: ASYNC110 - what it waits for has no event
            await asyncio.sleep(0.002)


async def silence() -> None:
    """As long as a hint takes, and more."""
    await asyncio.sleep(0.03)


def test_what_is_due_is_told_once_until_somebody_has_claimed(redis_server: RedisServer) -> None:
    async def main() -> None:
        journal = journal_at(redis_server.url)
        async with hearing(journal) as ears:
            for turn in range(1, 4):
                for delay in (0.0, 100.0, 0.0):
                    await journal.submit([new(delay=delay)])
                await journal.submit([new(), new(key=f"k{turn}")])
                await silence()
                assert ears.dues == turn
                await journal.claim("n", WANT, 30.0)
            (held, *_) = (await journal.list(Query(states=("running",), limit=1)),)
            said = Settlement(id=held[0].id, epoch=1, outcome="retry", delay=50.0)
            assert await journal.settle([said]) == [True]
            await silence()
            assert ears.dues == 4  # a node that claims next is told when
        await journal.aclose()

    play(main())


def test_who_claims_nothing_is_told_of_what_it_follows_and_of_nothing_else(redis_server: RedisServer) -> None:
    async def main() -> None:
        journal, other = journal_at(redis_server.url), None
        other = RedisJournal(redis_server.url, prefix=journal._prefix)
        tasks = [new() for _ in range(3)]
        mine = tasks[1].id
        async with hearing(journal, claims=False) as ears:
            await journal.follow(mine)
            await journal.follow(mine)
            await other.submit(tasks)
            await other.claim("n", WANT, 30.0)
            await until(lambda: ears.changes)
            await other.append([Progress(task.id, 1, b"1") for task in tasks])
            for task in tasks:
                await other.cancel(task.id)
            journal.unfollow(mine)
            await until(lambda: len(ears.changes) == 3)
            journal.unfollow(mine)
            assert (set(ears.changes), ears.dues, ears.cancels) == ({mine}, 0, [])
            await silence()
            await other.append([Progress(task.id, 1, b"2") for task in tasks])
            await silence()
            assert len(ears.changes) == 3
            assert not journal._followed
        await journal.aclose()
        await other.aclose()

    play(main())


def test_what_is_followed_is_told_from_when_that_returns_and_after_an_outage(redis_server: RedisServer) -> None:
    async def main() -> None:
        async with FaultProxy(("127.0.0.1", redis_server.port)) as proxy:
            journal = journal_at(f"redis://127.0.0.1:{proxy.address[1]}")
            direct = RedisJournal(redis_server.url, prefix=journal._prefix)
            tasks = [new() for _ in range(40)]
            await direct.submit(tasks)
            await direct.claim("n", [Want(("k",), 40)], 30.0)
            await journal.follow(tasks[0].id)  # nobody listens yet
            async with hearing(journal) as ears:
                for number, task in enumerate(tasks):
                    await journal.follow(task.id)
                    await direct.append([Progress(task.id, 1, b"1")])
                    await until(lambda number=number: len(ears.changes) == number + 1)
                ears.clear()
                proxy.cut()
                await until(lambda: ears.aways)
                await journal.follow(tasks[0].id)  # nothing is heard, and it does not wait for that
                await until(lambda: ears.misses)
                await direct.append([Progress(task.id, 1, b"2") for task in tasks])
                await until(lambda: len(ears.changes) == 40)
            await journal.aclose()
            await direct.aclose()

    play(main())


def test_who_stops_waiting_to_follow_follows_no_more(redis_server: RedisServer) -> None:
    async def main() -> None:
        journal = journal_at(redis_server.url)
        async with hearing(journal) as ears:
            for turns in range(8):
                task = attend(journal.follow("a"), "follow")
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.wait((task,))
                if not task.cancelled():
                    journal.unfollow("a")
                assert not journal._followed
            await journal.follow("a")
            client: Any = Redis.from_url(redis_server.url)
            await client.publish(f"{journal._prefix}c:a", "")
            await until(lambda: ears.changes == ["a"])
            await client.aclose()
        await journal.aclose()

    play(main())


class Nodes:
    """Services on one journal whose nodes never look by themselves: a hint that is not sent is never made good for."""

    def __init__(self, url: str) -> None:
        self.journal = journal_at(url)
        self.url = url
        self.done: list[str] = []
        self.all: list[Tasks] = []

    async def add(self, kinds: tuple[str, ...] = (), concurrency: int = 5) -> Tasks:
        """A node that does some kinds; none: it only submits."""
        own = RedisJournal(self.url, prefix=self.journal._prefix)
        tasks = Tasks(own, work=bool(kinds), kinds=kinds, concurrency=concurrency, polite=False)

        def define(kind: str, limit: int | None) -> None:
            async def run(seconds: float) -> None:
                await asyncio.sleep(seconds)
                self.done.append(kind)

            tasks.define(name=kind, limit=limit)(run)

        for kind, limit in (("a", None), ("b", 1), ("c", 2)):
            define(kind, limit)
        self.all.append(tasks)
        await tasks.begin()
        return tasks

    async def until(self, count: int) -> None:
        """So many are done, without any later hint."""
        async with asyncio.timeout(2.0):
            while len(self.done) < count:  # noqa: ASYNC110 - it is in other tasks
                await asyncio.sleep(0.001)

    async def end(self) -> None:
        for each in self.all:
            await each.aclose()


def on_nodes(main: Any, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sojourn.tasks.claiming._POLL", 1000.0)

    async def run() -> None:
        nodes = Nodes(redis_server.url)
        try:
            await main(nodes)
        finally:
            await nodes.end()
        redis: Any = Redis.from_url(redis_server.url)
        await consistent(redis, nodes.journal._prefix)
        await redis.aclose()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


@pytest.mark.parametrize("seed", range(2))
def test_nobody_sleeps_while_something_is_due_for_it(
    seed: int, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    some = random.Random(seed)

    async def main(nodes: Nodes) -> None:
        for kinds in (("a",), ("a", "b"), ("b", "c"), ("a", "b", "c")):
            await nodes.add(kinds, some.choice([1, 2, 5]))
        client, made = await nodes.add(), 0
        for _ in range(120):
            for _ in range(some.choice([1, 1, 2, 5, 25])):
                made += 1
                delay = some.choice([0.0, 0.0, 0.0, 0.003])
                await client.start(some.choice("aabc"), some.choice([0.0, 0.0, 0.001]), delay=delay)
                if some.random() < 0.1:
                    await asyncio.sleep(some.choice([0.0, 0.001]))
            if some.random() < 0.5:
                await nodes.until(made)
        await nodes.until(made)

    on_nodes(main, redis_server, monkeypatch)


def test_a_kind_of_which_no_more_could_run_is_asked_for_when_more_can(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main(nodes: Nodes) -> None:
        node, client = await nodes.add(("a", "b")), await nodes.add()
        await client.start("b", 0.1)
        await asyncio.sleep(0.05)
        await client.start("b", 0.0)
        await nodes.until(2)
        assert node is not client

    on_nodes(main, redis_server, monkeypatch)


def test_what_became_due_while_there_was_no_room_is_asked_for_when_there_is(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main(nodes: Nodes) -> None:
        node, client = await nodes.add(("a",), 1), await nodes.add()
        await client.start("a", 0.0, delay=0.05)
        await asyncio.sleep(0.02)
        await node.start("a", 0.1)
        await nodes.until(2)

    on_nodes(main, redis_server, monkeypatch)
