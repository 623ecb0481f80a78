"""The ASGI middleware that lets in who proves who it is, for as long as that counts."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from typing import Any, Final

from sojourn.errors import AuthenticationError
from sojourn.guards.auth.bearer import offered_without
from sojourn.guards.auth.every import Method
from sojourn.guards.auth.exchange import Exchange
from sojourn.guards.auth.peer import control_of
from sojourn.guards.auth.policy import Authorizer, Policy
from sojourn.guards.auth.refusal import Refusal, refuse
from sojourn.guards.auth.session import AuthSession, Entry, Verifier, versioned
from sojourn.guards.auth.sessions import AuthSessions
from sojourn.scopes.context import SecurityContext
from sojourn.typing import ASGIApp, Receive, Scope, Send

__all__ = ["Authenticate"]

#: Characters that an error_description has not (RFC 6750 section 3).
_UNSAID: Final = re.compile(r"""[^ !#-\[\]-~]""")


class Authenticate:
    """Asks everyone who comes for a proof of who it is, and runs the application as that.

    For HTTP and WebSocket, under any server. The first way that finds a credential decides; one that does not count is
    an end, not a reason to try the next. Nobody gets 401 with a problem document, whom the policy does not allow 403;
    a WebSocket before it is accepted. The application runs inside ``acting_as``, and finds its
    :class:`~sojourn.guards.auth.session.AuthSession` in ``scope["state"]["auth"]`` (``request.state.auth``).

    When the credential is over and was not renewed, a WebSocket is closed with 4401, a stream of server-sent events
    gets ``event: auth-expired`` and ends, any other request is cancelled. Under another server than Sojourn the
    application is cancelled first, so one that does not let itself be cancelled goes on.

    Args:
        app: The application.
        by: Ways to prove it, in order, such as a :class:`JwtVerifier` or an async function of the scope.
        optional: Whether somebody without a credential may come in, as nobody: always, or for which scopes.
        policy: Asked when somebody comes in and when a credential is renewed. None allows everybody who is known; it
            is not asked for nobody.
        sessions: Who is in, and for how long; None makes one.

    Raises:
        ValueError: ``by`` is empty.

    Example:
        >>> async def app(scope, receive, send): ...
        >>> tokens = JwtVerifier({"https://id.example": "https://id.example/jwks.json"}, "orders")
        >>> app = Authenticate(app, by=[tokens])
    """

    def __init__(
        self,
        app: ASGIApp,
        by: Sequence[Method],
        *,
        optional: bool | Callable[[Scope], bool] = False,
        policy: Policy | Authorizer | None = None,
        sessions: AuthSessions | None = None,
    ) -> None:
        if not by:
            raise ValueError("by: there must be a way to prove who asks")
        self.app = app
        self._by = tuple(by)
        self._optional = optional
        self._authorizer = policy if isinstance(policy, Authorizer) or policy is None else Authorizer(policy)
        self.sessions = AuthSessions() if sessions is None else sessions
        self._verifier: Verifier | None = next((each for each in by if hasattr(each, "verify")), None)
        self._challenge = ", ".join(
            dict.fromkeys(challenge for each in by if (challenge := getattr(each, "challenge", "")))
        )
        self._subprotocol = next(
            (rules.subprotocol for each in by if (rules := getattr(each, "rules", None)) and rules.subprotocol), None
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        session = AuthSession(self.sessions, self._entry(scope))
        admitted = await self._admit(scope, session)
        if isinstance(admitted, Refusal):
            await refuse(scope, receive, send, admitted)
        else:
            await self._run(scope, receive, send, session, admitted)

    async def _admit(self, scope: Scope, session: AuthSession) -> SecurityContext | Refusal | None:
        """Who comes in; None for nobody in particular; a Refusal when it may not."""
        try:
            context = await self._identify(scope, session)
            if context is None:
                if self._may_be_nobody(scope):
                    return None
                raise AuthenticationError("no_credentials", "nothing shows who asks")
            if context.expired(self.sessions.clock.wall()):
                raise AuthenticationError("credentials_expired", "the credentials have expired")
        except AuthenticationError as error:
            return self._refusal(error)
        decision = await session.decide(context)
        if not decision:
            return Refusal(403, "access_denied", decision.reason or "the policy does not allow it")
        return versioned(context, self._authorizer)

    def _entry(self, scope: Scope) -> Entry:
        action = "WEBSOCKET" if scope["type"] == "websocket" else scope["method"]
        challenge = self._challenge.encode("latin-1")
        nested = isinstance((scope.get("state") or {}).get("auth"), AuthSession)
        return Entry(action, scope["path"], control_of(scope), challenge, self._verifier, self._authorizer, nested)

    async def _identify(self, scope: Scope, session: AuthSession) -> SecurityContext | None:
        for method in self._by:
            context = await method(scope)
            if context is not None:
                until: Any = getattr(method, "until", None)
                if until is not None:
                    session.latest = await until(scope)
                return context
        return None

    def _may_be_nobody(self, scope: Scope) -> bool:
        optional = self._optional
        return optional if isinstance(optional, bool) else optional(scope) is True

    def _refusal(self, error: AuthenticationError) -> Refusal:
        challenge = self._challenge if error.status == 401 else ""
        if challenge.startswith("Bearer") and error.reason != "no_credentials":
            # RFC 6750 section 3.1
            what = "invalid_request" if error.reason == "invalid_request" else "invalid_token"
            said = _UNSAID.sub("?", error.detail)
            challenge = challenge.replace("Bearer", f'Bearer error="{what}", error_description="{said}"', 1)
        return Refusal(error.status, error.reason, error.detail, challenge.encode("latin-1"))

    async def _run(
        self, scope: Scope, receive: Receive, send: Send, session: AuthSession, context: SecurityContext | None
    ) -> None:
        # In the scope itself: what a router leaves there, such as its route, is for the server's log too.
        scope["state"] = {**(scope.get("state") or {}), "auth": session}
        if self._subprotocol is not None and scope["type"] == "websocket":
            scope["subprotocols"] = offered_without(scope, self._subprotocol)
        control = control_of(scope)
        exchange = Exchange(scope, receive, send, session, control)
        if control is None or scope["type"] == "http":
            send = exchange.send  # else the server can say all there is to say
        try:
            acting = session.begin(context)
            if acting is None:
                await self.app(scope, receive, send)
            else:
                with acting:
                    await self.app(scope, receive, send)
            await exchange.returned()
        except asyncio.CancelledError:
            if not await exchange.cancelled():
                raise
        finally:
            session.close()
