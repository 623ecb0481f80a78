"""What is published while the engine is away: the members of this node get it at once, and it is stored later.

It has no number then, so it can't be resumed from; members of other nodes get it when it is stored, and so do those
that came here in between, but nobody gets it again. What comes back from the engine is known by its content until the
engine has answered, for it may come before that, and by its number from then on.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Callable
from contextvars import Context
from typing import TYPE_CHECKING, Final, NamedTuple

from sojourn.errors import EngineUnavailable
from sojourn.hub.engine import Engine, Publish
from sojourn.hub.publication import Publication
from sojourn.wire.hub.cursor import Cursor

if TYPE_CHECKING:
    from sojourn.hub.member import Member
    from sojourn.hub.topic import Topic
    from sojourn.hub.topics import Begin

__all__ = ["Outage"]

#: What may wait to be stored; more than that is refused.
_MOST: Final = 1000
_MOST_BYTES: Final = 1024 * 1024
#: Seconds between two attempts to store it.
_AGAIN: Final = 1.0


class _Kept(NamedTuple):
    """What is to be stored; by its number among all that were kept."""

    publish: Publish
    number: int

    def like(self, publication: Publication) -> bool:
        """Whether it may be this one."""
        kept = self.publish
        return (kept.channel, kept.kind, kept.key, kept.data) == (
            publication.channel,
            publication.kind,
            publication.key,
            publication.data,
        )


class Outage:
    """Publications that are to be stored when the engine is back, in order.

    Args:
        engine: Which is away now and then.
        begin: Makes a task of a coroutine, with a name.
        context: In which it tries again.
        find: Finds a channel that somebody here is in.
    """

    def __init__(self, engine: Engine, begin: Begin, context: Context, find: Callable[[str], Topic | None]) -> None:
        self._engine = engine
        self._find = find
        self._begin = begin
        self._context = context
        self._loop = asyncio.get_running_loop()
        self._queue: deque[_Kept] = deque()
        self._bytes = 0
        self._kept = 0
        #: Whether the first of the queue may have been stored already, and the place of one like it that came since.
        self._tried = False
        self._came: Cursor | None = None
        #: What is stored and has not come yet: its number among the kept, by its place.
        self._stored: dict[Cursor, int] = {}
        #: Members that have joined channels meanwhile, each with the number of the last that was kept before.
        self._joined: list[tuple[int, str, Member]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._storing = False

    @property
    def lasts(self) -> bool:
        """Whether something is not stored yet: what is published now comes behind it."""
        return bool(self._queue)

    def knows(self, publish: Publish) -> bool:
        """Whether it is a repetition of something that waits to be stored."""
        same = (publish.channel, publish.id)
        return bool(publish.id) and any((kept.publish.channel, kept.publish.id) == same for kept in self._queue)

    def keep(self, publish: Publish) -> bool:
        """Store it later. Returns False when as much waits for that as may."""
        if len(self._queue) >= _MOST or self._bytes + len(publish.data) > _MOST_BYTES:
            return False
        self._kept += 1
        # With an id, so that an attempt whose answer is lost can be repeated.
        asked = publish if publish.id else publish._replace(id=secrets.token_hex(8))
        self._queue.append(_Kept(asked, self._kept))
        self._bytes += len(publish.data)
        self._plan()
        return True

    def joined(self, channel: str, member: Member) -> None:
        """A member has joined a channel: what was kept of it before is new to it."""
        if self._queue or self._stored:
            self._joined.append((self._kept, channel, member))

    def own(self, publication: Publication) -> bool:
        """Whether the members of this node have had it; asked once for each that comes, in order."""
        if not (self._stored or self._tried):
            return False
        number = self._stored.pop(publication.cursor, 0)
        if self._tried and not number and self._came is None and self._queue[0].like(publication):
            self._came, number = publication.cursor, self._queue[0].number
        if number:
            self._give(publication, number)
        for place in [each for each in self._stored if each.epoch != publication.epoch or each.seq < publication.seq]:
            del self._stored[place]  # of channels in which nobody is any more
        if not (self._queue or self._stored):
            self._joined.clear()
        return bool(number)

    def _give(self, publication: Publication, number: int) -> None:
        """Those who came after it was published here have not had it."""
        for kept, channel, member in self._joined:
            topic = member.topics.get(channel)
            if kept < number or channel != publication.channel or topic is None:
                continue
            late = topic.late.get(member)
            if late is None or late.misses(publication.cursor):
                member.node.turn.flush()
                member.deliver((publication,))
        topic = self._find(publication.channel)
        if topic is not None:
            for member, missed in topic.catching.items():
                member.node.turn.flush()
                missed.append(publication)  # those who are about to come, either

    def back(self) -> None:
        """The engine can be reached again."""
        if self._queue and not self._storing:
            self._storing = True
            self._begin(self._store(), "hub store")

    def stop(self) -> None:
        """Try no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _plan(self) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(_AGAIN, self._again, context=self._context)

    def _again(self) -> None:
        self._timer = None
        if self._queue:
            self.back()
            self._plan()

    async def _store(self) -> None:
        try:
            while self._queue:
                kept = self._queue[0]
                self._tried = True
                published = await self._engine.publish(kept.publish)
                self._queue.popleft()
                self._bytes -= len(kept.publish.data)
                if self._came is None:
                    self._stored[published.cursor] = kept.number
                self._tried, self._came = False, None
        except EngineUnavailable:
            return  # it is tried again
        finally:
            self._storing = False
