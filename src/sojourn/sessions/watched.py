"""A store that tells its server when it can't be reached, and when it answers again."""

from __future__ import annotations

from collections.abc import Awaitable, Collection, Sequence
from typing import Final, TypeVar

from sojourn.clock import SystemClock
from sojourn.errors import SessionStoreUnavailable
from sojourn.events import StoreAway, StoreBack
from sojourn.scopes.sessions import SESSIONS
from sojourn.sessions.store import SessionStore, Watcher
from sojourn.sessions.stored import Draft, Revocation, Saved, Stored

__all__ = ["Watched"]

T = TypeVar("T")

_monotonic: Final = SystemClock.monotonic


class Watched:
    """Passes all calls on to a store.

    Args:
        store: The store.

    Attributes:
        store: The store.
    """

    def __init__(self, store: SessionStore) -> None:
        self.store = store
        #: Since when it fails; None while it answers.
        self._since: float | None = None

    async def load(self, key: str) -> Stored | None:
        return await self._see(self.store.load(key))

    async def create(self, key: str, draft: Draft) -> Stored:
        return await self._see(self.store.create(key, draft))

    async def save(self, key: str, version: int, data: bytes) -> Saved:
        return await self._see(self.store.save(key, version, data))

    async def rotate(self, key: str, version: int, new: str, draft: Draft) -> Saved:
        return await self._see(self.store.rotate(key, version, new, draft))

    async def touch(self, keys: Collection[str]) -> set[str]:
        return await self._see(self.store.touch(keys))

    async def revoke(self, revocation: Revocation) -> None:
        await self._see(self.store.revoke(revocation))

    async def of(self, user: str) -> Sequence[Stored]:
        return await self._see(self.store.of(user))

    async def watch(self, watcher: Watcher) -> None:
        await self.store.watch(watcher)

    async def aclose(self) -> None:
        await self.store.aclose()

    async def _see(self, answer: Awaitable[T]) -> T:
        try:
            got = await answer
        except SessionStoreUnavailable as error:
            if self._since is None:
                self._since = _monotonic()
                self._tell(StoreAway("sessions", "sessions", self._engine, error.detail))
            raise
        if self._since is not None:
            seconds, self._since = _monotonic() - self._since, None
            self._tell(StoreBack("sessions", "sessions", self._engine, seconds))
        return got

    @property
    def _engine(self) -> str:
        return type(self.store).__name__.removesuffix("Sessions").lower()

    def _tell(self, event: StoreAway | StoreBack) -> None:
        sessions = SESSIONS.get()
        if sessions is not None:
            sessions.tell(event)
