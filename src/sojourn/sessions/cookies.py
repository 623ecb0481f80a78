"""Sessions without a store: all that they hold is in the cookie."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sojourn.clock import Clock, SystemClock
from sojourn.errors import ConfigError
from sojourn.scopes.context import SecurityContext, acting_as
from sojourn.sessions.cookie import SessionCookie
from sojourn.sessions.fields import with_fields
from sojourn.sessions.seal import Seal
from sojourn.sessions.session import Session
from sojourn.sessions.stored import Stored
from sojourn.typing import ASGIApp, Message, Receive, Scope, Send

__all__ = ["CookieSessions"]

#: Browsers keep a cookie of 4,096 bytes with its name and attributes (RFC 6265 section 6.1).
_MOST: Final = 4096
_ROOM: Final = 160
_BEGINS: Final = ("http.response.start", "websocket.accept", "websocket.http.response.start")


class CookieSessions:
    """Sessions in a signed cookie: ``scope["session"]``, and nothing is kept on the server.

    For what is small and may be believed until it is over, such as the cookie of a machine. It can't be revoked: who
    has copied it has it until then, and a logout only deletes the client's own. Two requests that change it at the same
    time undo each other. A WebSocket can't change it once it is accepted, and says so. People want :class:`Sessions`.

    Args:
        app: The application.
        secrets: The first signs, all are believed: put a new one in front, and take the old away after ``max_age``.
        max_age: Seconds after which it is over, counted from its last change.
        cookie: How it looks.
        user_key: Under which key the application keeps who has logged in.
        encrypt: Whether the client must not read it (needs the package ``cryptography``).
        clock: The time; None takes the machine's.

    Raises:
        ValueError: A secret is too short, or no browser would take the cookie.
        ConfigError: ``encrypt`` without the package, or a ``max_age`` that is not above zero.

    Example:
        >>> import secrets
        >>> async def app(scope, receive, send): ...
        >>> app = CookieSessions(app, [secrets.token_hex()], max_age=3600.0)
    """

    def __init__(  # noqa: PLR0913 - the settings of an application, by keyword
        self,
        app: ASGIApp,
        secrets: Sequence[str | bytes],
        *,
        max_age: float = 86_400.0,
        cookie: SessionCookie | None = None,
        user_key: str = "user",
        encrypt: bool = False,
        clock: Clock | None = None,
    ) -> None:
        if not max_age > 0:
            raise ConfigError(f"max_age must be above zero, not {max_age!r}")
        self.app = app
        self._cookie = (cookie or SessionCookie()).checked()
        self._seal = Seal(
            [secrets] if isinstance(secrets, str | bytes) else secrets, self._cookie.name, encrypt=encrypt
        )
        self._max_age = max_age
        self._user_key = user_key
        self._clock = clock or SystemClock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        scope["session"] = session = Session(self._user_key, self._found(scope))
        session.reload = _nothing

        async def saving(message: Message) -> None:
            if message["type"] in _BEGINS:
                fields = self._fields(session)
                session.late = True
                session.refuse(_too_late)
                headers = with_fields(list(message.get("headers", ())), fields, session.accessed)
                message = {**message, "headers": headers}
            await send(message)

        stored = session.stored
        if session.user and stored is not None:
            until = self._clock.wall() + stored.left
            with acting_as(SecurityContext(session.user, authn="cookie", expires_at=until)):
                await self.app(scope, receive, saving)
        else:
            await self.app(scope, receive, saving)

    def _found(self, scope: Scope) -> Stored | None:
        """The first cookie that we have signed."""
        now = self._clock.wall()
        for text in self._cookie.values(scope["headers"]):
            opened = self._seal.open(text, now)
            if opened is not None:
                content, until = opened
                return Stored("", "", content, 0, 0.0, until - now)
        return None

    def _fields(self, session: Session) -> list[tuple[bytes, bytes]]:
        data = session.changed()
        if data is None:
            return []
        if not session:
            return [self._cookie.removal()]
        text = self._seal.seal(data, int(self._clock.wall() + self._max_age))
        if len(text) + len(self._cookie.name) > _MOST - _ROOM:
            raise ValueError(f"the session is a cookie of {len(text)} bytes, and browsers keep {_MOST}: use Sessions")
        return [self._cookie.set(text, self._max_age)]


def _too_late() -> Exception:
    return RuntimeError("the session is a cookie: it can't be changed once the answer has begun; use Sessions for that")


async def _nothing() -> None:
    """There is nowhere to load it from."""
