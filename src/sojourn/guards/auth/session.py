"""One request or WebSocket with a proved identity, from its proof to its end.

The expiry of a credential is a deadline of the connection. Under Sojourn it is a slot among its other deadlines: to arm
it is an assignment, and it is not missed while the application waits. Under another server it is a timer of the loop.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any, Final, NamedTuple, Protocol

from sojourn.asgi.control import RequestControl
from sojourn.ending import REASONS
from sojourn.errors import AccessDenied, AuthenticationError
from sojourn.guards.auth.policy import Authorizer, Decision
from sojourn.guards.auth.sessions import AuthSessions
from sojourn.scopes.context import SecurityContext, acting_as

__all__ = ["AuthSession", "Entry", "Verifier", "versioned"]

#: Seconds after which the clock is looked at again in any case: somebody may have set it.
_LOOK: Final = 300.0
_TEXTS: Final = {
    "credentials_expired": "the credentials have expired",
    "credentials_revoked": "the credentials were revoked",
    "access_withdrawn": "access was withdrawn",
}


class Verifier(Protocol):
    """Checks a credential that comes in band."""

    async def verify(self, token: str) -> SecurityContext:
        """Who a credential stands for, or an AuthenticationError."""


class Entry(NamedTuple):
    """What is the same for a request from its beginning to its end.

    Attributes:
        action: For the policy.
        resource: For the policy.
        control: The server's side of it; None under another server.
        challenge: Value of WWW-Authenticate.
        verifier: Checks a credential that comes in band; None when nothing can.
        authorizer: Asked again when something changes; None allows everything.
        nested: Whether another session is around it, which has the slot of the connection.
    """

    action: str
    resource: str
    control: RequestControl | None
    challenge: bytes
    verifier: Verifier | None
    authorizer: Authorizer | None
    nested: bool


class AuthSession:
    """Who uses a request or WebSocket, and until when. In ``scope["state"]["auth"]``.

    Args:
        sessions: Where it is entered.
        entry: What is the same from beginning to end.

    Attributes:
        context: Who; None while nobody has proved anything.
        latest: Whatever is renewed, it is over then: seconds since 1970; None: there is no such moment.
        ended: Why it was ended before its time, a word of ``ending.REASONS``; "" while it was not.
    """

    __slots__ = (
        "__weakref__",
        "_acting",
        "_began",
        "_entry",
        "_expiring",
        "_over",
        "_sessions",
        "_task",
        "_timer",
        "_warned",
        "context",
        "ended",
        "latest",
    )

    def __init__(self, sessions: AuthSessions, entry: Entry) -> None:
        self._sessions = sessions
        self._entry = entry
        self._began = sessions.clock.wall()
        self._acting: acting_as | None = None
        self._expiring: asyncio.Event | None = None
        self._task: asyncio.Task[Any] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._warned = False
        self._over = False
        self.context: SecurityContext | None = None
        self.latest: float | None = None
        self.ended = ""

    @property
    def expires_at(self) -> float | None:
        """When the credential, or the longest time for a session, is over: seconds since 1970; None: never."""
        moments = [] if self.latest is None else [self.latest]
        if self._sessions.max_age is not None:
            moments.append(self._began + self._sessions.max_age)
        if self.context is not None and self.context.expires_at is not None:
            moments.append(self.context.expires_at)
        return min(moments, default=None)

    @property
    def remaining(self) -> float | None:
        """Seconds until then, 0.0 when it has passed; None: no end."""
        moment = self.expires_at
        return None if moment is None else max(0.0, moment - self._sessions.clock.wall())

    @property
    def text(self) -> str:
        """Why it was ended, for the client; "" while it was not."""
        return _TEXTS.get(self.ended, REASONS[self.ended].advice) if self.ended else ""

    @property
    def expiring(self) -> asyncio.Event:
        """Set ``AuthSessions.warn`` seconds before the end; cleared when the credential was renewed."""
        if self._expiring is None:
            self._expiring = asyncio.Event()
            if self._warned:
                self._expiring.set()
        return self._expiring

    # For the middleware

    def begin(self, context: SecurityContext | None) -> acting_as | None:
        """The application begins. Returns the scope in which it acts; None when nobody has proved anything."""
        self._task = asyncio.current_task()
        if context is None:
            return None
        self._acting = acting_as(context)
        self._establish(context)
        return self._acting

    def close(self) -> None:
        """The application has ended."""
        self._over = True
        if self._timer is not None:
            self._timer.cancel()
        control = self._entry.control
        if control is not None and not self._entry.nested:
            control.expire(None, _nothing)
            control.connection.principal = ""
        if self.context is not None:
            self._sessions.leave(self.context.principal, self)
        self._task = self._timer = None
        self._entry = self._entry._replace(control=None)  # they hold each other

    # In band

    async def reauthenticate(self, credential: str) -> SecurityContext:
        """Prove again who it is, with a new credential that came in band, such as in a message.

        The code that runs acts with the new identity at once. It must be the same one: same principal, tenant, issuer
        and kind of credential, and no role more than before. Where nobody had proved anything yet (``optional=True``),
        whoever it is becomes the identity of the session; ``acting_as`` is then for the application.

        Args:
            credential: A bearer token.

        Returns:
            The new identity.

        Raises:
            AuthenticationError: The credential does not count, is somebody else's or widens what the first one allowed;
                or the session is over. What was before stays as it was.
            AccessDenied: The policy does not allow it.

        Cancel: safe; nothing has changed then.
        """
        if self._entry.verifier is None:
            raise AuthenticationError("not_renewable", "nothing here can be renewed in band")
        fresh = await self._entry.verifier.verify(credential)
        before = self.context
        if before is not None:
            _check_same(before, fresh)
        decision = await self.decide(fresh)
        if not decision:
            raise AccessDenied(fresh.principal, decision.reason)
        if self._over or self.ended:
            raise AuthenticationError("session_over", "the session has ended")
        if self.context is not before:
            raise AuthenticationError("session_changed", "another credential came at the same time")
        fresh = versioned(fresh, self._entry.authorizer)
        if self._acting is not None:
            self._acting.renew(fresh)
        self._establish(fresh)
        return fresh

    async def recheck(self) -> bool:
        """Ask the policy again. Returns whether it may go on; if not, it was ended.

        Cancel: safe.
        """
        context = self.context
        if self._is_over() or context is None:
            return not self.ended
        allowed = await self.decide(context)
        if self.context is not context or self._is_over():
            return not self.ended  # renewed meanwhile, and asked for then; or over
        if not allowed:
            self.end("access_withdrawn")
            return False
        self.context = context = versioned(context, self._entry.authorizer)
        if self._acting is not None:
            self._acting.renew(context)
        return True

    def end(self, reason: str = "credentials_revoked") -> None:
        """End it here and now.

        Args:
            reason: A word of ``ending.REASONS`` with a status and a close code.
        """
        if self.ended or self._over:
            return
        self.ended = reason
        control = self._entry.control
        if control is not None:
            control.dismiss(reason, self.text, self._entry.challenge if REASONS[reason].status == 401 else b"")
        elif self._task is not None:
            self._task.cancel(reason)

    # Its own

    def _is_over(self) -> bool:
        return self._over or self.ended != ""

    async def decide(self, context: SecurityContext) -> Decision:
        """What the policy says of somebody here."""
        entry = self._entry
        if entry.authorizer is None:
            return Decision(True)
        return await entry.authorizer.decide(context, entry.action, entry.resource)

    def _establish(self, context: SecurityContext) -> None:
        if self.context is None:
            self._sessions.enter(context.principal, self)
        self.context = context
        self._warned = False
        if self._expiring is not None:
            self._expiring.clear()
        if self._entry.control is not None and not self._entry.nested:
            self._entry.control.connection.principal = context.principal
        left = self.remaining
        # Never ended from here: what is called here may be the application itself.
        self._ring_in(None if left is None else max(0.0, left - self._sessions.warn))

    def _look(self) -> None:
        """Is it time to warn, or to end? Called when a credential comes, and when its timer rings."""
        left = self.remaining
        if left is None or self._over or self.ended:
            return
        if left <= 0.0:
            self.end("credentials_expired")
            return
        if left <= self._sessions.warn:
            self._warn()
            self._ring_in(left)
        else:
            self._ring_in(left - self._sessions.warn)

    def _ring_in(self, seconds: float | None) -> None:
        """Look again after so many seconds; None: never."""
        if seconds is not None:
            seconds = min(seconds, _LOOK)
        if self._entry.control is not None and not self._entry.nested:
            self._entry.control.expire(seconds, self._look)
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if seconds is not None:
            self._timer = asyncio.get_running_loop().call_later(seconds, self._look)

    def _warn(self) -> None:
        if self._warned:
            return
        self._warned = True
        if self._expiring is not None:
            self._expiring.set()
        call = self._sessions.on_expiring
        if call is not None:
            try:
                call(self)
            except Exception as error:  # noqa: BLE001 - somebody's bug must not keep the credential alive
                asyncio.get_running_loop().call_exception_handler({"message": "on_expiring raised", "exception": error})


def versioned(context: SecurityContext, authorizer: Authorizer | None) -> SecurityContext:
    """The identity with the version of the policy that has allowed it."""
    if authorizer is None or not authorizer.version:
        return context
    return replace(context, policy_version=authorizer.version)


def _check_same(before: SecurityContext, fresh: SecurityContext) -> None:
    """Whether a credential renews another.

    Raises:
        AuthenticationError: It is somebody else's, or allows more.
    """
    for what in ("principal", "tenant", "authn"):
        if getattr(before, what) != getattr(fresh, what):
            raise AuthenticationError("not_the_same", f"the new credential has another {what}")
    if before.claims.get("iss") != fresh.claims.get("iss"):
        # A subject means something only together with its issuer (RFC 7519 section 4.1.2).
        raise AuthenticationError("not_the_same", "the new credential has another issuer")
    if not fresh.roles <= before.roles:
        raise AuthenticationError("scope_widened", "the new credential has roles that the first one had not")


def _nothing() -> None:
    """What is called when nothing is."""
