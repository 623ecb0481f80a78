"""A WebSocket that is a member: what it says, and what the application does with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from sojourn.errors import AuthenticationError, ClientDisconnected
from sojourn.hub.commands import Commands, place_of
from sojourn.hub.door import Term
from sojourn.hub.identity import Caller, Identity
from sojourn.hub.limits import Inbound
from sojourn.hub.member import Member
from sojourn.hub.peer import Peer, size_of
from sojourn.hub.pulled import PulledMember
from sojourn.hub.resume import Joined
from sojourn.scopes.pausing import pause
from sojourn.scopes.work import attend
from sojourn.typing import Message
from sojourn.wire import hub as wire
from sojourn.wire.hub.cursor import Cursor

if TYPE_CHECKING:
    from sojourn.hub.hub import Hub

__all__ = ["Connected", "Received"]


class Received(NamedTuple):
    """A message of a member to the application.

    Attributes:
        data: Text, bytes, or with ``sojourn.v1`` what its JSON says.
        id: The number that the client gave it; 0 without one.
    """

    data: Any
    id: int = 0


class Connected:
    """A WebSocket that is a member of a hub; what ``async with hub.connect(websocket)`` gives.

    Args:
        hub: The hub.
        peer: The other end.
        member: The member.
        v1: Whether it speaks ``sojourn.v1``.
        early: Lines that it has said already, together with who it is.

    Attributes:
        identity: Who it is.
    """

    def __init__(self, hub: Hub, peer: Peer, member: Member, v1: bool, early: Sequence[str] = ()) -> None:
        self._hub = hub
        self._early = early
        self._peer = peer
        self.member = member
        self._v1 = v1
        self._query = Caller(peer.scope).query
        self._greeted = v1
        self._commands = Commands(hub, member.identity, member)
        limits = hub.limits
        self._inbound = Inbound(limits.inbound_rate, limits.inbound_burst, hub.node.now())

    @property
    def id(self) -> str:
        """Its id, unique over all nodes."""
        return self.member.id

    @property
    def user(self) -> str:
        """Who it is; "" for nobody in particular."""
        return self.member.user

    @property
    def identity(self) -> Identity:
        """Who it is, and until when."""
        return self.member.identity

    # What the application does with it

    async def join(self, *channels: str, since: str | None = None, info: Any = None) -> list[Joined]:
        """Let it into channels. It is the application that asks, so nobody else is asked.

        Args:
            channels: Which; what is missed in all of them comes in one order.
            since: Where it was; None takes what the client has said in ``?since=``.
            info: What others are shown of it by presence.

        Raises:
            AccessDenied: There is no such channel.
            EngineUnavailable: They can't be subscribed or read.
            ClientDisconnected: It has ended.

        Cancel: safe; it is in none of them then.
        """
        if self.member.over:
            raise ClientDisconnected("the member has ended")
        asked = self._query.get("since") if since is None else since
        place = place_of(asked) if asked else None
        wanted: Mapping[str, Cursor | None] = {each: place for each in channels if each not in self.member.topics}
        return await self._hub.reception.let_in(self.member, wanted, self._greet, info) if wanted else []

    async def enter(self, wanted: Mapping[str, Cursor | None]) -> None:
        """Let it into channels, each from its own place; whether it may was asked."""
        missing = {channel: place for channel, place in wanted.items() if channel not in self.member.topics}
        await self._hub.reception.let_in(self.member, missing, self._greet, None)

    async def leave(self, channel: str) -> None:
        """Take it out of a channel; nothing happens when it is not in it."""
        self.member.node.leave(self.member, channel)

    async def send(self, data: Any, *, written: float | None = None) -> bool:
        """Send something to it alone.

        Args:
            data: As for ``Hub.publish``.
            written: Seconds to wait until its connection has it; None: do not wait.

        Returns:
            Whether it was written in time; True when that was not awaited.

        Cancel: safe.
        """
        return await self._hub.send(data, member=self.member.id, written=written) > 0

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close it."""
        if not self.member.over:
            self.member.node.end([self.member], code, reason)

    async def run(self) -> None:
        """Serve it to its end; what it says to the application is dropped. Cancel: safe."""
        async for _ in self:
            pass

    async def __aiter__(self) -> AsyncIterator[Received]:
        """What it says, until it has ended. Commands of ``sojourn.v1`` are carried out here, so keep iterating."""
        early, self._early = self._early, ()
        async for received in self._each(early):
            yield received
        while not self.member.over:
            message = await self._next()
            if message is None:
                return
            data: str | bytes | None = message.get("text")
            if data is None:
                data = message.get("bytes")
            if data is None:
                continue
            self._hub.counts.received += 1
            if size_of(data) > self._hub.limits.message:
                self.member.node.end([self.member], 1009, "message too large")
                return
            if not await self._pace():
                return
            if not self._v1:
                yield Received(data)
                continue
            async for received in self._said(data):
                yield received

    # sojourn.v1

    def renews(self, term: Term | None) -> None:
        """Let it take a new credential, for the same user."""

        async def renew(token: str) -> None:
            identity = await self._hub.door.identify(Caller(self._peer.scope, token))
            if identity.user != self.member.user:
                raise AuthenticationError("another_user", "the new credential is somebody else's")
            self.member.identity = self._commands.identity = identity
            if term is not None:
                term.set(identity.expires)

        self._commands.renew = None if self._hub.authenticator is None else renew

    async def _said(self, frame: str | bytes) -> AsyncIterator[Received]:
        try:
            lines = wire.lines(frame)
        except wire.HubWireError as error:
            self._reply(wire.Refused(error.id, error.code, error.message))
            return
        async for received in self._each(lines):
            yield received

    async def _each(self, lines: Sequence[str]) -> AsyncIterator[Received]:
        for number, line in enumerate(lines):
            if self.member.over or (number and not await self._pace()):
                return
            try:
                command = wire.decode_command(line)
            except wire.HubWireError as error:
                self._reply(wire.Refused(error.id, error.code, error.message))
                continue
            if command.name == "pong":
                self.member.answered()
            elif command.name == "msg":
                if command.id:
                    self._reply(wire.Ok(command.id, wire.Done()))
                yield Received(msgspec.json.decode(command.body), command.id)  # type: ignore[arg-type]  # Raw
            else:
                # A client that does not read its answers must not have more of them made.
                await self.member.drained()
                self._reply(await self._commands.carry_out(command))

    def _reply(self, reply: wire.Reply | None) -> None:
        if reply is not None:
            said = self.member.form.say(reply)
            if said is not None:
                self.member.control(said)

    # What comes

    async def _next(self) -> Message | None:
        """The next message; None at the end."""
        member = self.member
        message: Message | None
        if isinstance(member, PulledMember):
            message = await self._raced(member)
        else:
            message = await self._peer.receive()
        if message is None or message["type"] == "websocket.disconnect":
            member.node.gone(member)
            return None
        self._hub.reception.alive(member)
        if self._v1 and member.node.now() - member.spoken_at >= self._hub.ping.every:
            # Pings follow the client's silence, and it is not silent: it must hear something of us all the same.
            ping = member.form.ping()
            if ping is not None:
                member.control(ping)
        return message

    async def _raced(self, member: PulledMember) -> Message | None:
        """Under another server nobody but us ends a WebSocket whose member has ended."""
        task = attend(self._peer.receive(), "hub receive")
        try:
            await asyncio.wait((task, member.finished), return_when=asyncio.FIRST_COMPLETED)
            return task.result() if task.done() else None
        finally:
            task.cancel()

    async def _pace(self) -> bool:
        """Throttle a member that says too much: nothing more of it is read meanwhile. False when that has ended it."""
        node = self.member.node
        wait = self._inbound.take(node.now())
        if wait > 0:
            self._hub.counts.refused["inbound"] += 1
            if self._hub.limits.on_rate == "close":
                node.end([self.member], 4029, "too many messages")
            else:
                await pause(wait)
        return not self.member.over

    def _greet(self, joined: list[Joined]) -> None:
        """The first that a stamped client gets is the place from which it can resume."""
        if not self._greeted:
            self._greeted = True
            self._hub.reception.greet(self.member, min(joined, key=lambda each: each.position.seq).position)
