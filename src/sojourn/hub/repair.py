"""What may not have come to this node is read from history, in all channels at once, and then everything goes on.

Clients that know one place for all their channels resume from the last number that they got. So nothing may overtake:
while one channel is repaired, what comes of the others is held, and all of it is given in the order of its numbers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Final

from sojourn.errors import EngineUnavailable
from sojourn.hub.engine import Engine
from sojourn.hub.publication import Publication
from sojourn.hub.reading import Read, read_history, settled
from sojourn.hub.topic import Topic
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
#: Channels that are read in one step; it holds up whoever has the store, and all who want something of it.
TOGETHER: Final = 256

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
        self._pausing: asyncio.Future[None] | None = None
        self._held: list[Publication] = []
        self._overflow = False
        #: The place that is to be held before the repair goes on.
        self._awaited: Cursor | None = None
        self.running = False
        self.gap: Tell = lambda topic, cursor, state, last: None
        self.snapshot: Callable[[Topic], Awaitable[Publication | None]]
        self.own: Callable[[Publication], bool] = lambda publication: False

    def damage(self, topics: Iterable[Topic], *, all_of_it: bool = False) -> bool:
        """Something of these may be missing. Returns whether :meth:`run` is to be begun."""
        self._version += 1
        self._damaged.update(dict.fromkeys(topics))
        self._all = self._all or all_of_it
        self._awaits_no_more()
        begins, self.running = not self.running, True
        return begins

    def hold(self, publication: Publication) -> None:
        """This comes behind what is read."""
        if len(self._held) < _HELD:
            self._held.append(publication)
        else:
            self._overflow = True
        if self._awaited is not None and (self._overflow or publication.cursor.reaches(self._awaited)):
            self._awaits_no_more()

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
            # Where the stream is broken as a whole nothing says of any channel what of it is still on its way.
            damaged = self._topics.all() if self._all else list(self._damaged)
            damaged = [topic for topic in damaged if self._topics.get(topic.channel) is topic]
            if not damaged:
                self._damaged.clear()
                continue
            read = await self._read(damaged)
            if read is None:
                await asyncio.wait((self._pause(),))
                continue
            place, found = read
            await self._reached(place, found)
            cut = self._cut(place)
            self._settle(found, cut)
            states = {topic: await self.snapshot(topic) for topic, each in found.items() if each.gap}
            if version != self._version or self._opened(found, cut):
                continue  # more was lost by now, and all is given in one order
            self._damaged.clear()
            self._give(
                {topic: each for topic, each in found.items() if self._topics.get(topic.channel) is topic}, states, cut
            )

    def stop(self) -> None:
        """Nothing is repaired any more."""
        self._version += 1
        self._damaged.clear()
        self._held.clear()
        if self._pausing is not None:
            wake(self._pausing)

    def _go_on(self) -> None:
        held, self._held = self._held, []
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

    async def _read(self, damaged: list[Topic]) -> tuple[Cursor, dict[Topic, Read]] | None:
        """Read the histories, and the place up to which all of them were; None when that has to be tried again."""
        place, found, at = Cursor("", 0), dict[Topic, Read](), 0
        try:
            while at < len(damaged):
                some = damaged[at : at + TOGETHER]
                position, read = await read_history(
                    self._engine, {topic: Cursor(topic.epoch, topic.seq) for topic in some}
                )
                if at and position.epoch != place.epoch:
                    found, at = {}, 0  # the store has forgotten in between
                    continue
                place = position if not at else place
                found.update(read)
                at += TOGETHER
        except EngineUnavailable:
            return None
        self._stats.repositioned += len(found)
        return place, found

    async def _reached(self, place: Cursor, found: dict[Topic, Read]) -> None:
        """What was evicted when others had been read is on its way, and tells what else is missing: wait for it."""
        evicted = place._replace(seq=max(each.lost or 0 for each in found.values()))
        if not place.reaches(evicted) and (self.newest is None or not self.newest.cursor.reaches(evicted)):
            self._awaited = evicted
            await asyncio.wait((self._pause(),))
            self._awaited = None

    def _awaits_no_more(self) -> None:
        if self._awaited is not None and self._pausing is not None:
            wake(self._pausing)

    def _cut(self, place: Cursor) -> Cursor:
        """Up to where everything is given: it was read in all channels."""
        if self._all:
            return place
        # The live stream goes on: what it has not reached yet comes by itself, in all channels.
        topics = self._topics
        reached = [each.seq for each in self._held if each.epoch == place.epoch]
        reached += [topics.place] if topics.epoch == place.epoch else []
        return Cursor(place.epoch, min(place.seq, max(reached, default=place.seq)))

    def _opened(self, found: dict[Topic, Read], cut: Cursor) -> bool:
        """Whether a channel has come, and what of it is before the cut may be still on its way."""
        new = (each for each in self._topics.all() if each not in found) if self._all else ()
        return any(not Cursor(each.epoch, each.seq).reaches(cut) for each in new)

    def _settle(self, found: dict[Topic, Read], cut: Cursor) -> None:
        """What has gone from history is no gap when it is held."""
        held: dict[str, list[Publication]] = {}
        for publication in self._held:
            held.setdefault(publication.channel, []).append(publication)
        for topic, each in found.items():
            if each.gap:
                here = topic.epoch == cut.epoch
                since = Cursor(cut.epoch, topic.seq if here else 0)
                made = settled(each, since, held.get(topic.channel, ()), cut, flows=not self._all)
                # In another life of the store it is a gap in any case.
                found[topic] = made if here or made.gap else made._replace(lost=0)

    def _give(self, found: dict[Topic, Read], states: dict[Topic, Publication | None], cut: Cursor) -> None:
        """Everything up to the cut, in the order of its numbers."""
        topics = self._topics
        place = Cursor(cut.epoch, min(cut.seq, topics.place) if topics.epoch == cut.epoch else 0)
        self._turn.flush()
        given = self._others(found, cut)
        for topic, each in found.items():
            state = states.get(topic)
            if each.lost is not None:
                # Before anything else, and without a place beyond: who is cut off in between must hear of it again.
                self.gap(topic, place, state, Cursor(cut.epoch, min(each.lost, cut.seq)))
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
