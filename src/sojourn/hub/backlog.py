"""The members of this process that are behind: how much waits for all of them, since when, and what becomes of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context
from typing import TYPE_CHECKING, Final

from sojourn.hub.publication import Publication
from sojourn.hub.rules import Outbox
from sojourn.hub.topic import Topic
from sojourn.hub.waiting import Verdict, Waiting

if TYPE_CHECKING:
    from sojourn.hub.member import Member
    from sojourn.hub.stats import Stats

__all__ = ["Backlog"]

#: Seconds between two looks at what has waited too long.
_LOOK: Final = 0.5
#: Part of the limit below which publishers go on that had to wait for it.
_LOW: Final = 0.75
_KEPT: Final = Verdict.KEPT
_DROPPED: Final = Verdict.DROPPED


class Backlog:
    """Looks after those who are behind.

    Args:
        loop: The hub's loop.
        context: In which it looks.
        now: The hub's time, in seconds.
        stats: Counted here.

    Attributes:
        unicast: The rule of what is sent to one user or member, in no channel.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, context: Context, now: Callable[[], float], stats: Stats
    ) -> None:
        self._loop = loop
        self._context = context
        self._now = now
        self._stats = stats
        self._behind: dict[Member, bool] = {}
        self._timer: asyncio.TimerHandle | None = None
        #: Publishers that wait for room.
        self._publishers: list[asyncio.Future[None]] = []
        self.unicast = Outbox()

    @property
    def behind(self) -> list[Member]:
        """All members for whom something waits."""
        return list(self._behind)

    # Called by members

    def hold(self, member: Member, publication: Publication, topic: Topic | None, size: int) -> bool:
        """Let something wait for a member. Returns False when that has ended the member."""
        waiting = member.waiting
        if waiting is None:
            waiting = member.waiting = Waiting()
            self._behind[member] = False
            if self._timer is None:
                self._timer = self._loop.call_later(_LOOK, self._look, context=self._context)
        rule = self.unicast if topic is None else topic.rule.outbox
        before, dropped, conflated = waiting.bytes, waiting.dropped, waiting.conflated
        verdict = waiting.push(publication, rule, size, self._now())
        self._stats.wait(waiting.bytes - before)
        self._stats.conflated += waiting.conflated - conflated
        if verdict is _DROPPED:
            policy = rule.on_full if rule.on_full in self._stats.dropped else "drop_oldest"
            self._stats.dropped[policy] += waiting.dropped - dropped
        return verdict is _KEPT or self._judge(member, verdict, topic, rule)

    def took(self, member: Member, waiting: Waiting, before: int) -> None:
        """A member has taken some of what waited; it was so many bytes before."""
        self._stats.wait(waiting.bytes - before)
        if not waiting.count:
            self.forget(member)
        elif self._behind.get(member) and not waiting.slow:
            self._behind[member] = False
            self._stats.slow -= 1
        self._let_publish(member)

    def leave(self, member: Member, channel: str) -> None:
        """A member has left a channel: nothing of it waits for it any more."""
        waiting = member.waiting
        if waiting is not None:
            before = waiting.bytes
            waiting.forget(channel)
            self.took(member, waiting, before)

    def forget(self, member: Member) -> None:
        """Nothing waits for a member any more; whatever still did is dropped."""
        waiting, member.waiting = member.waiting, None
        if waiting is not None:
            self._stats.wait(-waiting.bytes)
            waiting.clear()
        if self._behind.pop(member, False):
            self._stats.slow -= 1
        self._let_publish(member)

    def close(self, member: Member, policy: str) -> None:
        """A member is too slow: it is closed, and what waited for it is lost to it until it resumes.

        Args:
            member: Which.
            policy: For whose sake: ``disconnect`` or ``block``.
        """
        waiting = member.waiting
        self._stats.dropped[policy] += waiting.count if waiting is not None else 0
        self._stats.closed(4008)
        member.node.bye(member, 4008, "too slow")
        member.end(4008, "too slow")

    def _judge(self, member: Member, verdict: Verdict, topic: Topic | None, rule: Outbox | None) -> bool:
        """Something did not fit, or had waited too long. Returns False when that has ended the member."""
        if verdict is Verdict.CLOSE:
            self.close(member, "block" if rule is not None and rule.on_full == "block" else "disconnect")
            return False
        if verdict is Verdict.BLOCK and topic is not None:
            topic.full.add(member)
        waiting = member.waiting
        if waiting is not None and waiting.slow and not self._behind.get(member):
            self._behind[member] = True
            self._stats.slow += 1
        return True

    def _look(self) -> None:
        """Look whether something has waited too long."""
        now = self._now()
        for member in list(self._behind):
            waiting = member.waiting
            if waiting is None:
                continue
            if waiting.slow is not self._behind[member]:
                self._behind[member] = waiting.slow
                self._stats.slow += 1 if waiting.slow else -1
            if waiting.next_expiry <= now:
                before, dropped = waiting.bytes, waiting.dropped
                verdict = waiting.expire(now)
                self._stats.wait(waiting.bytes - before)
                self._stats.dropped["drop_oldest"] += waiting.dropped - dropped
                if verdict is not _KEPT:
                    self._judge(member, verdict, None, None)
        self._timer = self._loop.call_later(_LOOK, self._look, context=self._context) if self._behind else None

    # Called by publishers

    async def room(self, limit: int | None) -> None:
        """Wait until less waits for all members together than the limit.

        Cancel: safe.
        """
        if limit is not None and self._stats.buffered > limit:
            # Below the limit by some, or publishers would stop and go with every message that is sent.
            while self._stats.buffered > limit * _LOW:
                await self._wait()

    async def fits(self, topic: Topic) -> None:
        """Wait until no member asks publishers of a channel to wait.

        Cancel: safe.
        """
        while topic.full:
            await self._wait()

    async def _wait(self) -> None:
        publisher = self._loop.create_future()
        self._publishers.append(publisher)
        try:
            await publisher
        finally:
            if publisher in self._publishers:
                self._publishers.remove(publisher)

    def _let_publish(self, member: Member) -> None:
        waiting = member.waiting
        for topic in member.topics.values():
            if member in topic.full and (waiting is None or not waiting.full(topic.rule.outbox)):
                topic.full.discard(member)
        publishers, self._publishers = self._publishers, []
        for publisher in publishers:
            if not publisher.done():
                publisher.set_result(None)

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
