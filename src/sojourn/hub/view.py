"""How a hub stands in this process, for who looks at it from outside: the metrics of its server, and an operator."""

from __future__ import annotations

from heapq import nlargest
from typing import TYPE_CHECKING

from sojourn.errors import EngineUnavailable
from sojourn.events import StoreAway, StoreBack
from sojourn.hub.engine import Engine
from sojourn.hub.stats import Stats
from sojourn.scopes.hubs import ChannelInfo, HubInfo, Hubs, MemberInfo
from sojourn.scopes.used import Figures

if TYPE_CHECKING:
    from sojourn.hub.member import Member
    from sojourn.hub.node import Node
    from sojourn.hub.topic import Topic

__all__ = ["View"]


class View:
    """What ``scopes.hubs`` asks of a hub.

    Args:
        name: What the hub is called.
        engine: Its engine.
        stats: Its numbers.

    Attributes:
        node: Its part of this process; None until it has begun.
        hubs: Those of its server; None where it has none that wants to know.
    """

    def __init__(self, name: str, engine: Engine, stats: Stats) -> None:
        self.name = name
        self.node: Node | None = None
        self.hubs: Hubs | None = None
        self._engine = engine
        self._stats = stats

    def engine_is(self, error: Exception | None, lasted: float | None) -> None:
        """The engine can't be reached, or can again.

        Args:
            error: Why not; None when it can.
            lasted: Seconds since it could not; None when it could.
        """
        if self.hubs is None or (error is None) == (lasted is None):
            return
        if lasted is not None:
            self.hubs.tell(StoreBack("hub", self.name, self._kind, lasted))
        elif error is not None:
            problem = error.detail if isinstance(error, EngineUnavailable) else f"{type(error).__name__}: {error}"
            self.hubs.tell(StoreAway("hub", self.name, self._kind, problem, self._stats.total))

    @property
    def _kind(self) -> str:
        return type(self._engine).__name__.removesuffix("Engine").lower()

    def figures(self) -> Figures:
        """What it has done and has."""
        node, stats = self.node, self._stats
        if node is None:
            return stats.figures(0.0)
        stats.channels = sum(topic.size > 0 for topic in node.topics.all())
        return stats.figures(node.now())

    async def look(self, limit: int) -> HubInfo:
        """How it stands; at most so many channels and slow members. Some 0.3 us for each channel.

        Cancel: safe.
        """
        node, stats = self.node, self._stats
        topics = [] if node is None else [topic for topic in node.topics.all() if topic.size]
        slow = (
            [] if node is None else [member for member in node.backlog.behind if member.waiting and member.waiting.slow]
        )
        now = 0.0 if node is None else node.now()
        return HubInfo(
            name=self.name,
            engine=self._kind,
            away=stats.away(now),
            lag=stats.engine_lag,
            members={str(transport): number for transport, number in stats.members.items()},
            users=0 if node is None else node.users,
            suspect=stats.suspect,
            slow=stats.slow,
            channels=len(topics),
            present=stats.present,
            buffered=stats.buffered,
            largest=[_channel(topic) for topic in nlargest(limit, topics, key=lambda topic: topic.size)],
            waiting=[_member(member, now) for member in nlargest(limit, slow, key=lambda member: member.buffered)],
        )

    def disconnect_here(self, user: str, member: str, code: int) -> int:
        """End members of this process. Returns how many there were."""
        node = self.node
        return 0 if node is None else node.end(node.find(user, member), code, "ended by an operator")


def _channel(topic: Topic) -> ChannelInfo:
    return ChannelInfo(topic.channel, topic.size, f"{topic.epoch}.{topic.seq}" if topic.epoch else "")


def _member(member: Member, now: float) -> MemberInfo:
    waiting = member.waiting
    return MemberInfo(
        member=member.id,
        user=member.user,
        peer=member.address,
        transport=member.transport,
        state="suspect" if member.suspect else "normal",
        channels=len(member.topics),
        messages=0 if waiting is None else waiting.count,
        bytes=member.buffered,
        waits=0.0 if waiting is None else max(0.0, now - waiting.oldest),
    )
