"""A WebSocket that joins a hub, under any server: the opening handshake, who it is, and what it says."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, NoReturn

from sojourn.asgi.websocket import WebSocketHandler
from sojourn.errors import AuthenticationError, ClientDisconnected, DeadlineExceeded
from sojourn.hub.connected import Connected
from sojourn.hub.direct import DirectSocket
from sojourn.hub.door import Refusal, Term
from sojourn.hub.forms import PLAIN, PLAIN_MESSAGES, STAMPED, STAMPED_MESSAGES, V1, V1_MESSAGES
from sojourn.hub.identity import Caller, Identity
from sojourn.hub.member import Member
from sojourn.hub.peer import peer_of, size_of
from sojourn.hub.pulled import PulledMember
from sojourn.scopes.deadline import deadline
from sojourn.scopes.work import attend
from sojourn.typing import Scope
from sojourn.wire import hub as wire

if TYPE_CHECKING:
    from sojourn.hub.hub import Hub
    from sojourn.hub.node import Node

__all__ = ["SUBPROTOCOL", "Socket"]

#: The subprotocol of the JSON protocol.
SUBPROTOCOL: Final = "sojourn.v1"
#: Seconds for the last words of a WebSocket under another server.
_CLOSE: Final = 1.0
#: Bytes that are handed to another server at a time.
_ROOM: Final = 64 * 1024


class Socket:
    """Makes a WebSocket a member of a hub for as long as the block lasts; made by ``Hub.connect``.

    Args:
        hub: The hub.
        websocket: As for :func:`~sojourn.hub.peer.peer_of`.
    """

    def __init__(self, hub: Hub, websocket: Any) -> None:
        self._hub = hub
        self._peer = peer_of(websocket)
        self._connected: Connected | None = None
        self._term: Term | None = None
        self._writer: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Connected:
        hub, peer, scope = self._hub, self._peer, self._peer.scope
        node = await hub.start()
        refusal = hub.door.refuse(scope)
        if refusal is not None:
            await self._deny(refusal)
        v1 = SUBPROTOCOL in scope.get("subprotocols", ())
        caller = Caller(scope)
        identity = await self._identify(caller, v1)
        await peer.accept(SUBPROTOCOL if v1 else None)
        early: list[str] = []
        if identity is None:
            identity, early = await self._ask(caller)
        self._connected = connected = Connected(hub, peer, self._member(node, identity, caller, v1), v1, early)
        try:
            hub.reception.admit(connected.member)
            if hub.authenticator is not None:
                self._term = Term(connected.member, _handler_of(scope))
                self._term.set(identity.expires)
            connected.renews(self._term)
            if v1:
                hub.reception.greet(connected.member, await hub.reception.place())
        except BaseException as error:
            await self.__aexit__(type(error), error, None)
            raise
        return connected

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        connected = self._connected
        assert connected is not None
        member = connected.member
        if self._term is not None:
            self._term.cancel()
        if not member.over:
            if isinstance(error, asyncio.CancelledError) and isinstance(member, PulledMember):
                member.node.gone(member)  # who has cancelled it says why, such as who sees to its credential
            else:
                member.node.end([member], 1011 if error is not None else 1000, "")
        if self._writer is not None and isinstance(member, PulledMember):
            if isinstance(error, asyncio.CancelledError) and member.ending is None:
                self._writer.cancel()
            else:
                await self._finish(self._writer, member)

    async def _deny(self, refusal: Refusal) -> None:
        await self._peer.deny(refusal.status, refusal.detail, refusal.retry_after)
        raise ClientDisconnected(refusal.detail)

    async def _identify(self, caller: Caller, v1: bool) -> Identity | None:
        """Who it is; None when it may still say so."""
        try:
            identity = await self._hub.door.identify(caller)
        except AuthenticationError as error:
            if v1 and not caller.token:
                return None
            await self._deny(Refusal(error.status, 4501, error.detail))
            raise
        refusal = self._hub.door.refuse_user(identity.user)
        if refusal is not None:
            await self._deny(refusal)
        return identity

    async def _ask(self, caller: Caller) -> tuple[Identity, list[str]]:
        """Let it say who it is, with its first message; and what else it says there."""
        number, hub = 0, self._hub
        try:
            async with deadline(hub.limits.auth_within, "hub.auth"):
                message = await self._peer.receive()
                if message["type"] == "websocket.disconnect":
                    raise ClientDisconnected("it left before it said who it is")
                data = message.get("text") or message.get("bytes") or b""
                if size_of(data) > hub.limits.message:
                    await self._dismiss(1009, "message too large", None)
                said = wire.lines(data)
                command = wire.decode_command(said[0] if said else "")
                if not isinstance(command.body, wire.Auth):
                    raise wire.HubWireError("unauthenticated", "say who you are first", command.id)
                number = command.id
                identity = await hub.door.identify(Caller(caller.scope, command.body.token))
        except DeadlineExceeded:
            await self._dismiss(4408, "it did not say who it is", None)
        except wire.HubWireError as error:
            await self._dismiss(4501, error.message, wire.Refused(error.id, "unauthenticated", error.message))
        except AuthenticationError as error:
            # One that is over can be renewed, and one that could not be looked at may count the next time; no other.
            later = error.status >= 500
            code = 1013 if later else 4401 if error.reason.endswith("expired") else 4501
            await self._dismiss(code, error.detail, wire.Refused(number, "unauthenticated", error.detail, later))
        refusal = hub.door.refuse_user(identity.user)
        if refusal is not None:
            await self._dismiss(refusal.code, refusal.detail, None)
        if number:
            await self._last(self._peer.send(wire.encode_object(wire.Ok(number, wire.Done())).decode()))
        return identity, said[1:]

    async def _dismiss(self, code: int, detail: str, said: wire.Reply | None) -> NoReturn:
        if said is not None:
            await self._last(self._peer.send(wire.encode_object(said).decode()))
        self._hub.counts.closed(code)
        await self._last(self._peer.close(code, detail))
        raise ClientDisconnected(detail)

    async def _last(self, sending: Awaitable[None]) -> None:
        """Tell it something, before it is a member."""
        try:
            await sending
        except (OSError, RuntimeError) as error:  # what servers and frameworks raise when the client has left
            raise ClientDisconnected("it left before it was a member") from error

    def _member(self, node: Node, identity: Identity, caller: Caller, v1: bool) -> Member:
        stamped = not v1 and "since" in caller.query
        handler = _handler_of(self._peer.scope)
        if handler is None:
            form = V1_MESSAGES if v1 else STAMPED_MESSAGES if stamped else PLAIN_MESSAGES
            member = PulledMember(node, identity, form, "websocket", caller.address)
            self._writer = attend(self._write(member), "hub writer")
            return member
        base = V1 if v1 else STAMPED if stamped else PLAIN
        direct = DirectSocket(node, identity, self._hub.forms.frames(base, handler.deflate_params), handler)
        ping = self._hub.ping
        frame = V1.ping() if v1 else None
        beat = (ping.every, ping.pong_within, ping.misses)
        if frame is None:
            handler.attach(direct, beat)
        else:
            handler.attach(direct, beat, frame)
        return direct

    async def _write(self, member: PulledMember) -> None:
        """The task that writes to a WebSocket of another server."""
        try:
            while data := await member.next(_ROOM):
                for message in member.form.messages(data):
                    await self._peer.send(message)
        except (OSError, RuntimeError):  # what servers and frameworks raise when the client has left
            member.node.gone(member)

    async def _finish(self, writer: asyncio.Task[None], member: PulledMember) -> None:
        """The last words of a WebSocket under another server."""
        code, reason = member.ending or (1000, "")
        try:
            async with deadline(_CLOSE, "hub.close"):
                await asyncio.wait((writer,))
                await self._peer.close(code, reason)
        except (DeadlineExceeded, OSError, RuntimeError):
            pass  # it has left, or reads nothing: there is nobody to tell
        finally:
            writer.cancel()


def _handler_of(scope: Scope) -> WebSocketHandler | None:
    """The server's side of a WebSocket; None under another server."""
    control = (scope.get("extensions") or {}).get("sojourn")
    return control if isinstance(control, WebSocketHandler) else None
