"""The channels of this node: subscribed while somebody is in them, delivered in order, repaired after a loss."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextvars import Context
from typing import TYPE_CHECKING, Any, Final

from sojourn.errors import AccessDenied, EngineUnavailable
from sojourn.hub.engine import Engine
from sojourn.hub.patterns import Patterns, valid
from sojourn.hub.publication import Publication
from sojourn.hub.repair import Repair, wake
from sojourn.hub.rules import Channel
from sojourn.hub.topic import Topic
from sojourn.hub.turn import Turn
from sojourn.wire.hub.cursor import Cursor

if TYPE_CHECKING:
    from sojourn.hub.stats import Stats

__all__ = ["Begin", "Topics"]

Begin = Callable[[Coroutine[Any, Any, None], str], object]

#: Seconds for which a channel without members stays subscribed: clients that lose their connection come back to it.
_LINGER: Final = 5.0


class Topics:
    """What this node is subscribed to.

    Args:
        engine: Where order and history are.
        rules: What holds for which channel.
        turn: Where publications are gathered.
        begin: Makes a task of a coroutine, with a name.
        stats: Counted here.
        context: Of the hub, for what it does later.

    Attributes:
        repairs: Reads what may not have come.
        place: Number of the last publication that has come to this node, in any channel.
        epoch: The life of the store that it counts in; "" before the first.
    """

    def __init__(
        self, engine: Engine, rules: Patterns[Channel], turn: Turn, begin: Begin, stats: Stats, context: Context
    ) -> None:
        self._engine = engine
        self._rules = rules
        self._turn = turn
        self._begin = begin
        self._stats = stats
        self._all: dict[str, Topic] = {}
        #: Channels that are being subscribed, or given up; whoever wants one waits until that is over.
        self._opening: dict[str, asyncio.Future[Topic | None]] = {}
        #: What has come of channels that are subscribed already, and not open yet.
        self._early: dict[str, list[Publication]] = {}
        self._lingering: dict[str, asyncio.TimerHandle] = {}
        #: How often something was lost.
        self._losses = 0
        self._stopped = False
        self._loop = asyncio.get_running_loop()
        self._context = context
        self.repairs = Repair(engine, self, turn, stats)
        self.place = 0
        self.epoch = ""
        #: Who waits for a publication to come.
        self._reaching: list[asyncio.Future[None]] = []

    def __len__(self) -> int:
        return len(self._all)

    def get(self, channel: str) -> Topic | None:
        """A channel that somebody here is in."""
        return self._all.get(channel)

    def all(self) -> list[Topic]:
        """All channels that are subscribed."""
        return list(self._all.values())

    def rule(self, channel: str) -> tuple[Channel, dict[str, str]]:
        """What holds for a channel, and what its name says.

        Raises:
            AccessDenied: There is no such channel.
        """
        found = self._rules.find(channel) if valid(channel) else None
        if found is None:
            raise AccessDenied("", f"there is no channel {channel[:80]!r}")
        return found

    def covered(self, topic: Topic) -> Cursor:
        """Nothing of a topic up to this place is still to come: all that comes to the node comes in order."""
        if not self.repairs.running and topic.epoch == self.epoch and self.place > topic.seq:
            return Cursor(topic.epoch, self.place)
        return Cursor(topic.epoch, topic.seq)

    def newest(self, topic: Topic) -> Cursor:
        """The place of whoever joins from now on."""
        held, covered = self.repairs.newest, self.covered(topic)
        return covered if held is None or (held.epoch == covered.epoch and held.seq < covered.seq) else held.cursor

    async def open(self, channel: str) -> Topic:
        """Hold a channel, subscribed; to be given back by :meth:`release`.

        Raises:
            AccessDenied: There is no such channel.
            EngineUnavailable: It can't be subscribed.

        Cancel: safe; it is not held then.
        """
        while True:
            topic = self._all.get(channel)
            if topic is not None:
                self.hold(topic)
                return topic
            opening = self._opening.get(channel)
            if opening is not None:
                await asyncio.wait((opening,))
                if not opening.cancelled() and (error := opening.exception()) is not None:
                    raise error
                continue
            rule, params = self.rule(channel)
            self._opening[channel] = opening = self._loop.create_future()
            early: list[Publication] = []
            self._early[channel] = early
            losses = self._losses
            try:
                place = await self._engine.subscribe(channel)
            except BaseException as error:
                if isinstance(error, EngineUnavailable):
                    opening.set_exception(error)
                    opening.exception()  # nobody else may have asked
                else:
                    opening.cancel()
                raise
            finally:
                del self._opening[channel], self._early[channel]
            topic = self._all[channel] = Topic(channel, rule, params, place)
            if losses != self._losses:
                self._repair([topic], True)
            for publication in early:
                self.deliver(publication)
            opening.set_result(topic)

    def hold(self, topic: Topic) -> None:
        """Hold a topic that is open."""
        topic.users += 1
        lingering = self._lingering.pop(topic.channel, None)
        if lingering is not None:
            lingering.cancel()

    def release(self, topic: Topic) -> None:
        """Hold it no more."""
        topic.users -= 1
        if not topic.users and not self._stopped:
            self._lingering[topic.channel] = self._loop.call_later(_LINGER, self._forget, topic, context=self._context)

    def stop(self) -> None:
        """Nothing is subscribed any more, nor repaired."""
        self._stopped = True
        for timer in self._lingering.values():
            timer.cancel()
        self._lingering.clear()
        self._all.clear()
        self.repairs.stop()

    def _forget(self, topic: Topic) -> None:
        channel = topic.channel
        del self._lingering[channel], self._all[channel]
        # Whoever wants it again waits until it is given up: the two must not overtake each other on their way.
        self._opening[channel] = self._loop.create_future()
        self._begin(self._unsubscribe(channel), f"hub unsubscribe {channel}")

    async def _unsubscribe(self, channel: str) -> None:
        try:
            await self._engine.unsubscribe(channel)
        except EngineUnavailable:
            return  # with its connection its subscriptions are gone as well
        finally:
            self._opening.pop(channel).set_result(None)

    async def reached(self, topic: Topic, cursor: Cursor) -> None:
        """Wait until a publication has come to this node.

        Cancel: safe.
        """
        while topic.epoch == cursor.epoch and topic.seq < cursor.seq:
            reached = self._loop.create_future()
            self._reaching.append(reached)
            try:
                await reached
            finally:
                if reached in self._reaching:
                    self._reaching.remove(reached)

    # Publications

    def deliver(self, publication: Publication) -> None:
        """One has come."""
        topic = self._all.get(publication.channel)
        if topic is None and (early := self._early.get(publication.channel)) is not None:
            early.append(publication)
            return
        if self.repairs.running:
            self.repairs.hold(publication)
            return
        if topic is not None and (publication.epoch != topic.epoch or publication.prev > topic.seq):
            self._stats.holes += 1
            forgotten = publication.epoch != topic.epoch
            self._repair(self.all() if forgotten else [topic], forgotten)
            self.repairs.hold(publication)
            return
        if publication.epoch == self.epoch:
            if publication.seq > self.place:
                self.place = publication.seq
        else:
            self.epoch, self.place = publication.epoch, publication.seq
        if topic is not None and publication.seq > topic.seq:
            topic.seq = publication.seq
            if not self.repairs.own(publication):
                self._turn.add(topic, publication)
            if self._reaching:
                self._wake_reaching()

    def came_to(self, place: Cursor) -> None:
        """Everything up to a place was given, in the channels that it was missing in."""
        if place.epoch != self.epoch or place.seq > self.place:
            self.epoch, self.place = place
        self._wake_reaching()

    def lost(self, channels: Sequence[str] | None) -> None:
        """The engine does not know whether everything came."""
        self._losses += 1
        topics = self.all() if channels is None else [t for c in channels if (t := self._all.get(c)) is not None]
        if topics:
            self._repair(topics, True)

    def _repair(self, topics: list[Topic], all_of_it: bool) -> None:
        if self.repairs.damage(topics, all_of_it=all_of_it):
            self._begin(self.repairs.run(), "hub repair")

    def _wake_reaching(self) -> None:
        reaching, self._reaching = self._reaching, []
        for reached in reaching:
            wake(reached)
