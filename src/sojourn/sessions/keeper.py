"""Brings what a request or WebSocket does to its session into the store, without undoing what others do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, NamedTuple

from sojourn.errors import SessionStoreUnavailable
from sojourn.sessions.content import EMPTY
from sojourn.sessions.cookie import SessionCookie
from sojourn.sessions.ids import key_of, new_id
from sojourn.sessions.session import Session
from sojourn.sessions.store import SessionStore
from sojourn.sessions.stored import Draft, Revocation, Saved

__all__ = ["Keeper", "Lifetime"]

#: So many times somebody else may be faster. Each time somebody is, so nobody waits for ever.
_TRIES: Final = 16


class Lifetime(NamedTuple):
    """How long a session lasts, and how much it may hold.

    Attributes:
        idle: Seconds without use.
        absolute: Seconds in any case.
        size: Bytes of JSON.
    """

    idle: float
    absolute: float
    size: int


class Keeper:
    """Keeps one session.

    Args:
        session: Which.
        store: Where.
        cookie: By which the client knows it.
        life: How long it lasts.

    Attributes:
        lost: How many changes were not kept: the session was over meanwhile, or was found by an old id; or it was to
            get a new one, and there was no answer that could tell it.
        on_move: Called before the key it had is given up by what is done here.
    """

    __slots__ = ("_cookie", "_life", "_lock", "_store", "lost", "on_move", "session")

    def __init__(self, session: Session, store: SessionStore, cookie: SessionCookie, life: Lifetime) -> None:
        self.session = session
        self.lost = 0
        self.on_move: Callable[[], None] = _nothing
        self._store = store
        self._cookie = cookie
        self._life = life
        self._lock = asyncio.Lock()
        session.reload = self.reload

    async def keep(self) -> list[tuple[bytes, bytes]]:
        """Store what has changed.

        Returns:
            Headers that tell the client, if it has to know.

        Raises:
            SessionStoreUnavailable: It could not be stored; what has changed still counts as changed.
            TypeError: JSON can't express what it holds.
            ValueError: It holds too much.

        Cancel: safe; it may have been stored.
        """
        async with self._lock:
            session = self.session
            data = session.changed()
            session.modified = False
            if data is None:
                return []
            if len(data) > self._life.size:
                raise ValueError(f"the session holds {len(data)} bytes of JSON, and may hold {self._life.size}")
            try:
                return await self._keep(session, data)
            except BaseException:
                session.modified = True
                raise

    async def reload(self) -> None:
        """Store what has changed, and take over what others have changed.

        Raises:
            SessionStoreUnavailable: The store can't be reached.
            RuntimeError: The session has a new id that the client was not told: that happens when the answer begins.

        Cancel: safe.
        """
        if self.session.rotates and not self.session.late:
            raise RuntimeError("reload() comes before the user or the id is changed")
        if self.session.stored is None:
            return
        await self.keep()
        async with self._lock:
            stored = await self._store.load(self.session.key)
            if stored is not None:
                self.session.merge(stored)
            else:
                self.session.renew(None, {})

    async def _keep(self, session: Session, data: bytes) -> list[tuple[bytes, bytes]]:
        if session.stored is None:
            return await self._begin(session, data)
        for _ in range(_TRIES):
            stored = session.stored
            if stored.read_only or (session.late and session.rotates and data != EMPTY):
                # The client can't be told a new id any more, and the old one must not become somebody else's.
                return self._lose(session)
            if data == EMPTY:
                return await self._end(session)
            rotates = session.rotates
            if rotates:
                headers, saved = await self._rotate(session, data)
            else:
                headers, saved = [], await self._store.save(stored.key, stored.version, data)
            if saved.done:
                session.settled(saved.stored)
                return headers
            if saved.stored is None:  # expired, or revoked: it does not come back by being changed
                session.stored = None
                return self._lose(session)
            if rotates:
                session.rotate()  # that was asked for, whatever the merge makes of the user
            data = session.merge(saved.stored)
        raise SessionStoreUnavailable("others change the session all the time")

    async def _begin(self, session: Session, data: bytes) -> list[tuple[bytes, bytes]]:
        if session.late:
            return self._lose(session)
        session_id = new_id()
        stored = await self._store.create(key_of(session_id), self._draft(session, data))
        session.settled(stored)
        return [self._cookie.set(session_id, stored.left)]

    async def _rotate(self, session: Session, data: bytes) -> tuple[list[tuple[bytes, bytes]], Saved]:
        assert session.stored is not None
        session_id = new_id()
        draft = self._draft(session, data)
        self.on_move()
        saved = await self._store.rotate(session.stored.key, session.stored.version, key_of(session_id), draft)
        left = 0.0 if saved.stored is None else saved.stored.left
        return [self._cookie.set(session_id, left)], saved

    async def _end(self, session: Session) -> list[tuple[bytes, bytes]]:
        self.on_move()
        await self._store.revoke(Revocation("session", session.key))
        session.settled(None)
        return [] if session.late else [self._cookie.removal()]

    def _lose(self, session: Session) -> list[tuple[bytes, bytes]]:
        self.lost += 1
        session.drop()
        return []

    def _draft(self, session: Session, data: bytes) -> Draft:
        return Draft(session.user, data, self._life.idle, self._life.absolute)


def _nothing() -> None:
    """Nobody wants to know."""
