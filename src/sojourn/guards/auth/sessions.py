"""Everyone who is authenticated on this worker now, and how long a credential counts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from sojourn.clock import Clock, SystemClock

if TYPE_CHECKING:
    from sojourn.guards.auth.session import AuthSession

__all__ = ["AuthSessions"]


class AuthSessions:
    """The requests and WebSockets that run with a proved identity; one for each application, on each worker.

    Args:
        warn: Seconds before the end of a credential at which ``AuthSession.expiring`` is set and ``on_expiring`` is
            called.
        max_age: Seconds after which a request or WebSocket ends whatever is renewed; None: it may last.
        on_expiring: Called with each session that is warned.
        clock: The time.

    Raises:
        ValueError: A number makes no sense.

    Example:
        >>> sessions = AuthSessions(warn=120.0, max_age=8 * 3600.0)
        >>> sessions.revoke("alice")
        0
    """

    def __init__(
        self,
        *,
        warn: float = 60.0,
        max_age: float | None = None,
        on_expiring: Callable[[AuthSession], object] | None = None,
        clock: Clock | None = None,
    ) -> None:
        if not warn >= 0 or (max_age is not None and not max_age > 0):
            raise ValueError(f"warn is not below zero and max_age above it, not {warn!r} and {max_age!r}")
        self.warn = warn
        self.max_age = max_age
        self.on_expiring = on_expiring
        self.clock = clock or SystemClock()
        self._by_principal: dict[str, set[AuthSession]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._by_principal.values()))

    def __iter__(self) -> Iterator[AuthSession]:
        """The sessions as they are now; ending one on the way is safe."""
        return iter([session for group in self._by_principal.values() for session in group])

    def of(self, principal: str) -> list[AuthSession]:
        """The sessions of one principal."""
        return list(self._by_principal.get(principal, ()))

    def enter(self, principal: str, session: AuthSession) -> None:
        """A session has an identity now."""
        self._by_principal.setdefault(principal, set()).add(session)

    def leave(self, principal: str, session: AuthSession) -> None:
        """It is over."""
        group = self._by_principal.get(principal)
        if group is not None:
            group.discard(session)
            if not group:
                del self._by_principal[principal]

    def revoke(self, principal: str) -> int:
        """End what a principal has open on this worker: 401, 4501, ``event: auth-expired``.

        It does not keep the principal out: that is for the policy, or for whoever issues the credentials.

        Returns:
            How many were ended.
        """
        sessions = self.of(principal)
        for session in sessions:
            session.end("credentials_revoked")
        return len(sessions)

    async def recheck(self) -> int:
        """Ask the policy again for everyone, because it has changed; who is not allowed any more is ended with 4502.

        Returns:
            How many were ended.

        Cancel: safe; those that were asked for are dealt with.
        """
        ended = 0
        for session in self:
            ended += not await session.recheck()
        return ended
