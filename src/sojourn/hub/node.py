"""A hub's part of this process: its members, by id and by user, and what its engine tells it."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Coroutine, Sequence
from contextvars import Context
from itertools import count
from typing import Any

import msgspec

from sojourn.asgi.server_control import CURRENT_SERVER
from sojourn.clock import Clock, SystemClock
from sojourn.errors import ClientDisconnected
from sojourn.hub.backlog import Backlog
from sojourn.hub.engine import Engine, Present
from sojourn.hub.member import Member
from sojourn.hub.outage import Outage
from sojourn.hub.patterns import Patterns
from sojourn.hub.presence import Presences
from sojourn.hub.publication import Kind, Publication
from sojourn.hub.resume import Joins
from sojourn.hub.rules import Channel
from sojourn.hub.stats import Stats
from sojourn.hub.topic import Lost, Topic
from sojourn.hub.topics import Topics
from sojourn.hub.turn import Turn
from sojourn.scopes.failures import WORK
from sojourn.scopes.spawn import begin
from sojourn.scopes.work import launch
from sojourn.wire.hub.cursor import Cursor

__all__ = ["Node"]


class _Order(msgspec.Struct, array_like=True, omit_defaults=True):
    """What one node asks of all others."""

    user: str = ""
    member: str = ""
    kind: str = ""
    data: bytes = b""
    code: int = 0
    detail: str = ""
    join: str = ""
    leave: str = ""


class Node:
    """The members of one hub in one process. It is its engine's receiver.

    Args:
        engine: Where order, history and presence are.
        rules: What holds for which channel.
        clock: Times what waits.

    Attributes:
        stats: The numbers.
        members: All of them, by id.
        context: In which the hub's own callbacks run: nobody's request.
    """

    def __init__(self, engine: Engine, rules: Patterns[Channel], stats: Stats, clock: Clock | None = None) -> None:
        self.loop = asyncio.get_running_loop()
        self.context = Context()
        work = WORK.get(None)
        if work is not None:
            self.context.run(WORK.set, work)
        server = CURRENT_SERVER.get(None)
        if server is not None:
            self.context.run(CURRENT_SERVER.set, server)
        self.engine = engine
        self.stats = stats
        self.now: Callable[[], float] = (clock or SystemClock()).monotonic
        self.members: dict[str, Member] = {}
        self._users: dict[str, dict[Member, None]] = {}
        self._name = secrets.token_hex(4)
        self._numbers = count(1)
        self.turn = Turn(self.loop, self.context)
        self.topics = Topics(engine, rules, self.turn, self.begin, stats, self.context)
        self.outage = Outage(engine, self.begin, self.context, self.topics.get)
        self.topics.repairs.own = self.outage.own
        self.topics.repairs.gap = self._gap
        self.topics.repairs.snapshot = self._state_of
        self.joins = Joins(engine, self.topics, self.turn, stats)
        self.joins.snapshot = self._no_snapshot
        self.presences = Presences(engine, self.begin, self._push_presence, stats, self.context)
        self.backlog = Backlog(self.loop, self.context, self.now, stats)
        #: Called when the engine is away, and with None when it is back.
        self.engine_is: Callable[[Exception | None, float | None], None] = lambda error, lasted: None
        #: Called with a member that is about to be closed because the server stops, its close code and the reason.
        self.bye: Callable[[Member, int, str], None] = lambda member, code, reason: None
        #: Called with a member that has left.
        self.left: Callable[[Member], None] = lambda member: None

    def begin(self, coroutine: Coroutine[Any, Any, None], name: str) -> None:
        """Make a task of the hub's own."""
        self.context.copy().run(begin, coroutine, name, self.context.copy(), "the hub")

    def launch(self, coroutine: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Make a task whose failure the caller looks at."""
        return self.context.copy().run(launch, coroutine, name, self.context.copy())

    def new_id(self) -> str:
        """An id for a member, unique over all nodes."""
        return f"{self._name}-{next(self._numbers)}"

    # Members

    def admit(self, member: Member) -> None:
        """It is a member from now on."""
        self.members[member.id] = member
        if member.user:
            self._users.setdefault(member.user, {})[member] = None
        self.stats.members[member.transport] += 1

    def gone(self, member: Member) -> None:
        """It is a member no more. Calling it again does nothing."""
        if member.over:
            return
        member.over = True
        if self.members.pop(member.id, None) is None:
            member.dropped()  # it was never let in
            return
        mine = self._users.get(member.user)
        if mine is not None:
            mine.pop(member, None)
            if not mine:
                del self._users[member.user]
        member.dropped()
        for channel in list(member.topics):
            self.leave(member, channel)
        if member.suspect:
            self.stats.suspect -= 1
        self.stats.members[member.transport] -= 1
        self.left(member)

    def leave(self, member: Member, channel: str) -> bool:
        """Take a member out of a channel. Returns whether it was in it."""
        topic = member.topics.pop(channel, None)
        if topic is None:
            return False
        if not member.over:  # then nothing may be written to it any more
            self.turn.flush()
        topic.late.pop(member, None)
        member.forsake(topic)
        topic.full.discard(member)
        self.backlog.leave(member, channel)
        self.presences.leave(topic, member)
        member.infos.pop(channel, None)
        self.topics.release(topic)
        return True

    def of_user(self, user: str) -> list[Member]:
        """The members of a user in this process."""
        return list(self._users.get(user, ()))

    @property
    def users(self) -> int:
        """How many users have members in this process."""
        return len(self._users)

    def doubts(self, member: Member, suspect: bool) -> None:
        """The heartbeat has changed its mind about a member."""
        if member.over or suspect is member.suspect:
            return
        member.suspect = suspect
        self.stats.suspect += 1 if suspect else -1
        for topic in member.topics.values():
            if topic.roll is not None:
                self.presences.enter(topic, member, member.infos.get(topic.channel))

    def say_bye(self, member: Member, code: int, reason: str) -> None:
        """The server is about to close a member because it stops."""
        self.bye(member, code, reason)

    # From and to other nodes

    def find(self, user: str, member: str) -> list[Member]:
        """Members of this process: all of a user, or one, or that one if it is the user's."""
        if not member:
            return self.of_user(user) if user else []
        found = self.members.get(member)
        return [found] if found is not None and (not user or found.user == user) else []

    def send(self, members: Sequence[Member], kind: Kind, data: bytes) -> Publication:
        """Send something to members of this process, in no channel."""
        publication = Publication("", "", 0, 0, kind, data)
        self.turn.flush()
        for member in members:
            member.deliver((publication,))
        return publication

    def end(self, members: Sequence[Member], code: int, detail: str) -> int:
        """End members of this process. Returns how many."""
        self.turn.flush()  # what was published before is theirs
        for member in members:
            self.bye(member, code, detail)
            member.end(code, detail)
            self.stats.closed(code)
        return len(members)

    async def place(self, members: Sequence[Member], join: str, leave: str) -> None:
        """Put members of this process into a channel, from now on, and take them out of another; "" is none.

        Raises:
            AccessDenied: There is no such channel.
            EngineUnavailable: It can't be subscribed.
        """
        for member in members:
            if leave:
                self.leave(member, leave)
            if join and join not in member.topics and not member.over:
                try:
                    (joined,) = await self.joins.join(member, {join: None}, lambda joined: None)
                except ClientDisconnected:
                    continue  # it has left meanwhile
                self.outage.joined(join, member)
                self.presences.enter(joined.topic, member, None)

    async def place_elsewhere(self, user: str, member: str, join: str, leave: str) -> None:
        """Have members of other nodes put into a channel, and taken out of another."""
        await self.engine.tell(msgspec.msgpack.encode(_Order(user, member, join=join, leave=leave)))

    async def send_elsewhere(self, user: str, member: str, kind: Kind, data: bytes) -> None:
        """Send something to members of other nodes."""
        await self.engine.tell(msgspec.msgpack.encode(_Order(user, member, kind.value, data)))

    async def end_elsewhere(self, user: str, member: str, code: int, detail: str) -> None:
        """End members of other nodes."""
        await self.engine.tell(msgspec.msgpack.encode(_Order(user, member, code=code, detail=detail)))

    # The engine's receiver

    def deliver(self, publication: Publication) -> None:
        """Something was published."""
        self.topics.deliver(publication)

    def lost(self, channels: Sequence[str] | None) -> None:
        """Publications may be missing."""
        self.topics.lost(channels)

    def told(self, data: bytes) -> None:
        """Another node asks something of all."""
        try:
            order = msgspec.msgpack.decode(data, type=_Order)
            kind = Kind(order.kind) if order.kind else None
        except (msgspec.MsgspecError, ValueError):
            return  # of another version of the hub, which asks for what this one can't do
        members = self.find(order.user, order.member)
        if order.join or order.leave:
            self.begin(self.place(members, order.join, order.leave), "hub place")
        elif order.code:
            self.end(members, order.code, order.detail)
        elif members and kind is not None:
            self.send(members, kind, order.data)

    def changed(self, channel: str, came: Sequence[Present], left: Sequence[str]) -> None:
        """Members of other nodes came, and left."""
        topic = self.topics.get(channel)
        if topic is not None:
            self.presences.changed(topic, came, left)

    def away(self, error: Exception | None) -> None:
        """The engine can't be reached, or can again."""
        now = self.now()
        lasted = self.stats.away(now)
        if error is None:
            self.stats.engine_back(now)
            self.presences.back()
            self.outage.back()
        else:
            self.stats.engine_gone(now)
        self.engine_is(error, lasted)

    # What members are told

    def _gap(self, topic: Topic, cursor: Cursor, state: Publication | None, last: Cursor) -> None:
        """Something of a channel, up to a place, is lost for its members here, and for those who are about to join."""
        for member in topic.members():
            late = topic.late.get(member)
            if late is not None and not late.misses(last):
                continue
            self.stats.gaps += 1
            if state is None:
                member.hold_gap(topic, cursor)
            else:
                member.deliver_state(topic, state, cursor)
        for missed in topic.catching.values():
            missed.append(Lost(topic.channel, cursor, last))

    async def _state_of(self, topic: Topic) -> Publication | None:
        return await self.joins.snapshot(topic)

    def _push_presence(self, topic: Topic, came: Sequence[Present], left: Sequence[str]) -> None:
        encoded: dict[Any, bytes | None] = {}
        for member in topic.members():
            form = member.form
            if form not in encoded:
                encoded[form] = form.presence(topic.channel, came, left)
            data = encoded[form]
            if data is not None:
                member.control(data)

    async def _no_snapshot(self, topic: Topic) -> Publication | None:
        return None

    def stop(self) -> None:
        """Nothing of the hub's own runs any more."""
        self.topics.stop()
        self.presences.stop()
        self.outage.stop()
        self.backlog.stop()
