"""The channels of this node: subscribed while somebody is in them, delivered in order, repaired after a loss."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextvars import Context
from typing import TYPE_CHECKING, Any, Final

from sojourn.errors import AccessDenied, EngineUnavailable
from sojourn.hub.cursor import Cursor
from sojourn.hub.engine import Engine, Page
from sojourn.hub.patterns import Patterns, valid
from sojourn.hub.publication import Publication
from sojourn.hub.rules import Channel
from sojourn.hub.topic import Topic
from sojourn.hub.turn import Turn

if TYPE_CHECKING:
    from sojourn.hub.stats import Stats

__all__ = ["PAGE", "Begin", "Topics"]

Begin = Callable[[Coroutine[Any, Any, None], str], object]

#: Publications that are read from history at a time.
PAGE: Final = 500
#: Seconds for which a channel without members stays subscribed: clients that lose their connection come back to it.
_LINGER: Final = 5.0
#: Seconds before history is asked again when it could not be read.
_AGAIN: Final = 0.5
#: Publications that may come while a topic repairs itself; with more it is behind anyway, and reads them instead.
_HELD: Final = 10_000


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
        own: Whether the members of this node have had a publication already, from before it was stored.
        gap: Called with a topic and a place when something before that place can't be had any more; and with the
            channel's state, if the application has one.
        snapshot: Makes the state of a channel; gives None where the application has none.
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
        self._stopped = False
        self._loop = asyncio.get_running_loop()
        self._context = context
        self.own: Callable[[Publication], bool] = lambda publication: False
        self.gap: Callable[[Topic, Cursor, Publication | None], None] = lambda topic, cursor, state: None
        self.snapshot: Callable[[Topic], Awaitable[Publication | None]]
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
        if topic.held is None and topic.epoch == self.epoch and self.place > topic.seq:
            return Cursor(topic.epoch, self.place)
        return Cursor(topic.epoch, topic.seq)

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
        if publication.epoch == self.epoch:
            if publication.seq > self.place:
                self.place = publication.seq
        else:
            self.epoch, self.place = publication.epoch, publication.seq
        if topic is None:
            return
        if topic.held is not None:
            if len(topic.held) < _HELD:
                topic.held.append(publication)
            return
        if publication.epoch != topic.epoch or publication.prev > topic.seq:
            self._stats.holes += 1
            self.repair(topic, publication)
        elif publication.seq > topic.seq:
            topic.seq = publication.seq
            if not self.own(publication):
                self._turn.add(topic, publication)
            if self._reaching:
                self._wake_reaching()

    def _wake_reaching(self) -> None:
        reaching, self._reaching = self._reaching, []
        for reached in reaching:
            _wake(reached)

    def repair(self, topic: Topic, publication: Publication | None = None) -> None:
        """Read what may be missing between the topic's place and what comes now."""
        if topic.held is not None:
            return
        topic.held = [] if publication is None else [publication]
        self._begin(self._repair(topic), f"hub repair {topic.channel}")

    async def _repair(self, topic: Topic) -> None:
        while topic.held is not None and self._all.get(topic.channel) is topic:
            since = Cursor(topic.epoch, topic.seq)
            try:
                page = await self._engine.history(topic.channel, since, PAGE, topic.rule.history)
            except EngineUnavailable:
                await asyncio.wait((self._pause(_AGAIN),))
                continue
            self._stats.repositioned += 1
            self._take_page(topic, page, await self.snapshot(topic) if page.gap else None)
            if not page.more:
                self._take_held(topic)

    def _pause(self, seconds: float) -> asyncio.Future[None]:
        pause = self._loop.create_future()
        self._loop.call_later(seconds, _wake, pause)
        return pause

    def _take_page(self, topic: Topic, page: Page, state: Publication | None) -> None:
        publications = page.publications
        if page.gap:
            self._turn.flush()
            if state is not None:
                publications = ()  # the state was made after they were
            first = publications[0].prev if publications else page.position.seq
            self.gap(topic, Cursor(page.position.epoch, first), state)
        for publication in publications:
            new = page.gap or publication.seq > topic.seq or publication.epoch != topic.epoch
            if new and not self.own(publication):
                self._turn.add(topic, publication)
        topic.epoch, topic.seq = page.position
        self._wake_reaching()

    def _take_held(self, topic: Topic) -> None:
        held, topic.held = topic.held or [], None
        again = len(held) >= _HELD
        for publication in held:
            if publication.epoch != topic.epoch:
                # Of a life before this one, or of the next: history tells. It is not held again, or this had no end.
                again = True
            elif publication.seq > topic.seq:
                self.deliver(publication)
        if again:
            self.repair(topic)

    def lost(self, channels: Sequence[str] | None) -> None:
        """The engine does not know whether everything came."""
        for topic in self.all() if channels is None else [t for c in channels if (t := self._all.get(c)) is not None]:
            self.repair(topic)


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
