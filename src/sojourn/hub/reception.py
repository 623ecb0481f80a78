"""What a hub does for those who come in, whatever they speak: admits them, greets them, lets them into channels."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

from sojourn.errors import ClientDisconnected, EngineUnavailable
from sojourn.hub.codes import comes_back
from sojourn.hub.door import Door
from sojourn.hub.member import Member
from sojourn.hub.node import Node
from sojourn.hub.pulled import PulledMember
from sojourn.hub.quiet import Quiet
from sojourn.hub.resume import Joined
from sojourn.hub.rules import HubDrain, HubLimits, HubPing
from sojourn.wire import hub as wire
from sojourn.wire.hub.cursor import Cursor

__all__ = ["Reception"]


class Reception:
    """Where members are received.

    Args:
        node: The hub's part of this process.
        door: Who may come in.
        ping: How members prove that they live.
        limits: How much each may say.
        drain: How they are sent away.
    """

    def __init__(self, node: Node, door: Door, ping: HubPing, limits: HubLimits, drain: HubDrain) -> None:
        self._node = node
        self._door = door
        self._ping = ping
        self._limits = limits
        self._drain = drain
        self.quiet = Quiet(node, ping)
        node.bye = self.bye
        node.left = door.leave

    def admit(self, member: Member) -> None:
        """Let a member in.

        Raises:
            ClientDisconnected: There is no room for it; it was closed.
        """
        refused = self._door.admit(member.address, member.user)
        if refused is not None:
            member.end(refused.code, refused.detail)
            raise ClientDisconnected(refused.detail)
        self._node.admit(member)

    async def let_in(
        self, member: Member, wanted: Mapping[str, Cursor | None], tell: Callable[[list[Joined]], None], info: Any
    ) -> list[Joined]:
        """Let a member into channels; whether it may was asked.

        Raises and Cancel: as :meth:`Connected.join`.
        """
        node = self._node
        joined = await node.joins.join(member, wanted, tell)
        for each in joined:
            node.outage.joined(each.topic.channel, member)
            if info is not None:
                member.infos[each.topic.channel] = info
            if member.transport != "poll":  # it comes and goes with every poll
                node.presences.enter(each.topic, member, info)
        return joined

    async def place(self) -> Cursor:
        """A place from which whoever joins now misses nothing."""
        topics = self._node.topics
        if topics.epoch:
            return Cursor(topics.epoch, topics.place)
        try:
            return await self._node.engine.position()
        except EngineUnavailable:
            return Cursor("0", 0)  # of no epoch: resuming from it tells of a gap

    def greet(self, member: Member, place: Cursor) -> None:
        """Say the first that is said."""
        ping = self._ping
        hello = wire.Hello(
            member.id, str(place), ping.every, ping.pong_within, self._drain.retry, self._limits.message, member.user
        )
        data = member.form.hello(hello, random.randint(*self._drain.retry))
        if data is not None:
            member.control(data)

    def alive(self, member: Member) -> None:
        """Something came from a member."""
        if isinstance(member, PulledMember):
            self.quiet.heard(member)

    def bye(self, member: Member, code: int, reason: str) -> None:
        """Tell a member that it is about to be closed."""
        retry = self._drain.retry if comes_back(code) else None
        wait = random.randint(*self._drain.retry)
        data = member.form.bye(wire.Bye(code, reason, retry), wait)
        if data is not None:
            member.control(data)
