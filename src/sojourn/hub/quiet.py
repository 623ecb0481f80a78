"""Heartbeats of members that no server of ours pings: event streams, and WebSockets of other servers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from sojourn.hub.member import Member
from sojourn.hub.pulled import PulledMember
from sojourn.hub.rules import HubPing

if TYPE_CHECKING:
    from sojourn.hub.node import Node

__all__ = ["Quiet"]

#: Looks at all members in the time between two pings.
_LOOKS: Final = 10


class Quiet:
    """One timer for all of them: who has been quiet is pinged, who does not answer is suspect, and then ended.

    An event stream can't answer: it gets a comment, and its connection says whether somebody is there. The same goes
    for a WebSocket in a form that has no word for a ping, under a server that pings by itself.

    Args:
        node: Where the members are.
        ping: When.
    """

    def __init__(self, node: Node, ping: HubPing) -> None:
        self._node = node
        self._ping = ping
        self._pinged: dict[PulledMember, tuple[float, int]] = {}
        self._pause = ping.every / _LOOKS
        self._last = node.now()
        self._timer: asyncio.TimerHandle | None = None
        self._plan()

    def heard(self, member: PulledMember) -> None:
        """Something came from a member."""
        member.heard_at = now = self._node.now()
        pinged = self._pinged.pop(member, None)
        if pinged is not None:
            self._node.stats.round_trip(now - pinged[0])
            self._node.doubts(member, suspect=False)

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _plan(self) -> None:
        self._timer = self._node.loop.call_later(self._pause, self._look, context=self._node.context)

    def _look(self) -> None:
        now = self._node.now()
        # After a stall nobody is judged: what came meanwhile is read after this.
        stood, self._last = now - self._last > 2 * self._pause + 1.0, now
        for member in list(self._node.members.values()):
            if member.transport == "sse":
                if now - member.spoken_at >= self._ping.every:
                    self._send(member)
            elif isinstance(member, PulledMember) and member.transport != "poll" and not stood:
                self._judge(member, now)
        for member in [each for each in self._pinged if each.over]:
            del self._pinged[member]
        for topic in self._node.topics.all():
            for group in topic.groups.values():
                group.settle_all()  # so that lists of connections show what was written
        self._plan()

    def _judge(self, member: PulledMember, now: float) -> None:
        ping = self._ping
        pinged = self._pinged.get(member)
        if pinged is None:
            if now - member.heard_at >= ping.every and self._send(member):
                self._pinged[member] = (now, 0)
            return
        since, missed = pinged
        if now - since < ping.pong_within:
            return
        missed += 1
        if missed >= ping.misses:
            self._node.end([member], 4012, "no sign of life")
            return
        self._node.doubts(member, suspect=True)
        self._send(member)
        self._pinged[member] = (now, missed)

    def _send(self, member: Member) -> bool:
        data = member.form.ping()
        if data is None:
            return False
        member.control(data)
        return True
