"""Members on connections of a Sojourn server: what is prepared is written straight to them, without a task."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from sojourn.asgi.websocket import WebSocketHandler
from sojourn.ending import Ending, Phase
from sojourn.hub.codes import reason_of
from sojourn.hub.group import Group
from sojourn.hub.identity import Identity
from sojourn.hub.member import Member
from sojourn.hub.publication import Publication
from sojourn.hub.topic import Topic
from sojourn.policy.heartbeat import Life

if TYPE_CHECKING:
    from sojourn.hub.forms import Form
    from sojourn.hub.node import Node
    from sojourn.net.connection import Connection

__all__ = ["DirectMember", "DirectSocket"]

_SUSPECT: Final = Life.SUSPECT
#: Bytes of the hub's own that go past the bounds of the queue, above what the transport takes: a client that takes none
#: of so many is too slow.
_CONTROLS: Final = 2 * 1024 * 1024


class DirectMember(Member):
    """A member on a connection of this process.

    While the client keeps up, what is published goes to the transport in the same turn. When the transport has more
    than ``limits.write_buffer``, publications wait here, by reference, and their rules decide what becomes of them.

    Args:
        node: Where it is.
        identity: Who it is.
        form: How it gets what is published.
        connection: Its connection; open.
        address: Address of its client.

    Attributes:
        connection: Its connection.
        write: Of its transport.
        behind: Whether the transport takes no more, or something waits here; then nothing is written past it.
    """

    __slots__ = ("_groups", "_spoken", "_waiter", "behind", "connection", "write")

    def __init__(self, node: Node, identity: Identity, form: Form, connection: Connection, address: str) -> None:
        super().__init__(node, identity, form, address)
        self.connection = connection
        assert connection.transport is not None  # something was answered just now
        self.write: Callable[[bytes], None] = connection.transport.write
        self.behind = connection.blocked
        connection.on_blocked = self._blocked
        self._groups: list[Group] = []
        self._spoken = connection.runtime.ticker.now
        self._waiter: asyncio.Future[None] | None = None
        if self.behind:
            self._listen()

    @property
    def last_message(self) -> float:
        """When something was written to it last, in served time."""
        self.settle()
        return self._spoken

    @property
    def spoken_at(self) -> float:
        return self.node.now() - (self.connection.runtime.ticker.now - self.last_message)

    def settle(self) -> None:
        """Count what it got with others."""
        for group in self._groups:
            group.settle(self)

    def got(self, messages: int, size: int, at: float) -> None:
        """So much was written to it by its groups, up to a moment of served time."""
        connection = self.connection
        self.sent += messages
        connection.bytes_out += size
        if at > self._spoken:
            self._spoken = at
        if at > connection.last_write:
            connection.last_write = at

    # What the node does with it

    def deliver(self, publications: Sequence[Publication]) -> None:
        if self.over:
            return
        if self.behind:
            self.hold(publications)
            return
        form, stats = self.form, self.node.stats
        data = b"".join([form.of(publication) for publication in publications])
        self.sent += len(publications)
        stats.deliveries += len(publications)
        stats.bytes_out += len(data)
        self._put(data)

    def control(self, data: bytes) -> None:
        transport = self.connection.transport
        if self.over or transport is None:
            return
        if self.behind and transport.get_write_buffer_size() > self._most + _CONTROLS:
            self.node.stats.closed(4008)
            self.end(4008, "too slow")
            return
        self._put(data)

    def enter(self, topic: Topic) -> None:
        group = topic.groups.get(self.form)
        if group is None:
            group = topic.groups[self.form] = Group()
        group.add(self)
        self._groups.append(group)

    def forsake(self, topic: Topic) -> None:
        group = topic.groups.get(self.form)
        if group is not None and group in self._groups:
            group.remove(self)
            self._groups.remove(group)
            if not group:
                del topic.groups[self.form]

    async def drained(self) -> None:
        if self.connection.blocked and not self.over:
            await self.connection.writable()
        await super().drained()

    def dropped(self) -> None:
        super().dropped()
        if getattr(self.connection, "on_blocked", None) == self._blocked:
            del self.connection.on_blocked  # it may live on, with other requests

    # A client that is behind

    @property
    def _most(self) -> int:
        """Bytes that its transport takes before it says that it has all it takes."""
        return self.connection.runtime.config.limits.write_buffer

    def _put(self, data: bytes) -> None:
        connection = self.connection
        connection.bytes_out += len(data)
        connection.last_write = self._spoken = connection.runtime.ticker.now
        self.write(data)

    def _blocked(self) -> None:
        """The transport has all it takes; called by the connection, also in the middle of a write."""
        if not (self.behind or self.over):
            self.behind = True
            for group in self._groups:
                group.fell_behind(self)
            self._listen()

    def _listen(self) -> None:
        """Be called when the transport has room again."""
        outbox = self.connection.outbox
        if self._waiter is None and outbox is not None:
            self._waiter = waiter = self.node.loop.create_future()
            outbox.waiters.append(waiter)
            waiter.add_done_callback(self._has_room, context=self.node.context)

    def _has_room(self, waiter: asyncio.Future[None]) -> None:
        self._waiter = None
        # An error says that the connection has ended, which was told already.
        if not waiter.cancelled() and waiter.exception() is None and not self.over:
            self._write_waiting()

    def _write_waiting(self) -> None:
        connection, most = self.connection, self._most
        while not connection.blocked:
            transport = connection.transport
            if self.over or transport is None:
                return
            if self.waiting is None:
                self.behind = False
                for group in self._groups:
                    group.caught_up(self)
                return
            self._put(b"".join(self.taken(max(1, most - transport.get_write_buffer_size()))))
        self._listen()


class DirectSocket(DirectMember):
    """A WebSocket of this process's server.

    Args:
        node: Where it is.
        identity: Who it is.
        form: How it gets what is published: whole frames.
        handler: The WebSocket; accepted.
    """

    __slots__ = ("_handler",)

    transport = "direct"

    def __init__(self, node: Node, identity: Identity, form: Form, handler: WebSocketHandler) -> None:
        client = handler.scope["client"]
        super().__init__(node, identity, form, handler.connection, client[0] if client else "")
        self._handler = handler

    def end(self, code: int, detail: str) -> None:
        self._handler.close(code, detail, Ending(reason_of(code), Phase.WEBSOCKET, None, detail))

    def answered(self) -> None:
        self._handler.pong_received(b"")  # its ping is a message, and so is what answers it

    # What the server tells it

    def ended(self) -> None:
        """The WebSocket has ended, or begins to: nothing may be written any more."""
        if not self.over:
            self.node.gone(self)

    def goodbye(self, code: int, reason: str) -> None:
        """The server is about to close it because it stops."""
        self.node.say_bye(self, code, reason)

    def lives(self, life: Life) -> None:
        """The heartbeat has changed its mind."""
        self.node.doubts(self, life is _SUSPECT)

    def heard(self, round_trip: float) -> None:
        """A pong came."""
        self.node.stats.round_trip(round_trip)
