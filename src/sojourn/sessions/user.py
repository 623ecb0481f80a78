"""Who acts, as a session says."""

from __future__ import annotations

from sojourn.clock import SystemClock
from sojourn.scopes.context import SecurityContext
from sojourn.sessions.session import Session
from sojourn.typing import Scope

__all__ = ["identity", "session_user"]


def identity(session: Session) -> SecurityContext | None:
    """The user of a session, until that is over in any case; None when nobody has logged in."""
    if not session.user or session.stored is None:
        return None
    until = SystemClock.wall() + session.stored.left
    return SecurityContext(session.user, authn="session", expires_at=until)


async def session_user(scope: Scope) -> SecurityContext | None:
    """Who has logged in to the session of a request: a way for ``Authenticate(by=[...])``.

    Args:
        scope: Of a request behind :class:`Sessions`.

    Returns:
        None when nobody has, or there is no session.

    Cancel: safe; nothing is awaited.

    Example:
        >>> import asyncio
        >>> asyncio.run(session_user({"type": "http"})) is None
        True
    """
    session = scope.get("session")
    return identity(session) if isinstance(session, Session) else None
