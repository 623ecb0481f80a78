"""The hub: channels, and the connections that are in them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from sojourn.asgi.server_control import CURRENT_SERVER
from sojourn.errors import ConfigError
from sojourn.hub.access import Access, Action, Asker, Authorizer
from sojourn.hub.app import HubApp
from sojourn.hub.door import Door
from sojourn.hub.engine import Engine, Page, Present, Wanted
from sojourn.hub.forms import Forms
from sojourn.hub.identity import Authenticator
from sojourn.hub.memory import MemoryEngine
from sojourn.hub.node import Node
from sojourn.hub.patterns import Patterns
from sojourn.hub.publication import Publication, payload_of
from sojourn.hub.publisher import Publisher, Sent, receipt
from sojourn.hub.reception import Reception
from sojourn.hub.rules import Channel, HubDrain, HubLimits, HubPing, Outbox
from sojourn.hub.socket import Socket
from sojourn.hub.stats import Stats
from sojourn.hub.topic import Topic
from sojourn.hub.view import View
from sojourn.scopes.deadline import deadline
from sojourn.scopes.failures import tell_own_failure
from sojourn.scopes.hubs import met
from sojourn.wire.deflate import DeflateSettings
from sojourn.wire.hub.cursor import Cursor
from sojourn.wire.websocket_frames import is_close_code

__all__ = ["Hub"]

F = TypeVar("F", bound=Callable[..., Any])
#: Seconds for the application to make the state of a channel.
_STATE = 10.0


class Hub:
    """Fans out what is published to everybody who is in its channel, and to nobody else; see the tutorial.

    One object for the application, made before it serves. It begins when it is first used in the event loop; ``async
    with hub`` in a lifespan begins it earlier, and ends it.

    Args:
        engine: Orders and keeps publications; None: in the memory of this process.
        channels: The rules of channels; the first whose pattern matches counts. There are no others.
        name: What metrics and reports call it.
        ping: How members prove that they live.
        limits: How much of anything there may be.
        origins: Origins that may connect from browsers: exact, with ``*`` for a part of a host name, or
            ``same-origin``. None leaves it to ``websocket.origins`` of the server.
        drain: How members are sent away when the server stops.
        outbox: What may wait for one member of what is sent to it alone.

    Raises:
        ConfigError: Rules that can't be.

    Example:
        >>> from sojourn.hub.rules import Channel, History
        >>> hub = Hub(channels=[Channel("chat:{room}", history=History(size=200))])
        >>> hub.stats()["published"]
        0
    """

    def __init__(  # noqa: PLR0913 - the settings of one object, each a group of its own
        self,
        engine: Engine | None = None,
        channels: Sequence[Channel] = (),
        *,
        name: str = "hub",
        ping: HubPing | None = None,
        limits: HubLimits | None = None,
        origins: Sequence[str] | None = None,
        drain: HubDrain | None = None,
        outbox: Outbox | None = None,
    ) -> None:
        if isinstance(origins, str):
            raise ConfigError("origins is a list")
        self.name = name
        self.engine: Engine = MemoryEngine() if engine is None else engine
        self.ping = ping or HubPing()
        self.limits = limits or HubLimits()
        self.origins = None if origins is None else tuple(origins)
        self.drain = drain or HubDrain()
        self._outbox = outbox or Outbox()
        self._rules: Patterns[Channel] = Patterns()
        for channel in channels:
            self._rules.add(channel.pattern, channel)
        self._stats = Stats()
        self._access = Access()
        self._snapshots: Patterns[Callable[..., Awaitable[Any]]] = Patterns()
        self.authenticator: Authenticator | None = None
        self.forms = Forms(DeflateSettings())
        self.door = Door(self, self.limits)
        self._view = View(name, self.engine, self._stats)
        self._reception: Reception | None = None
        self._publisher: Publisher | None = None
        self._node: Node | None = None
        self._starting: asyncio.Task[None] | None = None
        self._ended = False

    # What the application says

    def authenticate(self, call: Authenticator) -> Authenticator:
        """Decorator: this function says who comes.

        It gets a :class:`~sojourn.hub.identity.Caller` and returns an Identity; None, or an AuthenticationError, sends
        the caller away. It has ``limits.auth_within``. Without such a function everybody is nobody in particular,
        unless a ``SecurityContext`` says who acts.
        """
        self.authenticator = call
        return call

    def authorize(self, pattern: str) -> Callable[[Authorizer], Authorizer]:
        """Decorator: this function says who may join the channels of a pattern; see :class:`Access`."""

        def decorate(call: Authorizer) -> Authorizer:
            self._access.add(pattern, call)
            return call

        return decorate

    def snapshot(self, pattern: str) -> Callable[[F], F]:
        """Decorator: this function gives the state of a channel, for a member that has missed what can't be had again.

        It is called with the parameters of the pattern and returns what ``publish`` takes, or None.
        """

        def decorate(call: F) -> F:
            self._snapshots.add(pattern, call)
            return call

        return decorate

    # Life

    async def __aenter__(self) -> Hub:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def start(self) -> Node:
        """Begin, if it has not; everything that needs it does so.

        Raises:
            EngineUnavailable: The engine can never work.
            RuntimeError: It has ended, or runs in another event loop.

        Cancel: safe.
        """
        if self._view.hubs is None:
            self._view.hubs = met(self._view)
        node = self._node
        while node is None:
            if self._ended:
                raise RuntimeError("the hub has ended")
            if self._starting is not None:
                await asyncio.wait((self._starting,))
                node = self._node
                continue
            node = Node(self.engine, self._rules, self._stats)
            # Not in the context of whoever comes first: its deadline is not the engine's.
            self._starting = starting = node.launch(self._begin(node), "hub start")
            await asyncio.wait((starting,))
            starting.result()
        if node.loop is not asyncio.get_running_loop():
            raise RuntimeError("the hub runs in another event loop: each process has one loop for it")
        return node

    async def _begin(self, node: Node) -> None:
        try:
            node.backlog.unicast = self._outbox
            node.joins.snapshot = self._snapshot
            node.engine_is = self._view.engine_is
            await self.engine.start(node)
            self._node = self._view.node = node
            self._reception = Reception(node, self.door, self.ping, self.limits, self.drain)
            self._publisher = Publisher(node, self.limits.buffered)
            server = CURRENT_SERVER.get(None)
            if server is not None:
                server.on_drain(node.presences.farewell, phase="persist", name=f"hub {self.name}")
        finally:
            self._starting = None

    async def aclose(self) -> None:
        """End: members are sent away, to come back elsewhere, and the engine ends.

        Cancel: safe; call it again.
        """
        self._ended = True
        if self._starting is not None:
            await asyncio.wait((self._starting,))
        node, reception = self._node, self._reception
        if node is None or reception is None:
            return
        node.end(list(node.members.values()), 1012, "the hub ends")
        await node.presences.farewell()
        node.stop()
        reception.quiet.stop()
        await self.engine.aclose()
        self._node = self._view.node = self._publisher = self._reception = None
        if self._view.hubs is not None:
            self._view.hubs.leave(self._view)

    # Members

    def connect(self, websocket: Any) -> Socket:
        """Make a WebSocket a member, for as long as the block lasts.

        It accepts the WebSocket, with the subprotocol ``sojourn.v1`` if that was offered, and finds out who it is.

        Args:
            websocket: The object of Starlette or FastAPI, not accepted yet, or (scope, receive, send) of ASGI.

        Returns:
            An asynchronous context manager that gives a :class:`~sojourn.hub.connected.Connected`.

        Raises:
            ClientDisconnected: On entering: it was refused, or left.
            EngineUnavailable: On entering: the hub can't begin.

        Cancel: safe; it is closed.
        """
        return Socket(self, websocket)

    def app(self) -> HubApp:
        """An ASGI application that serves it at one address, in all forms; see ``reference/hub-wire``."""
        return HubApp(self)

    @property
    def node(self) -> Node:
        """Its part of this process.

        Raises:
            RuntimeError: It has not begun.
        """
        if self._node is None:
            raise RuntimeError("the hub has not begun: await hub.start()")
        return self._node

    @property
    def reception(self) -> Reception:
        """Where its members are received.

        Raises:
            RuntimeError: It has not begun.
        """
        if self._reception is None:
            raise RuntimeError("the hub has not begun: await hub.start()")
        return self._reception

    async def _begun(self) -> Publisher:
        await self.start()
        assert self._publisher is not None  # made with the node
        return self._publisher

    @property
    def counts(self) -> Stats:
        """Where it counts."""
        return self._stats

    # Publishing

    async def publish(
        self,
        channel: str,
        data: Any,
        *,
        key: str = "",
        id: str = "",  # noqa: A002 - what every broker calls it
        written: float | None = None,
        confirm: Callable[[bool], None] | None = None,
    ) -> Sent:
        """Publish to everybody who is in a channel, on all nodes.

        It waits for the engine, and for room: while more than ``limits.buffered`` waits for all members of this
        process, or a member's rule says ``block``. It never waits for a member otherwise.

        Args:
            channel: Where.
            data: Text, bytes, or anything that JSON can express.
            key: What it is the latest value of, in channels that keep the latest.
            id: Makes a repetition harmless: what was published with it before is not published again.
            written: Seconds to wait until the connections of all members of this process have it; None: do not wait.
            confirm: Called later in place of waiting, with whether they had it within ``written`` seconds (None: 5).

        Raises:
            AccessDenied: There is no such channel.
            EngineUnavailable: It can't be reached; with an ``id`` it can be tried again without harm.
            HubFull: There was no room in time; nothing was published.
            ValueError: The data can't be sent.

        Cancel: safe; it may have been published.
        """
        publisher = self._publisher or await self._begun()
        return await publisher.publish(channel, data, key, id, receipt(written, confirm))

    async def send(
        self,
        data: Any,
        *,
        user: str = "",
        member: str = "",
        written: float | None = None,
        confirm: Callable[[bool], None] | None = None,
    ) -> int:
        """Send to one user, over all its connections on all nodes, or to one connection. It is in no history.

        Args:
            data: As for ``publish``.
            user: All connections of this user.
            member: This connection.
            written: Seconds to wait until the connections of this process have it; None: do not wait.
            confirm: Called later in place of waiting, as for ``publish``.

        Returns:
            How many connections of this process it was sent to; with ``written``, how many of them had it in time.

        Raises:
            ValueError: The data can't be sent, or it is to go to nobody.
            EngineUnavailable: The other nodes can't be told; those here were.

        Cancel: safe.
        """
        if not (user or member):
            raise ValueError("send needs a user or a member")
        publisher = self._publisher or await self._begun()
        return await publisher.send(data, user, member, receipt(written, confirm))

    # What was, and who is there

    async def history(self, channel: str, since: str | Cursor | None = None, limit: int = 100) -> Page:
        """What is kept of a channel.

        Args:
            channel: Which.
            since: Only what came after this place; None: all that is kept.
            limit: Publications at most, the oldest first.

        Raises:
            AccessDenied: There is no such channel.
            EngineUnavailable: It can't be read.
            ValueError: ``since`` is no place.

        Cancel: safe.
        """
        node = self._node or await self.start()
        rule, _ = node.topics.rule(channel)
        cursor = Cursor.parse(since) if isinstance(since, str) else since
        if cursor is None and since is not None:
            raise ValueError(f"no place in a stream: {since!r}")
        return await self.engine.history([Wanted(channel, cursor, rule.history)], limit)

    async def presence(self, channel: str, limit: int = 1000) -> Sequence[Present]:
        """Who is in a channel, on all nodes; nobody when its rule has no presence.

        Raises:
            EngineUnavailable: It can't be asked.

        Cancel: safe.
        """
        await self.start()
        return await self.engine.present(channel, limit)

    async def presence_count(self, channel: str) -> tuple[int, int]:
        """How many members and how many users are in a channel, on all nodes. As :meth:`presence`, but cheap."""
        await self.start()
        return await self.engine.count(channel)

    async def add(self, channel: str, *, user: str = "", member: str = "") -> int:
        """Put all connections of a user, or one connection, into a channel, on all nodes; those that are there now.

        It is the application that asks, so nobody else is asked. A client of ``sojourn.v1`` gets what is published
        there, but has not joined by itself: when it comes back it is not in the channel any more.

        Args:
            channel: Which.
            user: All of this user.
            member: This one.

        Returns:
            How many of this process there were.

        Raises:
            AccessDenied: There is no such channel.
            ValueError: It names nobody.
            EngineUnavailable: The channel can't be subscribed, or the other nodes can't be told.

        Cancel: safe; some may be in it.
        """
        return await self._place(user, member, channel, "")

    async def remove(self, channel: str, *, user: str = "", member: str = "") -> int:
        """Take all connections of a user, or one connection, out of a channel, on all nodes; else as :meth:`add`."""
        return await self._place(user, member, "", channel)

    async def _place(self, user: str, member: str, join: str, leave: str) -> int:
        if not (user or member):
            raise ValueError("name a user or a member")
        node = self._node or await self.start()
        node.topics.rule(join or leave)
        found = node.find(user, member)
        await node.place(found, join, leave)
        if not (member and found):
            await node.place_elsewhere(user, member, join, leave)
        return len(found)

    async def disconnect(
        self, *, user: str = "", member: str = "", code: int = 4503, reason: str = "disconnected"
    ) -> int:
        """End the connections of a user, or one connection, on all nodes.

        Args:
            user: All of this user.
            member: This one.
            code: Close code; from 4500 on clients do not come back.
            reason: For the client's log.

        Returns:
            How many of this process there were.

        Raises:
            ValueError: It names nobody, or the code may not be sent.
            EngineUnavailable: The other nodes can't be told; those here were ended.

        Cancel: safe.
        """
        if not (user or member):
            raise ValueError("disconnect needs a user or a member")
        if not is_close_code(code):
            raise ValueError(f"close code {code} may not be sent; take one from 4000 to 4999")
        node = self._node or await self.start()
        ended = node.end(node.find(user, member), code, reason)
        if not (member and ended):
            await node.end_elsewhere(user, member, code, reason)
        return ended

    def stats(self) -> dict[str, Any]:
        """The hub's numbers in this process; those of its metrics."""
        return self._stats.snapshot(0.0 if self._node is None else self._node.now())

    async def may(self, asker: Asker, channel: str, action: Action, *, inside: bool = False) -> bool:
        """Whether somebody may do something in a channel; False when there is no such channel.

        Cancel: safe.
        """
        found = self._rules.find(channel)
        return found is not None and await self._access.may(asker, channel, found[0], action, inside)

    async def _snapshot(self, topic: Topic) -> Publication | None:
        found = self._snapshots.find(topic.channel)
        if found is None:
            return None
        try:
            async with deadline(_STATE, "hub.snapshot"):
                state = await found[0](**found[1])
            if state is None:
                return None
            kind, data = payload_of(state)
        except Exception as error:  # noqa: BLE001 - whatever the application raises: a gap is told then
            tell_own_failure(error, f"the snapshot of {topic.channel}")
            return None
        return Publication(topic.channel, topic.epoch, 0, 0, kind, data)
