"""Server-sent events: written to straight where the server is Sojourn, and by a task of the stream elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from sojourn.asgi.cycle import HttpCycle
from sojourn.errors import ClientDisconnected, EngineUnavailable
from sojourn.hub.direct import DirectMember
from sojourn.hub.door import Term
from sojourn.hub.forms import EVENT_CHUNKS, EVENTS, LINE_EVENT_CHUNKS, LINE_EVENTS
from sojourn.hub.identity import Identity
from sojourn.hub.member import Member
from sojourn.hub.pulled import PulledMember
from sojourn.hub.resume import Joined
from sojourn.scopes.work import attend
from sojourn.typing import Receive, Scope, Send
from sojourn.wire.hub.cursor import Cursor

if TYPE_CHECKING:
    from sojourn.hub.forms import Form
    from sojourn.hub.hub import Hub
    from sojourn.hub.node import Node

__all__ = ["DirectStream", "Stream"]

#: Bytes that are handed to another server at a time.
_ROOM: Final = 64 * 1024
#: Seconds for the last words of a stream under another server.
_LAST: Final = 1.0
_HEAD: Final = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),  # nginx would hold it back
)


class DirectStream(DirectMember):
    """An event stream of this process's server, from its head to its end.

    Args:
        node: Where it is.
        identity: Who it is.
        form: How it gets what is published: whole events, as chunks where the answer comes in chunks.
        cycle: The request; its head was sent.
        address: Address of its client.

    Attributes:
        finished: Done when the member has ended.
    """

    __slots__ = ("_cycle", "finished")

    transport = "sse"

    def __init__(self, node: Node, identity: Identity, form: Form, cycle: HttpCycle, address: str) -> None:
        super().__init__(node, identity, form, cycle.connection, address)
        self._cycle = cycle
        self.finished: asyncio.Future[None] = node.loop.create_future()

    def end(self, code: int, detail: str) -> None:
        if not self.over:
            self.node.gone(self)

    def dropped(self) -> None:
        super().dropped()
        if not self.finished.done():
            self.finished.set_result(None)


class Stream:
    """One event stream.

    Args:
        hub: The hub.
        identity: Who asks.
        v1: Whether its events are lines of ``sojourn.v1``.
        wanted: Channels, each with the place its client was at.
    """

    def __init__(self, hub: Hub, identity: Identity, v1: bool, wanted: Mapping[str, Cursor | None]) -> None:
        self._hub = hub
        self._identity = identity
        self._v1 = v1
        self._wanted = wanted

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send events until the client has left, or the hub ends it.

        Args:
            scope: Of the request; the client may have what it asks for.
            receive: Of ASGI.
            send: Of ASGI.

        Raises:
            ClientDisconnected: The client has left.

        Cancel: safe.
        """
        await send({"type": "http.response.start", "status": 200, "headers": list(_HEAD)})
        # A first piece sends the head; a comment wakes nobody.
        await send({"type": "http.response.body", "body": b":\n\n", "more_body": True})
        cycle = (scope.get("extensions") or {}).get("sojourn")
        address = str(scope["client"][0]) if scope.get("client") else ""
        try:
            if isinstance(cycle, HttpCycle) and cycle.streaming and not cycle.lost:
                await self._direct(cycle, address)
            else:
                await self._pulled(receive, send, address)
        except (ClientDisconnected, EngineUnavailable):
            pass  # the head was sent: whoever is still there gets the end, and comes back by itself
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _direct(self, cycle: HttpCycle, address: str) -> None:
        if cycle.chunked:
            form = LINE_EVENT_CHUNKS if self._v1 else EVENT_CHUNKS
        else:
            form = LINE_EVENTS if self._v1 else EVENTS
        node = self._hub.node
        member = DirectStream(node, self._identity, form, cycle, address)

        def goodbye() -> None:
            node.end([member], 1012, "service restart")

        cycle.on_goodbye = goodbye
        forget = cycle.connection.when_lost(lambda: node.gone(member))
        term = self._term(member, cycle)
        try:
            await self._enter(member)
            await asyncio.wait((member.finished,))
        finally:
            forget()
            term.cancel()
            node.gone(member)

    async def _pulled(self, receive: Receive, send: Send, address: str) -> None:
        node = self._hub.node
        member = PulledMember(node, self._identity, LINE_EVENTS if self._v1 else EVENTS, "sse", address)
        watch = attend(_left(receive, member), "hub stream")
        writer = attend(_write(send, member), "hub writer")
        term = self._term(member, None)
        try:
            await self._enter(member)
            await asyncio.wait((member.finished,))
            await asyncio.wait((writer,), timeout=_LAST)  # its last words
        finally:
            watch.cancel()
            writer.cancel()
            term.cancel()
            node.gone(member)

    def _term(self, member: Member, cycle: HttpCycle | None) -> Term:
        """It ends when its credential is over; one that others have looked at is theirs to end."""
        term = Term(member, cycle)
        term.set(None if self._hub.authenticator is None else self._identity.expires)
        return term

    async def _enter(self, member: Member) -> None:
        hub = self._hub
        hub.reception.admit(member)
        if not self._wanted:
            hub.reception.greet(member, await hub.reception.place())
            return

        def tell(joined: list[Joined]) -> None:
            hub.reception.greet(member, min((each.position for each in joined), key=lambda place: place.seq))

        await hub.reception.let_in(member, self._wanted, tell, None)


async def _left(receive: Receive, member: PulledMember) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    member.node.gone(member)


async def _write(send: Send, member: PulledMember) -> None:
    try:
        while data := await member.next(_ROOM):
            await send({"type": "http.response.body", "body": b"".join(data), "more_body": True})
    except OSError:  # what servers raise when the client has left
        member.node.gone(member)
