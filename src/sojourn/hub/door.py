"""Where members come in: whether there is room, where they come from, who they are, and until when."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, NamedTuple

from sojourn.asgi.control import RequestControl
from sojourn.clock import SystemClock
from sojourn.errors import AuthenticationError, DeadlineExceeded
from sojourn.hub.identity import ANONYMOUS, Caller, Identity
from sojourn.hub.limits import Doors, Refused
from sojourn.hub.member import Member
from sojourn.hub.rules import HubLimits
from sojourn.scopes.context import current_security
from sojourn.scopes.deadline import deadline
from sojourn.typing import Scope
from sojourn.wire import hub as wire
from sojourn.wire.websocket_handshake import origin_allowed

if TYPE_CHECKING:
    from sojourn.hub.hub import Hub

__all__ = ["Door", "Refusal", "Term"]

#: Seconds before the end of a credential at which the member is told.
_WARN: Final = 60.0
_wall: Final = SystemClock.wall


class Refusal(NamedTuple):
    """Why somebody can't come in.

    Attributes:
        status: Of HTTP, before anything was accepted.
        code: Close code, after that.
        detail: For the client.
        retry_after: Seconds; None when it is of no use to come again.
    """

    status: int
    code: int
    detail: str
    retry_after: float | None = None


class Door:
    """Lets members in, and sees to it that they leave when their credential is over.

    Args:
        hub: Whose door it is.
        limits: How many may come.
    """

    def __init__(self, hub: Hub, limits: HubLimits) -> None:
        self._hub = hub
        self._limits = limits
        self._doors = Doors(limits)

    def refuse(self, scope: Scope, member: bool = True) -> Refusal | None:
        """Whether somebody may come in, as far as that is known before it is known who it is.

        Args:
            scope: Of ASGI.
            member: Whether it wants to be a member. A single request needs no room: it may come from one.
        """
        hub = self._hub
        if hub.origins is not None:
            headers = dict(scope["headers"])
            if not origin_allowed(headers.get(b"origin"), hub.origins, headers.get(b"host")):
                hub.counts.refused["origin"] += 1
                return Refusal(403, 4501, "this origin may not connect")
        client = scope.get("client")
        refused = self._doors.come(client[0] if client else "", hub.node.now())
        if refused is not None and not member and refused.limit != "connect_rate":
            return None
        return self._told(refused)

    def refuse_user(self, user: str) -> Refusal | None:
        """Whether one more of a user may come in."""
        return self._told(self._doors.user(user))

    def admit(self, address: str, user: str) -> Refusal | None:
        """Let one more in, if there is room; :meth:`leave` must follow."""
        return self._told(self._doors.admit(address, user))

    def _told(self, refused: Refused | None) -> Refusal | None:
        if refused is None:
            return None
        self._hub.counts.refused[refused.limit] += 1
        return Refusal(refused.status, refused.code, refused.detail, refused.retry_after)

    def leave(self, member: Member) -> None:
        """One has left."""
        self._doors.leave(member.address, member.user)

    async def identify(self, caller: Caller) -> Identity:
        """Find out who somebody is.

        Raises:
            AuthenticationError: It can't prove it, or that took too long.

        Cancel: safe.
        """
        call = self._hub.authenticator
        if call is None:
            acting = current_security()
            return ANONYMOUS if acting is None else Identity(acting.qualified, acting.expires_at)
        try:
            async with deadline(self._limits.auth_within, "hub.authenticate"):
                identity = await call(caller)
        except DeadlineExceeded as error:
            raise AuthenticationError("unavailable", f"it could not be found out in time: {error}", 503) from error
        if identity is None:
            raise AuthenticationError("refused", "the application does not know who this is")
        if identity.expires is not None and identity.expires <= _wall():
            raise AuthenticationError("expired", "the credential is over")
        return identity


class Term:
    """Ends a member when its credential is over, and warns it before.

    Under Sojourn the end is a deadline of the connection; under another server it is a timer of the loop.

    Args:
        member: Whose.
        control: The server's side of it; None under another server.
    """

    __slots__ = ("_control", "_expires", "_member", "_timer", "_warning")

    def __init__(self, member: Member, control: RequestControl | None) -> None:
        self._member = member
        self._control = control
        self._timer: asyncio.TimerHandle | None = None
        self._warning: asyncio.TimerHandle | None = None
        self._expires = False

    def set(self, expires: float | None) -> None:
        """It is over at a moment, in seconds since 1970; None: never. Another call replaces the one before."""
        self.cancel()
        if expires is None:
            return
        self._expires = True
        left = max(0.0, expires - _wall())
        loop = self._member.node.loop
        if self._control is not None:
            self._control.expire(left, self._over)
        else:
            self._timer = loop.call_later(left, self._over)
        warn = min(_WARN, left / 2)
        self._warning = loop.call_later(left - warn, self._warn, expires)

    def cancel(self) -> None:
        """It does not end any more."""
        for timer in (self._timer, self._warning):
            if timer is not None:
                timer.cancel()
        self._timer = self._warning = None
        if self._control is not None and self._expires and not self._member.over:
            self._control.expire(None, _nothing)
        self._expires = False

    def _warn(self, expires: float) -> None:
        said = self._member.form.say(wire.Expiring(round(max(0.0, expires - _wall()), 3)))
        if said is not None and not self._member.over:
            self._member.control(said)

    def _over(self) -> None:
        if not self._member.over:
            self._member.node.end([self._member], 4401, "the credential is over")


def _nothing() -> None:
    """Called at no time."""
