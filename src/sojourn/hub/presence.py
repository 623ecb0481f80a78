"""Who is in a channel: the members of this node, told to the engine in batches, and kept fresh there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextvars import Context
from typing import TYPE_CHECKING, Any

from sojourn.errors import EngineUnavailable
from sojourn.hub.engine import Engine, Present
from sojourn.hub.topic import Topic

if TYPE_CHECKING:
    from sojourn.hub.member import Member
    from sojourn.hub.stats import Stats
    from sojourn.hub.topics import Begin

__all__ = ["Presences", "Roll"]

Push = Callable[[Topic, Sequence[Present], Sequence[str]], None]


class Roll:
    """The members of this node that a channel shows.

    Attributes:
        here: They, by their ids.
        came: Those who came or changed since the last batch, by their ids.
        left: Ids of those who left since then.
        timer: The next batch; None when nothing is gathered.
    """

    __slots__ = ("came", "here", "left", "timer")

    def __init__(self) -> None:
        self.here: dict[str, Present] = {}
        self.came: dict[str, Present] = {}
        self.left: dict[str, None] = {}
        self.timer: asyncio.TimerHandle | None = None


class Presences:
    """Tells who comes and goes.

    Args:
        engine: Where presence of all nodes is.
        begin: Makes a task of a coroutine, with a name.
        push: Tells the members of a channel here.
        stats: Counted here.
        context: Of the hub, for what it does later.
    """

    def __init__(self, engine: Engine, begin: Begin, push: Push, stats: Stats, context: Context) -> None:
        self._engine = engine
        self._begin = begin
        self._push = push
        self._stats = stats
        self._context = context
        self._topics: dict[str, Topic] = {}
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        #: Seconds that it was set for.
        self._pause = 0.0

    def enter(self, topic: Topic, member: Member, info: Any) -> None:
        """A member is in a channel, or says something else about itself."""
        if topic.rule.presence is None:
            return
        if topic.roll is None:
            topic.roll = Roll()
        roll = topic.roll
        state = "suspect" if member.suspect else "normal"
        present = Present(member.id, member.user, state, member.identity.info if info is None else info)
        if member.id not in roll.here:
            self._stats.present += 1
        roll.here[member.id] = roll.came[member.id] = present
        roll.left.pop(member.id, None)
        self._topics[topic.channel] = topic
        self._gather(topic, roll)
        self._plan()

    def leave(self, topic: Topic, member: Member) -> None:
        """A member is in a channel no more."""
        roll = topic.roll
        if roll is None or roll.here.pop(member.id, None) is None:
            return
        self._stats.present -= 1
        roll.came.pop(member.id, None)
        roll.left[member.id] = None
        self._gather(topic, roll)

    def changed(self, topic: Topic, came: Sequence[Present], left: Sequence[str]) -> None:
        """Members of other nodes came, and left."""
        rule = topic.rule.presence
        if rule is not None and rule.events:
            self._push(topic, came, left)

    def back(self) -> None:
        """The engine is back, and may have forgotten everybody."""
        for topic in self._topics.values():
            if topic.roll is not None and topic.roll.here:
                self._begin(self._tell(topic, list(topic.roll.here.values()), []), "hub presence")

    async def farewell(self) -> None:
        """This node ends: whoever is still shown as here is so no more, and batches that are due are not waited for.

        Cancel: safe.
        """
        for topic in list(self._topics.values()):
            roll = topic.roll
            if roll is not None:
                gone = [*roll.left, *roll.here]
                roll.left, roll.came = {}, {}
                await self._tell(topic, [], gone)

    def stop(self) -> None:
        """Keep nobody fresh any more."""
        for topic in self._topics.values():
            if topic.roll is not None and topic.roll.timer is not None:
                topic.roll.timer.cancel()
                topic.roll.timer = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _gather(self, topic: Topic, roll: Roll) -> None:
        rule = topic.rule.presence
        if roll.timer is None and rule is not None:
            roll.timer = self._loop.call_later(rule.batch, self._batch, topic, roll, context=self._context)

    def _batch(self, topic: Topic, roll: Roll) -> None:
        came, left = list(roll.came.values()), list(roll.left)
        roll.came, roll.left, roll.timer = {}, {}, None
        if not roll.here:
            self._topics.pop(topic.channel, None)
            topic.roll = None
        if came or left:
            self.changed(topic, came, left)
            self._begin(self._tell(topic, came, left), "hub presence")

    async def _tell(self, topic: Topic, came: Sequence[Present], left: Sequence[str]) -> None:
        rule = topic.rule.presence
        assert rule is not None
        try:
            if came:
                await self._engine.enter(topic.channel, came, rule.ttl)
            if left:
                await self._engine.leave(topic.channel, left)
        except EngineUnavailable:
            return  # who is here is told again when it is back, and who left is gone after the ttl

    def _plan(self) -> None:
        """Refresh in time for the shortest ttl there is."""
        pause = min(topic.rule.presence.ttl for topic in self._topics.values() if topic.rule.presence is not None) / 3
        if self._timer is not None and pause < self._pause:
            self._timer.cancel()
            self._timer = None
        if self._timer is None:
            self._pause = pause
            self._timer = self._loop.call_later(pause, self._refresh, context=self._context)

    def _refresh(self) -> None:
        self._timer = None
        by_ttl: dict[float, dict[str, list[str]]] = {}
        for topic in self._topics.values():
            if topic.rule.presence is not None and topic.roll is not None and topic.roll.here:
                by_ttl.setdefault(topic.rule.presence.ttl, {})[topic.channel] = list(topic.roll.here)
        for ttl, present in by_ttl.items():
            self._begin(self._keep(present, ttl), "hub presence")
        if self._topics:
            self._plan()

    async def _keep(self, present: dict[str, list[str]], ttl: float) -> None:
        try:
            await self._engine.refresh(present, ttl)
        except EngineUnavailable:
            return  # as above
