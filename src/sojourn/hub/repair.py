"""What may not have come to this node is read from history, in all channels at once, and then everything goes on.

Clients that know one place for all their channels resume from the last number that they got. So nothing may overtake:
while one channel is repaired, what comes of the others is held, and all of it is given in the order of its numbers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from operator import attrgetter
from typing import TYPE_CHECKING, Final

from sojourn.errors import EngineUnavailable
from sojourn.hub.engine import Engine
from sojourn.hub.publication import Publication
from sojourn.hub.reading import Read, read_history, with_live
from sojourn.hub.topic import Topic
from sojourn.scopes.work import together
from sojourn.wire.hub.cursor import Cursor

if TYPE_CHECKING:
    from sojourn.hub.stats import Stats
    from sojourn.hub.topics import Topics
    from sojourn.hub.turn import Turn

__all__ = ["Repair", "wake"]

#: Seconds before history is asked again when it could not be read.
_AGAIN: Final = 0.5
#: Publications that are held meanwhile; with more the node is behind anyway, and reads them instead.
_HELD: Final = 10_000
#: Channels that are read at the same time.
_AT_ONCE: Final = 64
_SEQ: Final = attrgetter("seq")

#: A topic, the place to tell, its state if there is one, and the place up to which something may be missing.
Tell = Callable[[Topic, Cursor, Publication | None, Cursor], None]


class Repair:
    """The repair of a node's channels; at most one goes on at a time.

    Args:
        engine: Where history is.
        topics: The channels.
        turn: Where publications are gathered.
        stats: Counted here.

    Attributes:
        gap: Called when something of a channel can't be had any more.
        snapshot: Makes the state of a channel; gives None where the application has none.
        own: Whether the members of this node have had a publication already, from before it was stored.
    """

    def __init__(self, engine: Engine, topics: Topics, turn: Turn, stats: Stats) -> None:
        self._engine = engine
        self._topics = topics
        self._turn = turn
        self._stats = stats
        self._loop = asyncio.get_running_loop()
        self._damaged: dict[Topic, None] = {}
        #: Whether the stream was broken as a whole: nothing that comes live says how far it has come.
        self._all = False
        #: Changes with each damage: what was read before it does not count.
        self._version = 0
        #: How many were held before the last damage: what came behind them is complete.
        self._sound = 0
        self._pausing: asyncio.Future[None] | None = None
        self._held: list[Publication] = []
        self._overflow = False
        self.running = False
        self.gap: Tell = lambda topic, cursor, state, last: None
        self.snapshot: Callable[[Topic], Awaitable[Publication | None]]
        self.own: Callable[[Publication], bool] = lambda publication: False

    def damage(self, topics: Iterable[Topic], *, all_of_it: bool = False) -> bool:
        """Something of these may be missing. Returns whether :meth:`run` is to be begun."""
        self._version += 1
        self._sound = len(self._held)
        self._damaged.update(dict.fromkeys(topics))
        self._all = self._all or all_of_it
        begins, self.running = not self.running, True
        return begins

    def hold(self, publication: Publication) -> None:
        """This comes behind what is read."""
        if len(self._held) < _HELD:
            self._held.append(publication)
        else:
            self._overflow = True

    @property
    def newest(self) -> Publication | None:
        """The last that is held."""
        return self._held[-1] if self._held else None

    async def run(self) -> None:
        """Read what is missing, until nothing is."""
        try:
            await self._run()
        finally:  # whatever happens, what is held goes on
            self._go_on()

    async def _run(self) -> None:
        while self._damaged:
            version = self._version
            damaged = [topic for topic in self._damaged if self._topics.get(topic.channel) is topic]
            found = await self._read(damaged)
            if found is None:
                await asyncio.wait((self._pause(),))
                continue
            if len({each.position.epoch for each in found.values()}) > 1:
                continue  # the store has forgotten in between
            self._fill(found)
            states = {topic: await self.snapshot(topic) for topic, each in found.items() if each.gap}
            if version != self._version:
                continue  # more was lost by now, and all is given in one order
            self._damaged.clear()
            here = {topic: each for topic, each in found.items() if self._topics.get(topic.channel) is topic}
            self._give(here, states)

    def stop(self) -> None:
        """Nothing is repaired any more."""
        self._version += 1
        self._damaged.clear()
        self._held.clear()
        if self._pausing is not None:
            wake(self._pausing)

    def _go_on(self) -> None:
        held, self._held, self._sound = self._held, [], 0
        again, self._overflow = self._overflow, False
        self.running = self._all = False
        epoch = self._topics.epoch
        for publication in held:
            if publication.epoch == epoch:
                self._topics.deliver(publication)
            else:
                # Of a life before this one, or of the next: history tells. It is not held again, or this had no end.
                again = True
        if again:
            self._topics.lost(None)

    async def _read(self, damaged: list[Topic]) -> dict[Topic, Read] | None:
        """Read the histories; None when that has to be tried again."""
        found: dict[Topic, Read] = {}
        try:
            for at in range(0, len(damaged), _AT_ONCE):
                some = damaged[at : at + _AT_ONCE]
                reads = [read_history(self._engine, topic, Cursor(topic.epoch, topic.seq)) for topic in some]
                found.update(zip(some, await together(reads, "hub repair"), strict=True))
        except EngineUnavailable:
            return None
        self._stats.repositioned += len(found)
        return found

    def _fill(self, found: dict[Topic, Read]) -> None:
        """What has gone from history while others were read is no gap when it is held."""
        cut = min((each.position for each in found.values()), key=_SEQ, default=None)
        held = self._held[self._sound :]
        if cut is None or not held or held[-1].epoch != cut.epoch or held[-1].seq < cut.seq:
            return
        came: dict[str, list[Publication]] = {}
        for publication in held:
            came.setdefault(publication.channel, []).append(publication)
        for topic, each in found.items():
            if each.gap:
                found[topic] = with_live(each, Cursor(topic.epoch, topic.seq), came.get(topic.channel, ()))

    def _give(self, found: dict[Topic, Read], states: dict[Topic, Publication | None]) -> None:
        """Everything up to the lowest of the places to which was read, in the order of its numbers."""
        if not found:
            return
        topics = self._topics
        cut = min((each.position for each in found.values()), key=_SEQ)
        if not self._all:
            # The live stream goes on: what it has not reached yet comes by itself, in all channels.
            reached = [each.seq for each in self._held if each.epoch == cut.epoch]
            reached += [topics.place] if topics.epoch == cut.epoch else []
            cut = Cursor(cut.epoch, min(cut.seq, max(reached, default=cut.seq)))
        place = Cursor(cut.epoch, min(cut.seq, topics.place) if topics.epoch == cut.epoch else 0)
        self._turn.flush()
        given = self._others(found, cut)
        for topic, each in found.items():
            state = states.get(topic)
            if each.gap:
                # Before anything else, and without a place beyond: who is cut off in between must hear of it again.
                last = min(each.start, cut.seq) if each.publications else cut.seq
                self.gap(topic, place, state, Cursor(cut.epoch, last))
            if state is None:  # else it was made after all that was read
                given.extend((p.seq, topic, p) for p in each.publications if p.seq <= cut.seq)
        for _, topic, publication in sorted(given, key=lambda item: item[0]):
            if not self.own(publication):
                self._turn.add(topic, publication)
        self._turn.flush()
        for topic in found:
            topic.epoch, topic.seq = cut
        topics.came_to(cut)

    def _others(self, found: dict[Topic, Read], cut: Cursor) -> list[tuple[int, Topic, Publication]]:
        """What was held of channels that have lost nothing."""
        given: list[tuple[int, Topic, Publication]] = []
        for publication in self._held:
            topic = self._topics.get(publication.channel)
            if topic is None or topic in found or publication.epoch != cut.epoch or publication.seq > cut.seq:
                continue
            if publication.epoch == topic.epoch and topic.seq < publication.seq:
                topic.seq = publication.seq
                given.append((publication.seq, topic, publication))
        return given

    def _pause(self) -> asyncio.Future[None]:
        self._pausing = pause = self._loop.create_future()
        timer = self._loop.call_later(_AGAIN, wake, pause)
        pause.add_done_callback(lambda _: timer.cancel())
        return pause


def wake(future: asyncio.Future[None]) -> None:
    """Let whoever waits for it go on."""
    if not future.done():
        future.set_result(None)
