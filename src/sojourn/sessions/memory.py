"""Sessions in the memory of one process."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from sojourn.clock import Clock, SystemClock
from sojourn.errors import SessionStoreUnavailable
from sojourn.sessions.store import Watcher
from sojourn.sessions.stored import GRACE, Draft, Revocation, Saved, Stored

__all__ = ["MemorySessions"]

#: Old sessions looked at when a new one comes: what is over goes, so that the number stays near that of those in use.
_LOOKS: Final = 4


@dataclass(slots=True)
class _Entry:
    user: str
    data: bytes
    version: int
    created: float
    idle: float
    idle_until: float
    expires: float
    read_only: bool = False


class MemorySessions:
    """Sessions of this process; they end with it. For tests, and for one worker that may forget.

    Their number is bounded. When there is no room, the one that was longest out of use and has no user goes; sessions
    with a user never do, and without any other a new one is refused with SessionStoreUnavailable.

    Args:
        limit: Most sessions.
        clock: The time; None takes the machine's.

    Raises:
        ValueError: The limit is below one.

    Example:
        >>> async def app(scope, receive, send): ...
        >>> app = Sessions(app, MemorySessions(limit=10_000))
    """

    def __init__(self, limit: int = 100_000, *, clock: Clock | None = None) -> None:
        if limit < 1:
            raise ValueError(f"room for {limit} sessions is too little: write 1 or more")
        self._limit = limit
        self._clock = clock or SystemClock()
        #: With a user, and without; the one longest out of use is the first.
        self._known: OrderedDict[str, _Entry] = OrderedDict()
        self._unknown: OrderedDict[str, _Entry] = OrderedDict()
        self._watchers: list[Watcher] = []

    def __len__(self) -> int:
        """How many are remembered."""
        return len(self._known) + len(self._unknown)

    async def load(self, key: str) -> Stored | None:
        """See SessionStore."""
        entry = self._use(key)
        return None if entry is None else self._stored(key, entry)

    async def create(self, key: str, draft: Draft) -> Stored:
        """See SessionStore.

        Raises:
            SessionStoreUnavailable: There is no room.
        """
        now = self._clock.wall()
        self._make_room(now)
        idle_until = now + min(draft.idle, draft.absolute)
        entry = _Entry(draft.user, draft.data, 1, now, draft.idle, idle_until, now + draft.absolute)
        self._group(entry)[key] = entry
        return self._stored(key, entry)

    async def save(self, key: str, version: int, data: bytes) -> Saved:
        """See SessionStore."""
        entry = self._use(key)
        if entry is None:
            return Saved(False, None)
        if entry.version != version or entry.read_only:
            return Saved(False, self._stored(key, entry))
        entry.version += 1
        entry.data = data
        return Saved(True, self._stored(key, entry))

    async def rotate(self, key: str, version: int, new: str, draft: Draft) -> Saved:
        """See SessionStore."""
        old = self._use(key)
        if old is None:
            return Saved(False, None)
        if old.version != version or old.read_only:
            return Saved(False, self._stored(key, old))
        same = old.user == draft.user
        given_up = bool(old.user) and not same
        if given_up:
            self._group(old).pop(key)
        stored = await self.create(new, draft)
        if same:
            entry = self._group(old)[new]
            entry.created, entry.expires = old.created, old.expires
            entry.idle_until = min(entry.idle_until, old.expires)
            stored = self._stored(new, entry)
        if not given_up:
            old.read_only = True
            old.idle_until = min(old.idle_until, self._clock.wall() + GRACE)
        self._tell(Revocation("session" if given_up else "rotated", key))
        return Saved(True, stored)

    async def touch(self, keys: Collection[str]) -> set[str]:
        """See SessionStore."""
        return {key for key in keys if self._use(key) is not None}

    async def revoke(self, revocation: Revocation) -> None:
        """See SessionStore."""
        what, name, keep = revocation
        if what == "session":
            self._known.pop(name, None)
            self._unknown.pop(name, None)
        elif what == "user":
            for key in [key for key, entry in self._known.items() if entry.user == name and key != keep]:
                del self._known[key]
        elif what == "all":
            self._known.clear()
            self._unknown.clear()
        self._tell(revocation)

    async def of(self, user: str) -> Sequence[Stored]:
        """See SessionStore."""
        now = self._clock.wall()
        found = [
            self._stored(key, entry)
            for key, entry in self._known.items()
            if entry.user == user and not entry.read_only and entry.idle_until > now
        ]
        return sorted(found, key=lambda stored: stored.created)

    async def watch(self, watcher: Watcher) -> None:
        """See SessionStore."""
        self._watchers.append(watcher)
        try:
            watcher.missed()
            await asyncio.get_running_loop().create_future()
        finally:
            self._watchers.remove(watcher)

    async def aclose(self) -> None:
        """Nothing is to be given back."""

    def _use(self, key: str) -> _Entry | None:
        entry = self._known.get(key) or self._unknown.get(key)
        if entry is None:
            return None
        group, now = self._group(entry), self._clock.wall()
        if entry.idle_until <= now:
            del group[key]
            return None
        if not entry.read_only:
            entry.idle_until = min(now + entry.idle, entry.expires)
        group.move_to_end(key)
        return entry

    def _group(self, entry: _Entry) -> OrderedDict[str, _Entry]:
        return self._known if entry.user else self._unknown

    def _make_room(self, now: float) -> None:
        for group in (self._known, self._unknown):
            for _ in range(min(_LOOKS, len(group))):
                key, entry = next(iter(group.items()))
                if entry.idle_until > now:
                    break
                del group[key]
        if len(self) >= self._limit:
            if not self._unknown:
                raise SessionStoreUnavailable(f"{self._limit} sessions are open, and no more may be")
            self._unknown.popitem(last=False)

    def _stored(self, key: str, entry: _Entry) -> Stored:
        left = (entry.idle_until if entry.read_only else entry.expires) - self._clock.wall()
        return Stored(key, entry.user, entry.data, entry.version, entry.created, left, entry.read_only)

    def _tell(self, revocation: Revocation) -> None:
        for watcher in list(self._watchers):
            watcher.revoked(revocation)
