"""Joining channels without missing anything: read what was missed while what comes meanwhile is kept apart, then merge.

The order is what makes it exact. The channel is subscribed first, so whatever is published from then on comes to this
node; then history is read, to a place that each page names; then everything up to the lowest of those places is given
from the pages, and everything behind it from what came live. Each in the order of its number, over all channels that
are joined together, so that one number tells how far the member has come in all of them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sojourn.errors import ClientDisconnected, DeadlineExceeded
from sojourn.hub.cursor import Cursor
from sojourn.hub.engine import Engine
from sojourn.hub.member import Member
from sojourn.hub.publication import Publication
from sojourn.hub.topic import Topic
from sojourn.hub.topics import PAGE, Topics
from sojourn.hub.turn import Turn
from sojourn.scopes.deadline import deadline

if TYPE_CHECKING:
    from sojourn.hub.stats import Stats

__all__ = ["UNKNOWN", "Joined", "Joins"]

#: What stands for a position that nobody can read: everything after it counts as missing.
UNKNOWN: Final = Cursor("", 0)
#: Bytes of missed publications that are handed to a member before it is looked whether it takes them.
_PIECE: Final = 64 * 1024
_BY_SEQ: Final = attrgetter("seq")

Snapshot = Callable[[Topic], Awaitable[Publication | None]]


class Joined(NamedTuple):
    """What became of joining a channel.

    Attributes:
        topic: The channel.
        position: Everything after it follows.
        recovered: Whether nothing is missing; None when the member has not asked for what it missed.
        info: What the member says about itself there.
    """

    topic: Topic
    position: Cursor
    recovered: bool | None
    info: Any = None


class _Read(NamedTuple):
    """What was read of one channel."""

    publications: list[Publication]
    position: Cursor
    gap: bool


class Joins:
    """Lets members into channels.

    Args:
        engine: Where history is.
        topics: The channels of this node.
        turn: Where publications are gathered.
        stats: Counted here.

    Attributes:
        snapshot: Makes the state of a channel that a member has a gap in; gives None where the application has none.
    """

    def __init__(self, engine: Engine, topics: Topics, turn: Turn, stats: Stats) -> None:
        self._engine = engine
        self._topics = topics
        self._turn = turn
        self._stats = stats
        self.snapshot: Snapshot

    async def join(
        self, member: Member, wanted: Mapping[str, Cursor | None], tell: Callable[[list[Joined]], None]
    ) -> list[Joined]:
        """Let a member into channels, all at the same place in the stream.

        Args:
            member: Who; in none of them yet.
            wanted: Channels, each with the place it was at; None: from now on.
            tell: Called once with the outcome, before anything of the channels is delivered.

        Raises:
            AccessDenied: There is no such channel.
            EngineUnavailable: The channels can't be subscribed, or not read.
            ClientDisconnected: The member has ended meanwhile.

        Cancel: safe; it is in none of them then.
        """
        topics: dict[Topic, Cursor | None] = {}
        try:
            for channel, since in wanted.items():
                topics[await self._topics.open(channel)] = since
            self._turn.flush()
            for topic in topics:
                topic.catching[member] = []
            joined = await self._catch_up(member, topics, tell)
            _alive(member)
        except BaseException:
            for topic in topics:
                topic.catching.pop(member, None)
                self._topics.release(topic)
            raise
        for topic in topics:
            member.topics[topic.channel] = topic
            member.enter(topic)
        return joined

    async def _catch_up(
        self, member: Member, topics: Mapping[Topic, Cursor | None], tell: Callable[[list[Joined]], None]
    ) -> list[Joined]:
        read: dict[Topic, _Read] = {}
        for topic, since in topics.items():
            if not _is_there(topic, since):
                read[topic] = await self._read(topic, since)
        place = min((found.position.seq for found in read.values()), default=None)
        joined: list[Joined] = []
        publications: list[Publication] = []
        for topic, since in topics.items():
            found = read.get(topic)
            position = self._topics.covered(topic) if found is None else Cursor(found.position.epoch, place or 0)
            recovered = None if since is None else found is None or not found.gap
            joined.append(Joined(topic, position, recovered))
            self._stats.resumes["fresh" if recovered is None else "recovered" if recovered else "gap"] += 1
        self._turn.flush()
        tell(joined)
        for topic, found in read.items():
            state = await self.snapshot(topic) if found.gap else None
            if found.gap:
                self._stats.gaps += 1
            if state is not None:
                member.deliver_state(topic, state, Cursor(found.position.epoch, place or 0))
                continue
            if found.gap:
                member.hold_gap(topic, Cursor(found.position.epoch, _start(found)))
            publications.extend(each for each in found.publications if each.seq <= (place or 0))
        publications.sort(key=_BY_SEQ)
        await self._replay(member, topics, publications)
        # What came meanwhile, until there is no more: then the member is there, in the same turn of the loop.
        while True:
            self._turn.flush()
            missed = self._missed(member, topics, read, place)
            if not missed:
                return joined
            await self._replay(member, topics, missed)

    def _missed(
        self, member: Member, topics: Mapping[Topic, Any], read: Mapping[Topic, _Read], place: int | None
    ) -> list[Publication]:
        """What came live since the last look, without what was in a page."""
        missed: list[Publication] = []
        for topic in topics:
            came, topic.catching[member] = topic.catching[member], []
            found = read.get(topic)
            if found is None or place is None:
                missed.extend(came)
            else:
                missed.extend(each for each in came if each.seq > place or each.epoch != found.position.epoch)
        missed.sort(key=_BY_SEQ)
        return missed

    async def _read(self, topic: Topic, since: Cursor | None) -> _Read:
        publications: list[Publication] = []
        gap = False
        while True:
            page = await self._engine.history(topic.channel, since, PAGE, topic.rule.history)
            publications.extend(page.publications)
            gap = gap or page.gap
            since = page.position
            if not page.more:
                return _Read(publications, since, gap)

    async def _replay(self, member: Member, topics: Mapping[Topic, Any], publications: list[Publication]) -> None:
        """Hand over what was missed, as fast as the member takes it: it is not behind because it was away."""
        patience = max(topic.rule.outbox.max_age for topic in topics)
        piece: list[Publication] = []
        size = 0
        for publication in publications:
            piece.append(publication)
            size += len(publication.data)
            if size >= _PIECE:
                member.deliver(piece)
                await self._taken(member, patience)
                piece, size = [], 0
        if piece:
            member.deliver(piece)

    async def _taken(self, member: Member, patience: float) -> None:
        try:
            async with deadline(patience, "hub.replay"):
                await member.drained()
        except DeadlineExceeded:
            member.end(4008, "too slow")
        _alive(member)


def _alive(member: Member) -> None:
    if member.over:
        raise ClientDisconnected("the member has ended")


def _is_there(topic: Topic, since: Cursor | None) -> bool:
    """Whether nothing has to be read: most who come back were away for a moment only."""
    if since is None:
        return topic.rule.history.mode != "latest"  # of such a channel everybody gets the state first
    return since.epoch == topic.epoch and topic.held is None and since.seq >= topic.seq


def _start(found: _Read) -> int:
    return found.publications[0].prev if found.publications else found.position.seq
