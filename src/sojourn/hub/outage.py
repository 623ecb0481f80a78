"""What is published while the engine is away: the members of this node get it at once, and it is stored later.

It has no number then, so it can't be resumed from; members of other nodes get it when it is stored, and those here do
not get it again. What comes back from the engine is known by its content: it may come before the engine's answer does.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter, deque
from contextvars import Context
from typing import TYPE_CHECKING, Final

from sojourn.errors import EngineUnavailable
from sojourn.hub.engine import Engine, Publish
from sojourn.hub.publication import Kind, Publication

if TYPE_CHECKING:
    from sojourn.hub.topics import Begin

__all__ = ["Outage"]

#: What may wait to be stored; more than that is refused.
_MOST: Final = 1000
_MOST_BYTES: Final = 1024 * 1024
#: Seconds between two attempts to store it.
_AGAIN: Final = 1.0

_Content = tuple[str, Kind, str, bytes]


class Outage:
    """Publications that are to be stored when the engine is back, in order.

    Args:
        engine: Which is away now and then.
        begin: Makes a task of a coroutine, with a name.
        context: In which it tries again.
    """

    def __init__(self, engine: Engine, begin: Begin, context: Context) -> None:
        self._engine = engine
        self._begin = begin
        self._context = context
        self._loop = asyncio.get_running_loop()
        self._queue: deque[Publish] = deque()
        self._bytes = 0
        self._own: Counter[_Content] = Counter()
        self._timer: asyncio.TimerHandle | None = None
        self._storing = False

    @property
    def lasts(self) -> bool:
        """Whether something is not stored yet: what is published now comes behind it."""
        return bool(self._queue)

    def keep(self, publish: Publish) -> bool:
        """Store it later. Returns False when as much waits for that as may."""
        if len(self._queue) >= _MOST or self._bytes + len(publish.data) > _MOST_BYTES:
            return False
        # With an id, so that an attempt whose answer is lost can be repeated.
        self._queue.append(publish if publish.id else publish._replace(id=secrets.token_hex(8)))
        self._bytes += len(publish.data)
        self._own[publish.channel, publish.kind, publish.key, publish.data] += 1
        self._plan()
        return True

    def own(self, publication: Publication) -> bool:
        """Whether the members of this node have had it; asked once for each that comes."""
        if not self._own:
            return False
        content = (publication.channel, publication.kind, publication.key, publication.data)
        left = self._own.get(content, 0)
        if not left:
            return False
        if left == 1:
            del self._own[content]
        else:
            self._own[content] = left - 1
        return True

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
                publish = self._queue[0]
                await self._engine.publish(publish)
                self._queue.popleft()
                self._bytes -= len(publish.data)
        except EngineUnavailable:
            return  # it is tried again
        finally:
            self._storing = False
