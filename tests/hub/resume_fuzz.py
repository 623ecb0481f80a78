"""A hub, clients that are cut off at any moment, and a model of all that was ever published.

Each client keeps one place for all its channels, the last that it was told, as a browser's EventSource does. The model
decides what is missing: a client must be told of a gap exactly then. It is checked after each thing that a client gets:

* within a channel nothing is lost, doubled or out of order, unless a gap was told in its place;
* a gap is told only where something is missing, or the store has forgotten; and it has not come when the next one does;
* nothing of any channel is missing before the place from which the client would resume now.

Channels of every size are joined together, and what they missed is read in pages and groups of any size.
"""

from __future__ import annotations

import asyncio
import random
from bisect import bisect_right
from collections import Counter, defaultdict
from typing import Any
from unittest.mock import patch

from sojourn.hub import repair
from sojourn.hub.hub import Hub
from sojourn.hub.log import Log
from sojourn.hub.resume import Joined
from sojourn.hub.rules import Channel, History
from sojourn.wire.hub.cursor import Cursor
from tests.hub.stand_ins import Engine, Recording, gone

__all__ = ["Fuzz"]

RULES = (
    Channel("none:{name}"),
    Channel("short:{name}", History(size=3)),
    Channel("long:{name}", History(size=40)),
    Channel("endless:{name}", History(size=100_000)),
)
CHANNELS = ("none:a", "short:a", "short:b", "long:a", "long:b", "endless:a", "endless:b")


class Client:
    """One client over all its connections.

    Attributes:
        place: From where it would resume; None before it has ever joined.
        has: Its place in each channel, by what it was told of that channel.
        member: Its present connection.
    """

    def __init__(self, fuzz: Fuzz, number: int, channels: tuple[str, ...]) -> None:
        self.fuzz = fuzz
        self.number = number
        self.channels = channels
        self.place: Cursor | None = None
        self.has: dict[str, Cursor] = {}
        self.member: Recording | None = None
        #: Numbers up to which it was told that something is missing.
        self.excused: dict[str, int] = {}
        #: Where it was in channels in which it was told so, and has got nothing since.
        self.before: dict[str, Cursor] = {}
        #: The place to which history was read for it, and the channels of which it is to hear that this has gaps.
        self.caught_up = 0
        self.owed: set[str] = set()
        self.joining: asyncio.Task[Any] | None = None

    async def join(self, hub: Hub) -> None:
        """Come back."""
        member = self.member = Seen(self, hub)
        hub.reception.admit(member)

        def tell(joined: list[Joined]) -> None:
            told = min((each.position for each in joined), key=lambda place: place.seq)
            self.fuzz.resumed(self, joined)
            if self.place is None:
                self.has = {each.topic.channel: each.position for each in joined}
            self.place = told
            self.caught_up = joined[0].has.seq
            self.owed = {each.topic.channel for each in joined if each.recovered is False}

        await hub.reception.let_in(member, dict.fromkeys(self.channels, self.place), tell, None)
        assert not self.owed or self.member is not member, f"client {self.number} was not told of a gap in {self.owed}"

    def cut(self) -> None:
        """The connection is lost, in the middle of anything. What was sent and not received never counts."""
        if self.joining is not None and not self.joining.done():
            self.joining.cancel()
        self.joining = None
        if self.member is not None and not self.member.over:
            self.member.node.gone(self.member)
        self.member = None
        self.forget()

    def forget(self) -> None:
        """What it resumes from is one place; that of each channel is not known any more."""
        self.excused.clear()
        self.before.clear()
        if self.place is not None:
            self.has = dict.fromkeys(self.channels, self.place)

    def got_publication(self, channel: str, cursor: Cursor) -> None:
        """A publication came."""
        before = self.has[channel]
        where = f"client {self.number}, {channel}: {cursor} after {before}"
        assert cursor.epoch == before.epoch, f"another epoch without a gap: {where}"
        assert cursor.seq > before.seq, f"doubled or out of order: {where}"
        missing = self.missing(channel, cursor.seq - 1)
        assert not missing, f"missing without a gap: {missing}: {where}"
        gap = self.before.pop(channel, None)
        if gap is not None and gap.epoch == cursor.epoch:
            assert self.fuzz.between(channel, gap, cursor.seq - 1), f"a gap after {gap}, needless: {where}"
        self.has[channel] = cursor
        self._move(cursor)

    def got_gap(self, channel: str, cursor: Cursor) -> None:
        """A gap was told."""
        before = self.has[channel]
        self.fuzz.counts["gaps"] += 1
        # All that can't be had any more is missing before the next one, though its numbers may be above the place.
        lost_to = self.caught_up if channel in self.owed else self.fuzz.lost_to[channel, cursor]
        self.owed.discard(channel)
        until = max(cursor.seq, min(self.fuzz.evicted_to(channel, cursor.epoch), lost_to))
        if before.epoch == cursor.epoch:
            where = f"client {self.number}, {channel}: {cursor} after {before}"
            assert self.missing(channel, until), f"a gap with nothing missing up to {until}: {where}"
        self.before.setdefault(channel, before)
        self.has[channel] = cursor
        self.excused[channel] = until
        self._move(cursor)

    def missing(self, channel: str, until: int) -> list[int]:
        """What it has not got, and was not told of, up to a number."""
        has = self.has[channel]
        if channel in self.excused:
            has = has._replace(seq=max(has.seq, self.excused[channel]))
        return self.fuzz.between(channel, has, until)

    def _move(self, cursor: Cursor) -> None:
        if not cursor.seq:
            return  # it is no place: an event has no id then
        self.place = cursor
        for channel, has in self.has.items():
            if has.epoch == cursor.epoch:
                missing = self.missing(channel, cursor.seq)
                assert not missing, f"client {self.number} would resume at {cursor} without {missing} of {channel}"
            else:
                assert not self.fuzz.strict, f"client {self.number} is at {cursor}, and {channel} at {has}"


class Seen(Recording):
    """Shows its client what it gets, until the client has lost its connection."""

    def __init__(self, client: Client, hub: Hub) -> None:
        super().__init__(hub)
        self.client = client

    def deliver(self, publications: Any) -> None:
        if self.over:
            return
        for publication in publications:
            if self.client.member is not self:
                return
            self.client.got_publication(publication.channel, publication.cursor)
            # The connection may break between any two: what comes behind is sent, and never received.
            if self.client.fuzz.random.random() < self.client.fuzz.cut_inside:
                self.client.member = None
                self.node.loop.call_soon(self.node.gone, self)
                self.client.forget()
                return

    def hold_gap(self, topic: Any, cursor: Cursor) -> None:
        if self.client.member is self:
            self.client.got_gap(topic.channel, cursor)


class Fuzz:
    """The world: publishers, a network, clients, and what truly happened.

    Args:
        seed: Makes it the same again.
        lossy: Whether deliveries get lost.
        forgets: Whether the store forgets now and then.
        clients: How many there are.
    """

    def __init__(self, seed: int, *, lossy: bool = False, forgets: bool = False, clients: int = 8) -> None:
        self.random = random.Random(seed)
        self.lossy = lossy
        self.forgets = forgets
        self.strict = True
        self.cut_inside = 0.01
        self.counts: Counter[str] = Counter()
        self.broken: list[dict[str, Any]] = []
        #: Numbers of all publications, by epoch and channel.
        self.truth: dict[tuple[str, str], list[int]] = defaultdict(list)
        self.clients = [Client(self, number, self._channels()) for number in range(clients)]
        self.engine = Engine()
        self.hub = Hub(self.engine, RULES)
        #: What the store has forgotten.
        self.forgotten: list[Log] = []
        #: Up to where something of a channel was lost for its node, by the place at which it has told that.
        self.lost_to: dict[tuple[str, Cursor], int] = {}

    def _channels(self) -> tuple[str, ...]:
        """What a client is in."""
        return tuple(self.random.sample(CHANNELS, self.random.randint(1, 4)))

    async def start(self) -> None:
        """The hub begins."""
        self.engine.reading = self.engine.answering = self._wait
        repairs = (await self.hub.start()).topics.repairs
        gap = repairs.gap

        def told(topic: Any, cursor: Cursor, state: Any, last: Cursor) -> None:
            self.lost_to[topic.channel, cursor] = last.seq
            gap(topic, cursor, state, last)

        repairs.gap = told

    def between(self, channel: str, since: Cursor, until: int) -> list[int]:
        """Numbers of the publications of a channel after one place, up to another."""
        numbers = self.truth[since.epoch, channel]
        return numbers[bisect_right(numbers, since.seq) : bisect_right(numbers, until)]

    def evicted_to(self, channel: str, epoch: str) -> int:
        """Number of the last publication of a channel that can't be had any more."""
        log = next((log for log in self.forgotten if log.epoch == epoch), self.engine._log)
        ring = log._rings.get(channel)
        return 0 if ring is None else ring.evicted_to

    def resumed(self, client: Client, joined: list[Joined]) -> None:
        """A client was told whether something is missing."""
        self.counts["resumes" if client.place is not None else "joins"] += 1
        for each in joined:
            if client.place is None:
                assert each.recovered is None
                continue
            channel = each.topic.channel
            self.counts["recovered" if each.recovered else "not recovered"] += 1
            if client.place.epoch != self.engine.epoch:
                # When it has just happened that is told in a moment, by a gap.
                assert not each.recovered or each.has.epoch == client.place.epoch
            elif each.recovered is False:
                assert self.between(channel, client.place, self.engine.seq), "told of a gap, and nothing is missing"

    async def run(self, resumes: int) -> None:
        """Let it all happen, until so many have come back."""
        # What a client sees is wrong may be found in a task of the hub's.
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: self.broken.append(context))
        with patch.object(repair, "TOGETHER", self.random.choice((1, 2, 256))):
            await self._run(resumes)

    async def _run(self, resumes: int) -> None:
        await self.start()
        actions = [(self.publish, 40), (self.arrive, 20), (self.join, 20), (self.cut, 16), (self.pause, 12)]
        actions += [(self.restart, 0.2)]
        actions += [(self.lose, 1)] if self.lossy else []
        actions += [(self.forget, 0.1)] if self.forgets else []
        calls, weights = zip(*actions, strict=True)
        while self.counts["resumes"] < resumes:
            for call in self.random.choices(calls, weights, k=50):
                await call()
            for client in self.clients:
                task = client.joining
                if task is not None and task.done() and not task.cancelled():
                    client.joining = None
                    task.result()
            assert not self.broken, self.broken
        await self.settle()
        assert not self.broken, self.broken

    async def publish(self) -> None:
        for _ in range(self.random.randint(1, 6)):
            channel = self.random.choice(CHANNELS)
            self.engine.lagging = self.random.random() < 0.7
            sent = self.hub.publish(channel, 1)
            # What is delivered at once must be in the model before.
            self.truth[self.engine.epoch, channel].append(self.engine.seq + 1)
            cursor = (await sent).cursor
            assert self.truth[cursor.epoch, channel][-1] == cursor.seq

    async def arrive(self) -> None:
        self.engine.arrive(self.random.randint(0, len(self.engine.on_way)))

    async def join(self) -> None:
        client = self.random.choice(self.clients)
        if client.member is None:
            if client.joining is not None:
                client.cut()
            client.joining = asyncio.get_running_loop().create_task(client.join(self.hub))

    async def cut(self) -> None:
        self.random.choice(self.clients).cut()

    async def pause(self) -> None:
        for _ in range(self.random.randint(1, 5)):
            await asyncio.sleep(0)

    async def lose(self) -> None:
        """A part of what is on its way gets lost, and the engine says that this may have happened."""
        way = self.engine.on_way
        count = self.random.randint(0, len(way))
        for _ in range(count):
            way.popleft()
        self.hub.node.lost(None)

    async def forget(self) -> None:
        self.counts["forgotten"] += 1
        self.engine.lose()
        self.forgotten.append(self.engine._log)
        self.engine.forget()
        self.hub.node.lost(None)

    async def restart(self) -> None:
        """The node ends and begins again; the store is the same."""
        self.counts["restarts"] += 1
        for client in self.clients:
            client.cut()
        await self._quiet()
        gone(self.hub)
        log = self.engine._log
        await self.hub.aclose()
        self.engine = Engine()
        self.engine._log = log
        self.hub = Hub(self.engine, RULES)
        await self.start()

    async def settle(self) -> None:
        """Everything arrives: whoever is there now has all that there is, or was told."""
        self.engine.arrive()
        self.hub.node.lost(None)
        for client in self.clients:
            if client.joining is not None:
                await client.joining
        await self._quiet()
        self.engine.arrive()
        await self._quiet()
        for client in self.clients:
            if client.member is None:
                continue
            for channel, has in client.has.items():
                if has.epoch == self.engine.epoch:
                    assert not client.missing(channel, self.engine.seq), f"{channel} is not complete"
            client.cut()
        gone(self.hub)
        await self.hub.aclose()

    async def _quiet(self) -> None:
        for _ in range(60):
            await asyncio.sleep(0)

    async def _wait(self) -> None:
        self.engine.most = self.random.choice((1, 3, 10, 1000))
        for _ in range(self.random.choice((0, 0, 1, 3))):
            await asyncio.sleep(0)
