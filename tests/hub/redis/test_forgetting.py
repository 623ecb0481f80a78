"""A Redis that forgets: never a silent hole, and no gap where nothing is missing."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from sojourn.errors import EngineUnavailable
from sojourn.hub.engine import Present, Wanted
from sojourn.hub.redis.engine import RedisEngine
from sojourn.hub.redis.keys import Keys
from sojourn.hub.redis.scripts import REMEMBER
from sojourn.hub.redis.store import Asked, Store
from sojourn.hub.rules import History
from sojourn.testing.hub_recorder import Node, Recorder
from sojourn.wire.hub.cursor import Cursor
from tests.databases import RedisServer
from tests.hub.redis.nodes import fresh, looking, play, running

KEPT = History(size=100, ttl=60)
LATEST = History(size=3, ttl=60, mode="latest")


async def gap(node: Node, channel: str, since: Cursor, rule: History = KEPT) -> bool:
    return (await node.read(channel, since, 100, rule)).gap


def test_a_redis_that_was_restarted_empty_begins_another_epoch(own_redis: RedisServer) -> None:
    async def main() -> None:
        prefix = fresh()
        async with running(own_redis.url, prefix) as node, running(own_redis.url, prefix) as other:
            for each in (node, other):
                await each.engine.subscribe("c")
            await node.engine.enter("c", [Present("m", "ada", info=[1])], 60)
            old = [(await node.publish("c")).cursor for _ in range(3)]
            own_redis.stop()
            await node.seen.until(lambda: node.seen.outages != [], "away")
            with pytest.raises(EngineUnavailable):
                await node.publish("c")
            own_redis.start()
            await node.seen.until(lambda: node.seen.losses == [None], "lost")
            await other.seen.until(lambda: other.engine.available, "available")
            assert await gap(other, "c", old[-1])
            assert await gap(other, "unknown", old[-1])
            again = (await other.publish("c")).cursor
            assert again.epoch != old[-1].epoch
            await node.seen.until(lambda: node.seen.publications[-1].cursor == again, "delivered")
            assert node.seen.losses == [None]
            assert not await gap(node, "c", Cursor(again.epoch, 0))
            # Its node tells within a second who is there; the other one may hear it, or not be subscribed again yet.
            async with asyncio.timeout(10):
                while await other.engine.present("c", 10) != [Present("m", "ada", info=[1])]:  # noqa: ASYNC110 - in Redis
                    await asyncio.sleep(0.05)

    play(main())


def test_a_redis_that_comes_back_with_its_data_begins_another_epoch_and_keeps_them(redis_server: RedisServer) -> None:
    async def main() -> None:
        prefix = fresh()
        async with looking(redis_server.url) as client, running(redis_server.url, prefix) as node:
            old = [(await node.publish("c", b"%d" % index)).cursor for index in range(3)]
            await node.publish("price", b"1.08", rule=LATEST, key="EURUSD")
            await client.hset(f"{prefix}meta", "run", "of another process")
            # A process knows no scripts when it begins.
            await client.script_flush()
            new = (await node.publish("c", b"3")).cursor
            assert new.epoch != old[0].epoch
            assert new.seq > old[-1].seq
            for since, all_of_it in ((old[-1], True), (Cursor(new.epoch, old[0].seq), False)):
                page = await node.read("c", since, 100, KEPT)
                assert (page.gap, len(page.publications)) == (all_of_it, 4 if all_of_it else 3)
            page = await node.read("price", old[-1], 10, LATEST)
            assert ([each.data for each in page.publications], page.gap) == ([b"1.08"], False)

    play(main())


def test_a_redis_that_is_emptied_while_connected_is_a_loss(redis_server: RedisServer) -> None:
    async def main() -> None:
        prefix = fresh()
        async with (
            looking(redis_server.url) as client,
            running(redis_server.url, prefix) as node,
            running(redis_server.url, prefix) as other,
        ):
            await other.engine.subscribe("c")
            old = (await node.publish("c")).cursor
            await client.delete(*await client.keys(f"{prefix}*"))
            new = (await node.publish("c")).cursor
            assert (new.epoch != old.epoch, new.seq) == (True, 1)
            await other.seen.until(lambda: len(other.seen.of("c")) == 2, "delivered")
            assert other.seen.losses == [None]
            assert other.engine.available
            page = await other.read("c", old, 10, KEPT)
            assert ([each.cursor for each in page.publications], page.gap) == ([new], True)

    play(main())


def test_scripts_that_are_forgotten_are_told_again_and_that_is_no_loss(redis_server: RedisServer) -> None:
    async def main() -> None:
        async with looking(redis_server.url) as client, running(redis_server.url, fresh()) as node:
            before = (await node.publish("c")).cursor
            await client.script_flush()
            assert (await node.publish("c")).cursor == Cursor(before.epoch, before.seq + 1)
            await client.script_flush()
            assert not await gap(node, "c", before)

    play(main())


def test_whatever_is_taken_from_a_history_is_a_gap(redis_server: RedisServer) -> None:
    async def main() -> None:
        prefix = fresh()
        async with looking(redis_server.url) as client, running(redis_server.url, prefix) as node:
            sent = [(await node.publish("c")).cursor for _ in range(4)]
            (stream,) = await client.keys(f"{prefix}*:h:c")
            entries = [entry for entry, _ in await client.xrange(stream)]
            await client.xdel(stream, entries[1])
            assert [await gap(node, "c", cursor) for cursor in sent] == [True, False, False, False]
            await client.delete(stream)
            assert [await gap(node, "c", cursor) for cursor in sent] == [True, True, True, False]
            await node.publish("c")
            assert [await gap(node, "c", cursor) for cursor in sent] == [True, True, True, False]

    play(main())


def test_a_channel_that_nobody_remembers_is_a_gap_only_for_who_comes_from_before(redis_server: RedisServer) -> None:
    async def main() -> None:
        prefix = fresh()
        async with looking(redis_server.url) as client, running(redis_server.url, prefix) as node:
            first = (await node.publish("c")).cursor
            second = (await node.publish("d")).cursor
            # Time passes: what is an hour old is gone, and from then on there is another mark.
            hour = int(REMEMBER * 1000)
            marks = await client.zrange(f"{prefix}marks", 0, -1, withscores=True)
            await client.zadd(f"{prefix}marks", {name: at - hour - 1 for name, at in marks})
            await client.hincrby(f"{prefix}meta", "mark", -hour)
            for kind in ("l", "h"):
                await client.delete(*await client.keys(f"{prefix}*:{kind}:*"))
            third = (await node.publish("e")).cursor
            assert await gap(node, "c", first._replace(seq=0))
            assert await gap(node, "c", first)  # perhaps there was another one: nobody knows
            assert not await gap(node, "c", second)
            assert not await gap(node, "never", third)
            # The first one that is known again says the same.
            await node.publish("c")
            assert [await gap(node, "c", cursor) for cursor in (first, second, third)] == [True, False, False]

    play(main())


def test_a_channel_in_use_is_remembered(redis_server: RedisServer) -> None:
    async def main() -> None:
        prefix = fresh()
        async with looking(redis_server.url) as client, running(redis_server.url, prefix) as node:
            await node.publish("c")
            (last,) = await client.keys(f"{prefix}*:l:c")
            await client.pexpire(last, 1000)
            await node.engine.subscribe("c")
            assert await client.ttl(last) > REMEMBER - 5
            await client.set(last, 1, px=7_200_000)
            await node.engine.subscribe("c")
            assert await client.ttl(last) > 2 * REMEMBER - 5
            await node.engine.subscribe("quiet")
            (quiet,) = await client.keys(f"{prefix}*:l:quiet")
            assert int(await client.get(quiet) or -1) == 0
            assert await client.ttl(quiet) > REMEMBER - 5

    play(main())


def test_a_batch_that_arrives_again_or_late_changes_nothing(redis_server: RedisServer) -> None:
    async def main() -> None:
        async with looking(redis_server.url) as client:
            store = Store(client, Keys(fresh()), 1.0)
            await store.greet()

            def batch(number: int) -> Any:
                def build(life: str) -> Asked:
                    keys = store.keys
                    last = keys.last(life, "c")
                    names = [keys.meta, keys.marks, keys.node(life, "n"), last, keys.stream(life, "c"), last, last]
                    tail = b"t0:%d" % number
                    arguments = [life, number, keys.channel("c"), tail, 10, 60000, "stream", "", ""]
                    return Asked(names, arguments)

                return store.run(store.scripts.publish, build)

            answers = [await batch(1), await batch(1), await batch(2), await batch(2)]
            assert [answer.split(b" ")[1] for answer in answers] == [b"1", b"1", b"2", b"2"]
            await batch(1)
            assert await client.xlen(store.keys.stream(store.life, "c")) == 2

    play(main())


def test_a_redis_that_is_too_old_is_refused_at_the_start(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        monkeypatch.setattr("sojourn.hub.redis.store._OLDEST", 99)
        engine = RedisEngine(redis_server.url, prefix=fresh())
        with pytest.raises(EngineUnavailable, match="too old"):
            await engine.start(Recorder())
        await engine.aclose()

    play(main())


@pytest.mark.parametrize("seed", range(3))
def test_trims_and_times_under_load_are_gaps_exactly_when_something_is_missing(
    seed: int, redis_server: RedisServer
) -> None:
    """Against a list of all that was ever published."""
    chance = random.Random(seed)
    rules = {"a": History(size=3), "b": History(size=40, ttl=0.15), "c": History(), "d": History(size=5)}

    async def main() -> None:
        prefix = fresh()
        async with running(redis_server.url, prefix) as node, running(redis_server.url, prefix) as other:
            sent: dict[str, list[int]] = {name: [] for name in rules}
            epoch = (await node.engine.position()).epoch
            resumes = 0
            for _ in range(120):
                channels = [chance.choice("abcd") for _ in range(chance.randrange(12))]
                made = await asyncio.gather(
                    *(chance.choice([node, other]).publish(name, rule=rules[name]) for name in channels)
                )
                for name, published in zip(channels, made, strict=True):
                    sent[name].append(published.cursor.seq)
                if chance.random() < 0.1:
                    await asyncio.sleep(0.06)
                end = (await node.engine.position()).seq
                names = chance.sample("abcd", chance.randint(1, 4))
                since = {name: chance.randint(0, end) for name in names}
                wanted = [Wanted(name, Cursor(epoch, since[name]), rules[name]) for name in names]
                limit = chance.choice([1, 3, 100])
                page = await other.engine.history(wanted, limit)
                resumes += 1
                numbers = [each.seq for each in page.publications]
                assert numbers == sorted(numbers)
                assert page.position.seq == (numbers[-1] if page.more else end)
                for name in names:
                    got = [each.seq for each in page.publications if each.channel == name]
                    missed = [seq for seq in sorted(sent[name]) if since[name] < seq <= page.position.seq]
                    missing = missed[: len(missed) - len(got)]
                    assert missing + got == missed
                    lost = page.lost.get(name, 0)
                    if lost <= page.position.seq:  # else it is behind what is given here, and seen with the next page
                        assert lost == (missing[-1] if missing else 0), (name, since)
            assert resumes == 120

    play(main())
