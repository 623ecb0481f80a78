"""Publishing: room for what is to be sent, the engine, and what happens while that is away."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from sojourn.errors import DeadlineExceeded, EngineUnavailable, HubFull
from sojourn.hub.engine import Publish
from sojourn.hub.member import Member
from sojourn.hub.node import Node
from sojourn.hub.publication import Publication, payload_of
from sojourn.hub.topic import Topic
from sojourn.scopes.deadline import deadline, remaining
from sojourn.wire.hub.cursor import Cursor

__all__ = ["Publisher", "Receipt", "Sent", "receipt"]

#: Seconds that publishing waits for room, without a deadline of its caller.
_ROOM: Final = 5.0
#: Seconds for what is to be confirmed, when nobody says how many.
_CONFIRM: Final = 5.0
#: Part of its caller's time after which it gives up: HubFull says that nothing was published, a deadline does not.
_IN_TIME: Final = 0.9


class Sent(NamedTuple):
    """What became of a publication.

    Attributes:
        cursor: Its place in the stream; its text is what clients resume from.
        receivers: Members of this process in its channel.
        repeated: Whether its id had been published before, and nothing was published now.
        written: Whether it was handed to the connections of all of them; None when that was not awaited.
        stored: Whether the engine has it. While the engine is away the members of this process get it all the same
            (``Channel.while_away``), without a number; the others get it when the engine is back.
    """

    cursor: Cursor
    receivers: int
    repeated: bool = False
    written: bool | None = None
    stored: bool = True


class Receipt(NamedTuple):
    """How somebody wants to know that what it sends was written.

    Attributes:
        seconds: For how long it may take.
        call: Called with whether all had it in time; None: it is waited for.
    """

    seconds: float
    call: Callable[[bool], None] | None = None


def receipt(written: float | None, confirm: Callable[[bool], None] | None) -> Receipt | None:
    """What ``written`` and ``confirm`` of the hub's methods ask for; None when nobody wants to know."""
    if confirm is not None:
        return Receipt(_CONFIRM if written is None else written, confirm)
    return None if written is None else Receipt(written)


class Publisher:
    """Publishes for one hub; the arguments are those of :class:`~sojourn.hub.hub.Hub`.

    Args:
        node: The hub's part of this process.
        most: Bytes that may wait for all members together; None for any number.
    """

    def __init__(self, node: Node, most: int | None) -> None:
        self._node = node
        self._stats = node.stats
        self._most = most

    async def publish(self, channel: str, data: Any, key: str, id: str, wanted: Receipt | None) -> Sent:  # noqa: A002
        """Publish to everybody who is in a channel."""
        node = self._node
        rule, _ = node.topics.rule(channel)
        kind, payload = payload_of(data)
        asked = Publish(channel, kind, payload, rule.history, key, id)
        topic = node.topics.get(channel)
        if (topic is not None and topic.full) or (self._most is not None and self._stats.buffered > self._most):
            await self._room(topic)
        self._stats.published += 1
        if rule.while_away == "local" and node.outage.lasts:
            return self._publish_here(asked, EngineUnavailable("it has not caught up"), wanted)
        try:
            published = await node.engine.publish(asked)
        except EngineUnavailable as error:
            if rule.while_away == "refuse":
                raise
            return self._publish_here(asked, error, wanted)
        topic = node.topics.get(channel)
        receivers = 0 if topic is None else topic.size
        outcome = None
        if wanted is not None and wanted.call is not None:
            node.begin(self._confirm(topic, published.cursor, wanted.seconds, wanted.call), "hub confirm")
        elif wanted is not None:
            outcome = topic is None or await self._written(topic, published.cursor, wanted.seconds)
        return Sent(published.cursor, receivers, published.repeated, outcome)

    async def send(self, data: Any, user: str, member: str, wanted: Receipt | None) -> int:
        """Send to one user or connection."""
        node = self._node
        kind, payload = payload_of(data)
        members = node.find(user, member)
        node.send(members, kind, payload)
        if not (member and members):
            await node.send_elsewhere(user, member, kind, payload)
        if wanted is None:
            return len(members)
        if wanted.call is None:
            return await self._flushed(members, wanted.seconds)
        node.begin(self._confirm_sent(members, wanted.seconds, wanted.call), "hub confirm")
        return len(members)

    async def _confirm(self, topic: Topic | None, cursor: Cursor, seconds: float, call: Callable[[bool], None]) -> None:
        call(topic is None or await self._written(topic, cursor, seconds))

    async def _confirm_sent(self, members: Sequence[Member], seconds: float, call: Callable[[bool], None]) -> None:
        call(await self._flushed(members, seconds) == len(members))

    def _publish_here(self, asked: Publish, error: EngineUnavailable, wanted: Receipt | None) -> Sent:
        """The engine is away: this node's members get it now, and it is stored later."""
        node = self._node
        topic = node.topics.get(asked.channel)
        place = Cursor(node.topics.epoch, node.topics.place)
        if node.outage.knows(asked):
            return Sent(place, 0 if topic is None else topic.size, repeated=True, stored=False)
        if not node.outage.keep(asked):
            raise error
        if topic is None:
            return Sent(place, 0, stored=False)
        node.turn.add(topic, Publication(asked.channel, topic.epoch, 0, 0, asked.kind, asked.data, asked.key))
        if wanted is not None and wanted.call is not None:
            node.turn.flush()
            node.begin(self._confirm_sent(topic.members(), wanted.seconds, wanted.call), "hub confirm")
        return Sent(place, topic.size, stored=False)

    async def _room(self, topic: Topic | None) -> None:
        node = self._node
        left = remaining()
        seconds = _ROOM if left is None else left * _IN_TIME
        if topic is not None and topic.full:
            rule = topic.rule.outbox
            try:
                async with deadline(min(seconds, rule.wait), "hub.block"):
                    await node.backlog.fits(topic)
            except DeadlineExceeded:
                if seconds < rule.wait:  # the caller has less time than the members are given
                    raise HubFull(self._stats.buffered, self._most or 0) from None
                node.turn.flush()  # what was published before is theirs
                for member in list(topic.full):
                    node.backlog.close(member, "block")
        try:
            async with deadline(seconds, "hub.room"):
                await node.backlog.room(self._most)
        except DeadlineExceeded:
            raise HubFull(self._stats.buffered, self._most or 0) from None

    async def _written(self, topic: Topic, cursor: Cursor, seconds: float) -> bool:
        try:
            async with deadline(seconds, "hub.written"):
                await self._node.topics.reached(topic, cursor)
        except DeadlineExceeded:
            return False
        self._node.turn.flush()
        members = topic.members()
        return await self._flushed(members, seconds) == len(members)

    async def _flushed(self, members: Sequence[Member], seconds: float) -> int:
        marked = [(member, member.waiting, 0 if member.waiting is None else member.waiting.mark) for member in members]
        try:
            async with deadline(seconds, "hub.written"):
                for member, waiting, mark in marked:
                    await member.passes(waiting, mark)
        except DeadlineExceeded:
            pass  # whoever has it by now had it in time
        return sum(member.has_passed(waiting, mark) for member, waiting, mark in marked)
