"""What is kept in Redis: indexes agree with records whatever happens, and nothing is left behind."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from redis.asyncio import Redis

from sojourn.errors import ConfigError
from sojourn.tasks.journal import Query, Want
from sojourn.tasks.record import Claim, NewTask, Progress, Settlement
from sojourn.tasks.redis.journal import RedisJournal
from sojourn.tasks.redis.server import LAYOUT, usable
from tests.databases import RedisServer
from tests.tasks.redis.scene import WANT, consistent, journal_at, kept, new, play

OUTCOMES = ("completed", "failed", "cancelled", "retry", "handover", "unbegun")


class Random:
    """Does anything that can be done, in any order."""

    def __init__(self, journal: RedisJournal, seed: int) -> None:
        self.journal = journal
        self.random = random.Random(seed)
        self.made: list[NewTask] = []
        self.claims: list[Claim] = []

    def _new(self) -> NewTask:
        some = self.random
        task = new(
            some.choice(["k", "other"]),
            priority=some.choice([0, 0, 5, -5]),
            delay=some.choice([0.0, 0.0, 0.001, 100.0]),
            keep=some.choice([0.0, 100.0]),
            owner=some.choice(["", "ann"]),
            key=some.choice(["", "", f"key {some.randrange(20)}"]),
            **some.choice([{}, {}, {"node": "n", "lease": some.choice([0.001, 100.0])}]),
        )
        self.made.append(task)
        return task

    async def step(self) -> None:
        some, journal = self.random, self.journal
        do = some.randrange(9)
        if do <= 1:
            await journal.submit([self._new() for _ in range(some.randrange(4))])
        elif do == 2:
            wants = [Want(("k",), some.randrange(3)), Want(("other", "k"), some.randrange(4))]
            self.claims += (await journal.claim("n", wants, some.choice([0.001, 100.0]))).claims
        elif do == 3:
            await journal.sweep(some.randrange(5))
        elif do == 4 and self.made:
            await some.choice([journal.cancel, journal.retry])(some.choice(self.made).id)
        elif do == 5:
            await journal.beat("n", [(claim.id, claim.epoch) for claim in self._some()], some.choice([0.001, 100.0]))
        elif do == 6:
            checkpoint = some.choice([None, b"1"])
            await journal.append([Progress(claim.id, claim.epoch, b"1", checkpoint) for claim in self._some()])
        else:
            await journal.settle([self._settlement(claim) for claim in self._some()])

    def _some(self) -> list[Claim]:
        return self.random.choices(self.claims, k=self.random.randrange(4)) if self.claims else []

    def _settlement(self, claim: Claim) -> Settlement:
        some = self.random
        then = (self._new(),) if some.random() < 0.2 else ()
        delay = some.choice([0.0, 100.0])
        outcome: Any = some.choice(OUTCOMES)
        return Settlement(id=claim.id, epoch=claim.epoch, outcome=outcome, delay=delay, then=then)


@pytest.mark.parametrize("seed", range(3))
def test_indexes_and_counts_agree_with_the_records_whatever_is_done(seed: int, redis_server: RedisServer) -> None:
    async def main() -> None:
        client = Redis.from_url(redis_server.url)
        journal = journal_at(client)
        anything = Random(journal, seed)
        for turn in range(240):
            await anything.step()
            if turn % 30 == 29:
                await consistent(client, journal._prefix)
        assert sum((await consistent(client, journal._prefix)).values()) > 10
        await journal.aclose()
        await client.aclose()

    play(main())


def test_nothing_is_left_of_what_was_swept(redis_server: RedisServer) -> None:
    async def main() -> None:
        client = Redis.from_url(redis_server.url)
        journal = journal_at(client)
        await journal.open("n")
        for count in (1, 5000):  # more than one command of Lua may have arguments
            tasks = [new(keep=0.0, key=str(index), payload=b"[%d]" % index) for index in range(count)]
            await journal.submit(tasks)
            claims = (await journal.claim("n", [Want(("k",), count)], 30.0)).claims
            assert [claim.payload for claim in claims] == [task.payload for task in tasks]
            await journal.append([Progress(claims[0].id, 1, b"1", b"2")])
            ended = [Settlement(id=claim.id, epoch=1, outcome="completed", result=b"1") for claim in claims]
            assert await journal.settle(ended) == [True] * count
            assert await journal.sweep(count + 1) == count
            assert await kept(client, journal._prefix) == ["meta", "n"]
            assert not (await journal.counts()).states
        await journal.aclose()
        await client.aclose()

    play(main())


def test_each_call_is_one_command(redis_server: RedisServer) -> None:
    async def main() -> None:
        client = Redis.from_url(redis_server.url)
        journal = journal_at(client)

        async def commands() -> int:
            stats = await client.info("commandstats")
            return sum(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("evalsha", "eval"))

        for _ in range(2):  # in the second turn, Redis knows all scripts
            before = await commands()
            await journal.submit([new() for _ in range(200)])
            claims = (await journal.claim("n", [Want(("k",), 200)], 30.0)).claims
            await journal.beat("n", [(claim.id, claim.epoch) for claim in claims], 30.0)
            await journal.settle([Settlement(id=each.id, epoch=each.epoch, outcome="completed") for each in claims])
            assert await commands() - before == 4
        await journal.aclose()
        await client.aclose()

    play(main())


def test_many_records_are_listed_in_steps_and_of_rare_states_at_once(redis_server: RedisServer) -> None:
    async def main() -> None:
        client = Redis.from_url(redis_server.url)
        journal = journal_at(client)
        first = [new(owner="ann"), new(), new()]
        await journal.submit(first)
        await journal.submit([new("other") for _ in range(1200)])
        claims = (await journal.claim("n", [Want(("k",), 3)], 30.0)).claims
        said = [Settlement(id=first[0].id, epoch=1, outcome="failed", error=b"{}")]
        assert len(claims) == 3
        assert await journal.settle(said) == [True]
        assert [task.id for task in await journal.list(Query(owner="ann"))] == [first[0].id]
        assert [task.id for task in await journal.list(Query(kind="k"))] == [task.id for task in first[::-1]]
        stats = await client.info("commandstats")
        listed = await journal.list(Query(states=("running", "failed")))
        assert [task.id for task in listed] == [task.id for task in first[::-1]]
        asked = (await client.info("commandstats"))["cmdstat_hmget"]["calls"] - stats["cmdstat_hmget"]["calls"]
        assert asked == 3
        await journal.aclose()
        await client.aclose()

    play(main())


def test_a_client_that_decodes_is_fine_and_stays_its_owners(redis_server: RedisServer) -> None:
    async def main() -> None:
        client = Redis.from_url(redis_server.url, decode_responses=True)
        journal = journal_at(client)
        await journal.submit([task := new(payload='{"a":"ü"}'.encode())])
        (claim,) = (await journal.claim("n", WANT, 30.0)).claims
        assert (claim.id, claim.payload) == (task.id, task.payload)
        await journal.aclose()
        assert await client.ping()
        await client.aclose()

    play(main())


def test_a_moment_far_away_is_far_away(redis_server: RedisServer) -> None:
    async def main() -> None:
        client = Redis.from_url(redis_server.url)
        journal = journal_at(client)
        await journal.submit([new(run_at=1e30), new(run_at=-1e30), new(run_at=float("inf"))])
        claimed = await journal.claim("n", WANT, 30.0)
        assert len(claimed.claims) == 1
        await consistent(client, journal._prefix)
        await journal.aclose()
        await client.aclose()

    play(main())


@pytest.mark.parametrize(
    ("server", "memory", "layout", "said"),
    [
        ("6.0.16", "noeviction", LAYOUT, "need Redis 6.2 or Valkey, and this is Redis 6.0.16"),
        ("7.0.15", "allkeys-lru", LAYOUT, "throws away tasks when memory is full"),
        ("7.0.15", "noeviction", "2", "have layout 2"),
        ("6.2.0", "volatile-lru", LAYOUT, ""),
        ("10.1", "noeviction", LAYOUT, ""),
    ],
)
def test_a_redis_that_would_lose_tasks_is_refused(server: str, memory: str, layout: str, said: str) -> None:
    arguments = (f"# Server\r\nredis_version:{server}\r\n", f"maxmemory_policy:{memory}\r\n", layout)
    if said:
        with pytest.raises(ConfigError, match=said):
            usable(*(text.encode() for text in arguments))
    else:
        usable(*(text.encode() for text in arguments))


def test_without_a_redis_that_lets_it_in_there_is_no_journal(redis_server: RedisServer) -> None:
    async def main() -> None:
        journal = RedisJournal(redis_server.url.replace("://", "://nobody:secret@"))
        with pytest.raises(ConfigError, match=r"WRONGPASS|invalid username"):
            await journal.open("n")
        await journal.aclose()

    with pytest.raises(ConfigError, match="no URL"):
        RedisJournal("redis://localhost:port")
    with pytest.raises(ConfigError, match="replicas"):
        RedisJournal("redis://localhost", replicas=-1)
    asyncio.run(main())
