"""Who is present, in Redis: members of a channel with the moment until which each is there, and how often each user is.

What a node has told is remembered by it, so that it can tell it again to a Redis that has forgotten.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from sojourn.hub.engine import Present
from sojourn.hub.redis.envelope import change, present_of, who
from sojourn.hub.redis.store import Asked, Store

__all__ = ["Roll"]

#: Members in one script, and channels: Redis does nothing else meanwhile.
_STEP: Final = 500
_CHANNELS: Final = 200


class Roll:
    """The members of one node, and questions about those of all.

    Args:
        store: Where they are kept.
        node: Id of this node.

    Attributes:
        mine: Members of this node, by channel and id.
        used: Whether there has been anybody in a channel, as far as this node knows.
    """

    def __init__(self, store: Store, node: str) -> None:
        self._store = store
        self._node = node
        self._ttl = 60.0
        self.mine: dict[str, dict[str, Present]] = {}
        self.used = False

    async def enter(self, channel: str, members: Sequence[Present], ttl: float) -> None:
        """As of :class:`sojourn.hub.engine.Engine`."""
        self._ttl, self.used = ttl, True
        self.mine.setdefault(channel, {}).update((present.member, present) for present in members)
        for some in _steps(members):
            told = change(self._node, some, ())
            values = [part for present in some for part in (present.member.encode(), who(present))]
            await self._run("enter", channel, told, _ms(ttl), channel.encode(), *values)

    async def leave(self, channel: str, members: Sequence[str]) -> None:
        """As of :class:`sojourn.hub.engine.Engine`."""
        mine = self.mine.get(channel, {})
        for member in members:
            mine.pop(member, None)
        if not mine:
            self.mine.pop(channel, None)
        for some in _steps(members):
            await self._run("leave", channel, change(self._node, (), some), *(member.encode() for member in some))

    async def refresh(self, present: Mapping[str, Sequence[str]], ttl: float) -> None:
        """As of :class:`sojourn.hub.engine.Engine`. Who has been forgotten is told again."""
        self._ttl = ttl
        for part in _parts(present):
            missing = await self._store.run(self._store.scripts.refresh, self._refreshing(part, ttl))
            if missing:
                names = [(channel, member) for channel, members in part for member in members]
                await self._tell_again([names[at] for at in missing])

    async def restore(self) -> None:
        """Tell everything again, to a Redis that has lost it all."""
        await self.refresh({channel: list(members) for channel, members in self.mine.items()}, self._ttl)

    async def sweep(self) -> None:
        """Have those gone whose time is over: those of nodes that have died. Every node does so once a second."""
        if not self.used:
            return
        keys, scripts = self._store.keys, self._store.scripts
        due = await self._store.run(
            scripts.due, lambda life: Asked([keys.meta, keys.due(life)], [life.encode(), _CHANNELS])
        )
        if not due:
            return
        channels = [channel.decode() for channel in due]

        def build(life: str) -> Asked:
            names, arguments = [keys.meta, keys.due(life)], [life.encode()]
            for channel in channels:
                names += keys.presence(life, channel)
                arguments += (keys.channel(channel), channel.encode())
            return Asked(names, arguments)

        await self._store.run(scripts.sweep, build)

    async def present(self, channel: str, limit: int) -> list[Present]:
        """As of :class:`sojourn.hub.engine.Engine`."""
        values = await self._run("who", channel, limit)
        return [present_of(value) for value in values if value is not None]

    async def count(self, channel: str) -> tuple[int, int]:
        """As of :class:`sojourn.hub.engine.Engine`."""
        members, users = await self._run("count", channel)
        return int(members), int(users)

    async def _tell_again(self, forgotten: Sequence[tuple[str, str]]) -> None:
        again: dict[str, list[Present]] = {}
        for channel, member in forgotten:
            present = self.mine.get(channel, {}).get(member)
            if present is not None:
                again.setdefault(channel, []).append(present)
        for channel, members in again.items():
            await self.enter(channel, members, self._ttl)

    async def _run(self, name: str, channel: str, *arguments: Any) -> Any:
        keys = self._store.keys

        def build(life: str) -> Asked:
            names = [keys.meta, keys.due(life), *keys.presence(life, channel)]
            return Asked(names, [life.encode(), keys.channel(channel), *arguments])

        return await self._store.run(getattr(self._store.scripts, name), build)

    def _refreshing(self, part: Sequence[tuple[str, Sequence[str]]], ttl: float) -> Any:
        keys = self._store.keys

        def build(life: str) -> Asked:
            names = [keys.meta, keys.due(life)]
            arguments: list[Any] = [life.encode(), _ms(ttl)]
            for channel, members in part:
                names += keys.presence(life, channel)
                arguments += (keys.channel(channel), len(members), *(member.encode() for member in members))
            return Asked(names, arguments)

        return build


def _ms(seconds: float) -> int:
    return max(1, int(seconds * 1000))


def _steps(members: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for at in range(0, len(members), _STEP):
        yield members[at : at + _STEP]


def _parts(present: Mapping[str, Sequence[str]]) -> Iterator[list[tuple[str, Sequence[str]]]]:
    """What fits into one script each: channels with some of their members."""
    part: list[tuple[str, Sequence[str]]] = []
    size = 0
    for channel, members in list(present.items()):
        for some in _steps(members):
            if part and (size + len(some) > _STEP or len(part) == _CHANNELS):
                yield part
                part, size = [], 0
            part.append((channel, some))
            size += len(some)
    if part:
        yield part
