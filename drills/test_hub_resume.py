"""Resuming after anything: a client of a hub is told of a gap exactly when something is missing.

The model of the first drill is ``tests/hub/resume_fuzz.py``: clients are cut off between any two messages, deliveries
lag and get lost, nodes end and begin again, the store forgets. The second one does it with real nodes on a real Redis
that is killed, and whose connections break.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter, defaultdict
from collections.abc import Awaitable
from unittest.mock import patch

import pytest
import uvloop
from redis.asyncio import Redis

from sojourn.errors import ClientDisconnected, EngineUnavailable
from sojourn.hub import reading, repair
from sojourn.hub.hub import Hub
from sojourn.hub.node import Node
from sojourn.hub.publication import Publication
from sojourn.hub.redis.engine import RedisEngine
from sojourn.hub.resume import Joined
from sojourn.hub.rules import Channel, History
from sojourn.hub.topic import Topic
from sojourn.wire.hub.cursor import Cursor
from tests.databases import RedisServer, redis_server
from tests.hub.resume_fuzz import Fuzz
from tests.hub.stand_ins import Recording, until

#: Resumes of each kind, and in one world; together more than 50,000.
EACH, WORLD = 17_000, 500


@pytest.mark.parametrize("kind", ["lag", "loss", "forgetting"])
def test_a_gap_is_told_exactly_when_something_is_missing(kind: str) -> None:
    counts: Counter[str] = Counter()
    seed = 1000
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        while counts["resumes"] < EACH:
            fuzz = Fuzz(seed, lossy=kind != "lag", forgets=kind == "forgetting")
            runner.run(fuzz.run(WORLD))
            counts.update(fuzz.counts)
            seed += 1
    assert counts["recovered"] > EACH / 4
    assert counts["gaps"] > EACH / 10


RULES = [
    Channel("none:{name}", while_away="refuse"),
    Channel("short:{name}", History(size=5), while_away="refuse"),
    Channel("long:{name}", History(size=10_000), while_away="refuse"),
]
SIZES = {"none": 0, "short": 5, "long": 10_000}
CHANNELS = ("none:a", "none:b", "short:a", "short:b", "long:a", "long:b")
RESUMES = 3000


class _Client:
    """In some channels with one place for all of them, on one node or the other."""

    def __init__(self, world: _World) -> None:
        self.world = world
        self.channels = tuple(world.random.sample(CHANNELS, world.random.randint(1, 4)))
        self.place: Cursor | None = None
        self.member: Recording | None = None
        #: Its place in each channel; up to where something is missing there, and where it was when it heard of that.
        self.has: dict[str, Cursor] = {}
        self.excused: dict[str, int] = {}
        self.before: dict[str, Cursor] = {}
        #: The place to which history was read for it, and the channels of which it is to hear that this has gaps.
        self.caught_up = 0
        self.owed: set[str] = set()

    async def come(self) -> None:
        """Come back, to any node."""
        hub = self.world.random.choice(self.world.hubs)
        member = Recording(hub)
        hub.reception.admit(member)

        def tell(joined: list[Joined]) -> None:
            self.world.resumes += self.place is not None
            self.has = {each.topic.channel: self.place or each.position for each in joined}
            self.place = self.place or min(each.position for each in joined)
            self.caught_up = joined[0].has.seq
            self.owed = {each.topic.channel for each in joined if each.recovered is False}

        self.member = member
        self.excused, self.before, self.owed = {}, {}, set()
        try:
            await hub.reception.let_in(member, dict.fromkeys(self.channels, self.place), tell, None)
        except (EngineUnavailable, ClientDisconnected):
            self.leave()

    def leave(self) -> None:
        """Be cut off, with a part of what was sent."""
        member, self.member = self.member, None
        if member is None:
            return
        member.node.gone(member)
        received = self.world.random.randint(0, len(member.told))
        publications, gaps = iter(member.publications), iter(member.places)
        for what, channel, *_ in member.told[:received]:
            if what == "gap":
                self._gap(channel, next(gaps))
            elif what == "pub":
                self._publication(channel, next(publications).cursor)

    def _gap(self, channel: str, cursor: Cursor) -> None:
        world, before = self.world, self.has[channel]
        world.gaps += 1
        if channel in self.owed:
            self.owed.discard(channel)
            lost_to = world.evicted_to(channel, Cursor(cursor.epoch, self.caught_up))
        else:
            lost_to = world.lost_to[channel, cursor]
        until = max(cursor.seq, lost_to)
        if before.epoch == cursor.epoch:
            world.gaps_within += 1
            assert self.missing(channel, until), f"a gap up to {until}, and nothing is missing after {before}"
        self.before.setdefault(channel, before)
        self.has[channel] = cursor
        self.excused[channel] = until
        self._move(cursor)

    def _publication(self, channel: str, cursor: Cursor) -> None:
        before, gap = self.has[channel], self.before.pop(channel, None)
        assert before.epoch == cursor.epoch, f"{cursor} after {before} without a gap"
        assert before.seq < cursor.seq, f"{cursor} after {before}"
        assert not self.missing(channel, cursor.seq - 1), f"missing before {cursor}, after {before}, in {channel}"
        if gap is not None and gap.epoch == cursor.epoch:
            assert self.world.between(channel, gap, cursor.seq - 1), f"a gap after {gap}, and {cursor} is the next"
        self.has[channel] = cursor
        self._move(cursor)

    def _move(self, cursor: Cursor) -> None:
        if cursor.seq:
            self.place = cursor
            for channel, has in self.has.items():
                missing = has.epoch == cursor.epoch and self.missing(channel, cursor.seq)
                assert not missing, f"it would resume at {cursor} without {missing} of {channel}"

    def missing(self, channel: str, until: int) -> list[int]:
        """What it has not got, and was not told of, up to a number."""
        has = self.has[channel]
        return self.world.between(channel, has._replace(seq=max(has.seq, self.excused.get(channel, 0))), until)


class _World:
    """Two nodes, a Redis, clients, and what was published."""

    def __init__(self, redis: RedisServer, seed: int) -> None:
        self.random = random.Random(seed)
        self.redis = redis
        self.truth: dict[tuple[str, str], list[int]] = defaultdict(list)
        self.hubs = [Hub(RedisEngine(redis.url, timeout=0.5, ping=0.2, pong_within=0.2), RULES) for _ in range(2)]
        self.clients = [_Client(self) for _ in range(12)]
        self.resumes = self.gaps = self.gaps_within = self.published = self.failed = self.breaks = 0
        #: Up to where something of a channel was lost for a node, by the place at which it has told that.
        self.lost_to: dict[tuple[str, Cursor], int] = {}

    def between(self, channel: str, since: Cursor, until: int) -> list[int]:
        """Numbers of the publications of a channel after one place, up to another."""
        return [each for each in self.truth[since.epoch, channel] if since.seq < each <= until]

    def evicted_to(self, channel: str, place: Cursor) -> int:
        """Number of the last publication of a channel that could not be had any more at a place."""
        published = self.between(channel, place._replace(seq=0), place.seq)
        return published[-SIZES[channel.partition(":")[0]] - 1] if len(published) > SIZES[channel[:-2]] else 0

    async def publish(self) -> None:
        """Publish for a while."""
        for _ in range(self.random.randint(1, 15)):
            channel = self.random.choice(CHANNELS)
            try:
                cursor = (await self.random.choice(self.hubs).publish(channel, 1)).cursor
            except EngineUnavailable:
                self.failed += 1
                continue  # whether it is stored nobody knows
            self.published += 1
            self.truth[cursor.epoch, channel].append(cursor.seq)

    async def run(self, resumes: int) -> None:
        """Until so many have come back."""
        for hub in self.hubs:
            self._listen(await hub.start())
        rounds = 0
        while self.resumes < resumes:
            rounds += 1
            moves: list[Awaitable[None]] = [self.publish()]
            for each in self.clients:
                if each.member is None or each.member.over:
                    moves.append(each.come())
                elif self.random.random() < 0.4:
                    each.leave()
            await asyncio.gather(*moves)
            if rounds % 200 == 0:
                self.redis.stop()
                await self.publish()
                self.redis.start()
            elif rounds % 10 == 0:  # what is told meanwhile is lost for the nodes
                self.breaks += 1
                async with Redis.from_url(self.redis.url) as client:
                    await asyncio.gather(client.execute_command("CLIENT", "KILL", "TYPE", "pubsub"), self.publish())
            async with asyncio.timeout(20):
                await until(lambda: all(hub.engine.available for hub in self.hubs))
        await self.publish()
        await asyncio.sleep(0.3)
        for each in self.clients:
            each.leave()
        for hub in self.hubs:
            await hub.aclose()

    def _listen(self, node: Node) -> None:
        repairs = node.topics.repairs
        gap = repairs.gap

        def told(topic: Topic, cursor: Cursor, state: Publication | None, last: Cursor) -> None:
            self.lost_to[topic.channel, cursor] = last.seq
            gap(topic, cursor, state, last)

        repairs.gap = told


@pytest.mark.parametrize("seed", range(2))
def test_a_gap_is_told_exactly_when_something_is_missing_on_two_nodes_with_a_redis_that_is_killed(seed: int) -> None:
    broken: list[dict[str, object]] = []
    with redis_server() as redis, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.get_loop().set_exception_handler(lambda loop, context: broken.append(context))
        with patch.object(reading, "PAGE", 7 if seed else 1000), patch.object(repair, "TOGETHER", 2 if seed else 256):
            world = _World(redis, seed)
            runner.run(world.run(RESUMES))
    assert not broken, broken
    assert world.gaps_within > RESUMES / 20
    assert world.breaks
    assert world.published > RESUMES
    assert len({epoch for epoch, _ in world.truth}) > 1, "it was killed"
