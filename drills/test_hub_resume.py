"""Resuming after anything: a client of a hub is told of a gap exactly when something is missing.

The model of the first drill is ``tests/hub/resume_fuzz.py``: clients are cut off between any two messages, deliveries
lag and get lost, nodes end and begin again, the store forgets. The second one does it with real nodes on a real Redis
that is killed, and checks that nothing is missing in silence.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter, defaultdict

import pytest
import uvloop

from sojourn.errors import ClientDisconnected, EngineUnavailable
from sojourn.hub.hub import Hub
from sojourn.hub.redis.engine import RedisEngine
from sojourn.hub.resume import Joined
from sojourn.hub.rules import Channel, History
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
    assert counts["needless gaps"] < counts["gaps"] / 20, counts


RULES = [
    Channel("short:{name}", History(size=5), while_away="refuse"),
    Channel("long:{name}", History(size=10_000), while_away="refuse"),
]
CHANNELS = ("short:a", "long:a", "long:b")
RESUMES = 300


class _Client:
    """In one channel, on one node or the other."""

    def __init__(self, world: _World, channel: str) -> None:
        self.world = world
        self.channel = channel
        self.place: Cursor | None = None
        self.member: Recording | None = None

    async def come(self) -> None:
        """Come back, to any node."""
        hub = self.world.random.choice(self.world.hubs)
        member = Recording(hub)
        hub.reception.admit(member)

        def tell(joined: list[Joined]) -> None:
            self.world.resumes += self.place is not None
            self.place = self.place or joined[0].position

        self.member = member
        try:
            await hub.reception.let_in(member, {self.channel: self.place}, tell, None)
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
        for what, *_ in member.told[:received]:
            if what == "gap":
                self._gap(next(gaps))
            elif what == "pub":
                self._publication(next(publications).cursor)

    def _gap(self, cursor: Cursor) -> None:
        self.world.gaps += 1
        self.place = cursor
        self.excused = True

    excused = False

    def _publication(self, cursor: Cursor) -> None:
        place = self.place
        assert place is not None
        assert place.epoch == cursor.epoch, f"{cursor} after {place} without a gap"
        assert place.seq < cursor.seq, f"{cursor} after {place}"
        between = [each for each in self.world.truth[cursor.epoch, self.channel] if place.seq < each < cursor.seq]
        assert self.excused or not between, f"{between} is missing before {cursor}, after {place}, in {self.channel}"
        self.place = cursor
        self.excused = False


class _World:
    """Two nodes, a Redis, clients, and what was published."""

    def __init__(self, redis: RedisServer) -> None:
        self.random = random.Random(1)
        self.redis = redis
        self.truth: dict[tuple[str, str], list[int]] = defaultdict(list)
        self.hubs = [Hub(RedisEngine(redis.url, timeout=0.5, ping=0.2, pong_within=0.2), RULES) for _ in range(2)]
        self.clients = [_Client(self, self.random.choice(CHANNELS)) for _ in range(10)]
        self.resumes = self.gaps = self.published = 0

    async def publish(self) -> None:
        """Publish for a while."""
        for _ in range(self.random.randint(1, 15)):
            channel = self.random.choice(CHANNELS)
            try:
                cursor = (await self.random.choice(self.hubs).publish(channel, 1)).cursor
            except EngineUnavailable:
                continue  # whether it is stored nobody knows
            self.published += 1
            self.truth[cursor.epoch, channel].append(cursor.seq)

    async def run(self, resumes: int) -> None:
        """Until so many have come back."""
        for hub in self.hubs:
            await hub.start()
        rounds = 0
        while self.resumes < resumes:
            rounds += 1
            await self.publish()
            for client in self.clients:
                if client.member is None or client.member.over:
                    await client.come()
                elif self.random.random() < 0.4:
                    client.leave()
            if rounds % 40 == 0:
                self.redis.stop()
                await self.publish()
                self.redis.start()
                async with asyncio.timeout(20):
                    await until(lambda: all(hub.engine.available for hub in self.hubs))
        await self.publish()
        await asyncio.sleep(0.3)
        for client in self.clients:
            client.leave()
        for hub in self.hubs:
            await hub.aclose()


def test_nothing_is_missing_in_silence_on_two_nodes_with_a_redis_that_is_killed() -> None:
    with redis_server() as redis, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        world = _World(redis)
        runner.run(world.run(RESUMES))
    assert world.gaps
    assert world.published > RESUMES
    assert len({epoch for epoch, _ in world.truth}) > 1, "it was killed"
