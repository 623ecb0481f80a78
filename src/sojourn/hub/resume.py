"""Joining channels without missing anything: read what was missed while what comes meanwhile is kept apart, then merge.

The order is what makes it exact. The channel is subscribed first, so whatever is published from then on comes to this
node; then history is read, of all channels in one step, to a place that the page names; then everything up to that
place is given from the page, and everything behind it from what came live. Each in the order of its number, over all
channels that are joined together, so that one number tells how far the member has come in all of them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from math import inf
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sojourn.errors import ClientDisconnected, DeadlineExceeded
from sojourn.hub.engine import Engine
from sojourn.hub.member import Member
from sojourn.hub.publication import Publication
from sojourn.hub.reading import Read, read_history, settled
from sojourn.hub.topic import Late, Lost, Topic
from sojourn.hub.topics import Topics
from sojourn.hub.turn import Turn
from sojourn.scopes.deadline import deadline
from sojourn.wire.hub.cursor import Cursor

if TYPE_CHECKING:
    from sojourn.hub.stats import Stats

__all__ = ["UNKNOWN", "Joined", "Joins"]

#: What stands for a position that nobody can read: everything after it counts as missing.
UNKNOWN: Final = Cursor("", 0)
#: Bytes of missed publications that are handed to a member before it is looked whether it takes them.
_PIECE: Final = 64 * 1024

Snapshot = Callable[[Topic], Awaitable[Publication | None]]
_Item = Publication | Lost


class Joined(NamedTuple):
    """What became of joining a channel.

    Attributes:
        topic: The channel.
        position: Everything after it follows, first of all what was missed.
        recovered: Whether nothing is missing; None when the member has not asked for what it missed.
        has: The place it is at once it was given all that it missed.
    """

    topic: Topic
    position: Cursor
    recovered: bool | None
    has: Cursor


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
                topic.late.pop(member, None)
                self._topics.release(topic)
            raise
        for topic in topics:
            del topic.catching[member]
            member.topics[topic.channel] = topic
            if member not in topic.late:
                member.enter(topic)
        return joined

    async def _catch_up(
        self, member: Member, topics: Mapping[Topic, Cursor | None], tell: Callable[[list[Joined]], None]
    ) -> list[Joined]:
        began = {topic: topic.epoch for topic in topics}
        cut, read = await self._read_all(topics)
        self._turn.flush()
        for topic, found in read.items():
            since = topics[topic]
            if found.gap and since is not None and cut is not None and cut.reaches(since):
                read[topic] = settled(found, since, topic.catching[member], cut)
        joined: list[Joined] = []
        for topic, since in topics.items():
            joined.append(self._joined(topic, since, read.get(topic), cut))
        for each in joined:
            recovered = each.recovered
            self._stats.resumes["fresh" if recovered is None else "recovered" if recovered else "gap"] += 1
        late = {each.topic: Late(each.has, self._stale(member, each, began[each.topic])) for each in joined}
        tell(joined)
        if cut is not None:
            await self._give_read(member, topics, read, cut)
        # What came meanwhile, until there is no more: then the member is there, in the same turn of the loop.
        while True:
            self._turn.flush()
            missed = self._missed(member, late)
            if not missed:
                for topic, has in late.items():
                    covered = self._topics.covered(topic)
                    if covered != has.place and not has.misses(covered):
                        topic.late[member] = has
                return joined
            await self._replay(member, topics, missed, joined[0].has.epoch)

    async def _give_read(
        self, member: Member, topics: Mapping[Topic, Cursor | None], read: Mapping[Topic, Read], cut: Cursor
    ) -> None:
        """Give a member what was read, up to the place to which everything was read."""
        items: list[_Item] = []
        states: list[tuple[Topic, Publication | None]] = []
        forgotten = any(each is not None and each.epoch != cut.epoch for each in topics.values())
        for topic, found in read.items():
            if found.gap:
                self._stats.gaps += 1
                state = await self.snapshot(topic)
                states.append((topic, state))
                if state is not None:
                    continue  # it was made after all that was read
            items.extend(found.publications)
        # What is missing is told before anything else, and no place beyond it before all of that was: who is cut off in
        # between must hear of it again. 0 is no place, the client keeps the one it has from before the store forgot.
        first = max(0, min((each.cursor.seq - 1 for each in items), default=cut.seq))
        start = 0 if forgotten else min((each.seq for each in topics.values() if each is not None), default=0)
        for number, (topic, state) in enumerate(states, 1):
            place = Cursor(cut.epoch, first if number == len(states) else min(start, first))
            if state is None:
                member.hold_gap(topic, place)
            else:
                member.deliver_state(topic, state, place)
        await self._replay(member, topics, items, cut.epoch)

    def _joined(self, topic: Topic, since: Cursor | None, found: Read | None, cut: Cursor | None) -> Joined:
        """What a member is told, and what it has when it was given all that was read."""
        has = self._topics.covered(topic) if cut is None else cut
        if since is None:
            if cut is None:
                has = self._topics.newest(topic)
            return Joined(topic, has, None, has)
        if found is None:  # it may be ahead of this node
            return Joined(topic, since, True, since)
        if since.epoch == has.epoch and since.seq <= has.seq:
            return Joined(topic, since, not found.gap, has)  # it keeps its own place until it has what follows
        start = found.publications[0].prev if found.publications else has.seq
        return Joined(topic, Cursor(has.epoch, start), not found.gap, has)

    def _stale(self, member: Member, joined: Joined, began: str) -> frozenset[str]:
        """Epochs that are over for a member, though what came of them meanwhile waits for it, or is still to come."""
        topic, epoch = joined.topic, joined.has.epoch
        seen = {topic.epoch}
        if began != epoch:
            seen.update((began, *(item.cursor.epoch for item in topic.catching[member])))
        return frozenset(seen - {epoch})

    def _missed(self, member: Member, late: Mapping[Topic, Late]) -> list[_Item]:
        """What came live since the last look, without what the member has."""
        missed: list[_Item] = []
        for topic, each in late.items():
            came, topic.catching[member] = topic.catching[member], []
            for item in came:
                if isinstance(item, Lost):
                    new = each.misses(item.last)
                else:
                    new = not item.seq or each.misses(item.cursor)
                if new:
                    missed.append(item)
        return missed

    async def _read_all(self, topics: Mapping[Topic, Cursor | None]) -> tuple[Cursor | None, dict[Topic, Read]]:
        """Read what was missed, and the place up to which. All of it or nothing: then one place is that of all."""
        if all(self._is_there(topic, since) for topic, since in topics.items()):
            return None, {}
        return await read_history(
            self._engine,
            {t: since for t, since in topics.items() if since is not None or not self._is_there(t, since)},
        )

    def _is_there(self, topic: Topic, since: Cursor | None) -> bool:
        """Whether nothing has to be read: most who come back were away for a moment only."""
        if since is None:
            return topic.rule.history.mode != "latest"  # of such a channel everybody gets the state first
        if since.epoch != topic.epoch or self._topics.repairs.running:
            return False
        # Whoever is ahead of all that this node knows has perhaps made it up: the engine knows.
        return topic.seq <= since.seq <= self._topics.covered(topic).seq

    async def _replay(self, member: Member, topics: Mapping[Topic, Any], items: list[_Item], epoch: str) -> None:
        """Hand over what was missed, as fast as the member takes it: it is not behind because it was away."""
        if not items:
            return
        rules = [topic.rule.outbox for topic in topics]
        patience = max(rule.max_age for rule in rules)
        most = max(1, min(rule.max_messages for rule in rules) // 2)
        room = min(_PIECE, min(rule.max_bytes for rule in rules) // 2)
        by_channel = {topic.channel: topic for topic in topics}
        piece: list[Publication] = []
        size = 0
        for item in sorted(items, key=lambda item: _rank(item, epoch)):
            more = 0 if isinstance(item, Lost) else len(item.data)
            if piece and (not more or size + more > room or len(piece) >= most):
                await self._give(member, piece, patience)
                piece, size = [], 0
            if isinstance(item, Lost):
                member.hold_gap(by_channel[item.channel], item.cursor)
            else:
                piece.append(item)
                size += more
        if piece:
            await self._give(member, piece, patience)

    async def _give(self, member: Member, piece: list[Publication], patience: float) -> None:
        try:
            async with deadline(patience, "hub.replay"):
                await member.flushed()
        except DeadlineExceeded:
            member.node.end([member], 4008, "too slow")
        _alive(member)
        member.deliver(piece)


def _alive(member: Member) -> None:
    if member.over:
        raise ClientDisconnected("the member has ended")


def _rank(item: _Item, epoch: str) -> tuple[bool, float, bool]:
    """The order in which things are given: what has no number comes last, a notice behind all up to its place."""
    gap = isinstance(item, Lost)
    cursor = item.cursor
    return cursor.epoch != epoch, cursor.seq if gap or cursor.seq else inf, gap
