"""Sessions in front of an application: pure ASGI, under any server, around any framework."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Literal

from sojourn.clock import Clock
from sojourn.errors import SessionStoreUnavailable
from sojourn.scopes.context import SecurityContext, acting_as
from sojourn.sessions.answer import Refusal, refuse
from sojourn.sessions.cookie import SessionCookie
from sojourn.sessions.exchange import Exchange
from sojourn.sessions.ids import key_of, looks_right
from sojourn.sessions.keeper import Keeper, Lifetime
from sojourn.sessions.live import Live
from sojourn.sessions.opening import store_of
from sojourn.sessions.session import Session
from sojourn.sessions.store import SessionStore
from sojourn.sessions.stored import Revocation, Stored
from sojourn.sessions.user import identity
from sojourn.sessions.watched import Watched
from sojourn.typing import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Sessions"]


class Sessions:
    """Gives each client a session: ``scope["session"]``, which is ``request.session`` of Starlette and FastAPI.

    The client holds a random id, the store only its hash. An id that the store does not know is never taken over. A
    session gets a new id when its user changes. It is saved when the answer begins, and while a WebSocket or stream
    goes on; where two change it at the same time, they are merged key by key. What is open with it is closed when it is
    revoked, on every node, or when it is over. The application acts as its user.

    Use one for each event loop.

    Args:
        app: The application.
        store: Where sessions are: a store, the path of an SQLite file, or the URL of a Redis.
        idle: Seconds without use after which a session is over. What is open with it counts as use.
        absolute: Seconds after its beginning, or the login of its user, after which it is over in any case.
        cookie: How its cookie looks. The first one is ``__Host-session``, which browsers take over HTTPS only.
        user_key: Under which key of the session the application keeps who has logged in: a name, a number, or an
            object with ``sub``. When it changes, so does the id.
        size: Bytes of JSON that a session may hold.
        where: Which requests have a session; None: all. The others don't ask the store.
        identify: Who acts in a session; None: its user, without roles, until the session is over.
        on_failure: When the store is away: ``closed`` answers 503 to those who bring an id, ``open`` gives them an
            empty session that can't be changed. Sessions that are open stay open.
        clock: Times what is open; None takes the machine's.

    Attributes:
        lost: Changes that were not kept: the session was over meanwhile, or was found by an old id; or somebody logged
            in to it, and there was no answer that could tell the new one.

    Raises:
        ValueError: A number makes no sense, or no browser would take the cookie.
        ConfigError: The store can't be opened like that.

    Example:
        >>> async def app(scope, receive, send): ...
        >>> app = Sessions(app, MemorySessions(), idle=3600.0)
    """

    def __init__(  # noqa: PLR0913 - the settings of an application, by keyword
        self,
        app: ASGIApp,
        store: SessionStore | str = "sessions.db",
        *,
        idle: float = 3600.0,
        absolute: float = 7 * 86_400.0,
        cookie: SessionCookie | None = None,
        user_key: str = "user",
        size: int = 65_536,
        where: Callable[[Scope], bool] | None = None,
        identify: Callable[[Session], SecurityContext | None] | None = None,
        on_failure: Literal["closed", "open"] = "closed",
        clock: Clock | None = None,
    ) -> None:
        if not 0 < idle <= absolute or size < 1:
            raise ValueError("0 < idle <= absolute, and a session may hold at least a byte")
        if on_failure not in ("closed", "open"):
            raise ValueError(f"on_failure is open or closed, not {on_failure!r}")
        self.app = app
        self.store: SessionStore = Watched(store_of(store) if isinstance(store, str) else store)
        self.lost = 0
        self._cookie = (cookie or SessionCookie()).checked()
        self._life = Lifetime(idle, absolute, size)
        self._user_key = user_key
        self._where = where
        self._identify = identify or identity
        self._open = on_failure == "open"
        self._live = Live(self.store, idle, clock)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI. A coroutine function, because that is how other servers know ASGI 3."""
        kind = scope["type"]
        if kind == "lifespan":
            await self._lifespan(scope, receive, send)
        elif kind not in ("http", "websocket") or (self._where is not None and not self._where(scope)):
            await self.app(scope, receive, send)
        else:
            await self._serve(scope, receive, send)

    @property
    def open(self) -> int:
        """How many WebSockets and streams are open with a session, in this process."""
        return len(self._live)

    async def revoke(self, *, user: str = "", session: str = "", keep: str = "", everyone: bool = False) -> None:
        """End sessions here and now, and close what is open with them, on every node within a second.

        Args:
            user: All sessions of this user.
            session: The one with this key (:attr:`Session.key`).
            keep: Key of a session of the user that stays: "log out everywhere else".
            everyone: All sessions of all.

        Raises:
            ValueError: It does not say whose, or says it twice.
            SessionStoreUnavailable: The store can't be reached; they may have been ended.

        Cancel: safe; they may have been ended.
        """
        if bool(user) + bool(session) + everyone != 1 or (keep and not user):
            raise ValueError("revoke a user, a session or everyone; keep is for one of the user's")
        if everyone:
            await self.store.revoke(Revocation("all"))
        elif user:
            await self.store.revoke(Revocation("user", user, keep))
        else:
            await self.store.revoke(Revocation("session", session))

    async def of(self, user: str) -> Sequence[Stored]:
        """The sessions of a user, oldest first.

        Raises:
            SessionStoreUnavailable: The store can't be reached.

        Cancel: safe.
        """
        return await self.store.of(user)

    async def aclose(self) -> None:
        """Give back what it holds, the store's connections too; done by itself at the end of the lifespan.

        Used again, it begins anew.

        Cancel: safe.
        """
        await self._live.aclose()
        await self.store.aclose()

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        mark = self._live.mark()
        away: SessionStoreUnavailable | None = None
        stored: Stored | None = None
        session_id = next(filter(looks_right, self._cookie.values(scope["headers"])), "")
        if session_id:
            try:
                stored = await self.store.load(key_of(session_id))
            except SessionStoreUnavailable as error:
                away = error
                if not self._open:
                    await refuse(scope, receive, send, Refusal.of(error))
                    return
        scope["session"] = session = Session(self._user_key, stored)
        if away is not None:
            unavailable = away
            session.refuse(lambda: unavailable)
        keeper = Keeper(session, self.store, self._cookie, self._life)
        exchange = Exchange((scope, receive, send), keeper, self._live, mark)
        who = self._identify(session)
        try:
            if who is None:
                await exchange.run(self.app)
            else:
                with acting_as(who):
                    await exchange.run(self.app)
        finally:
            self.lost += keeper.lost

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def ending(message: Message) -> None:
            if message["type"] in ("lifespan.shutdown.complete", "lifespan.shutdown.failed"):
                await self.aclose()
            await send(message)

        try:
            await self.app(scope, receive, ending)
        except asyncio.CancelledError:
            await self._live.aclose()
            raise
