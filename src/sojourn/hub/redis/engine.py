"""The engine for nodes on several machines: their order, history and presence are in Redis or Valkey."""

from __future__ import annotations

import asyncio
import contextvars
import secrets
from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any, Final

from sojourn.errors import ConfigError, EngineUnavailable
from sojourn.hub.engine import Page, Present, Publish, Published, Receiver, Wanted
from sojourn.hub.publication import Publication
from sojourn.hub.redis import envelope
from sojourn.hub.redis.keys import Keys
from sojourn.hub.redis.link import Link
from sojourn.hub.redis.presence import Roll
from sojourn.hub.redis.publisher import Publisher
from sojourn.hub.redis.scripts import REMEMBER
from sojourn.hub.redis.store import Asked, Store
from sojourn.scopes.deadline import free
from sojourn.scopes.work import launch
from sojourn.stores.redis import connected
from sojourn.wire.hub.cursor import Cursor

__all__ = ["RedisEngine"]

#: Channels in one script.
_STEP: Final = 500
#: Seconds between two looks at who is late.
_SWEEP: Final = 1.0
_SEQ: Final = attrgetter("seq")


class _Subscription:
    """A channel that is heard.

    What is heard while it is being subscribed may be before the place that is told, or after it while nobody is told
    yet. So nothing is delivered before, and the place is beyond all that was heard.

    Attributes:
        channel: Its name.
        asking: How many wait for it to be subscribed.
        opening: Whether it never was.
        early: Whether there may be publications that are not to be delivered.
    """

    __slots__ = ("_place", "asking", "channel", "early", "opening")

    def __init__(self, channel: str) -> None:
        self.channel = channel
        self.asking = 0
        self.opening = self.early = True
        self._place = Cursor("", 0)

    def begin(self, place: Cursor) -> Cursor:
        """It is subscribed; Redis was at this place afterwards. Returns the place after which all is delivered."""
        if self.opening:
            self.opening = False
            if self._place.epoch != place.epoch or self._place.seq < place.seq:
                self._place = place
            return self._place
        return place

    def too_early(self, cursor: Cursor) -> bool:
        """Whether a publication is before the place that was told."""
        if self.opening:
            self._place = cursor
        elif cursor.epoch != self._place.epoch or cursor.seq > self._place.seq:
            self.early = False
        return self.early


class RedisEngine:
    """Order, history and presence in Redis 7 or Valkey, for any number of nodes (the extra ``redis``).

    Publications of a node that are made at the same time share a round trip. A publication is numbered, kept and told
    to all nodes in one atomic step. Nodes hear by a connection of their own, whose loss is found by a PING without an
    answer; when it is made again, each node reads from the history what it has missed.

    A Redis that was restarted, or another one that took over, may have forgotten what it had acknowledged: the epoch is
    another one then, and who resumes is told of a gap.

    Args:
        redis: A URL such as ``redis://localhost:6379/0``, or a ``redis.asyncio.Redis``, which stays yours.
        prefix: Begins all keys and names. One prefix is one hub, in all databases of a Redis: what is published
            knows no databases. The braces put all keys in one slot of a Redis Cluster, as scripts need it.
        timeout: Seconds for an answer, if ``deadlines.budgets`` has none for ``hub``.
        ping: Seconds between two PINGs.
        pong_within: Seconds for a sign of life after a PING.

    Raises:
        ConfigError: The URL is none, the package ``redis`` is missing, or a number is not above zero.

    Example:
        >>> engine = RedisEngine("redis://localhost:6379/0", prefix="{shop:hub}:")
        >>> engine.available
        False
    """

    def __init__(
        self,
        redis: Any,
        *,
        prefix: str = "{sojourn:hub}:",
        timeout: float = 2.0,
        ping: float = 5.0,
        pong_within: float = 2.0,
    ) -> None:
        for name, seconds in (("timeout", timeout), ("ping", ping), ("pong_within", pong_within)):
            if not seconds > 0:
                raise ConfigError(f"RedisEngine: {name} must be above zero, not {seconds!r}")
        self._client, self._own = connected(redis, "a hub in Redis needs")
        self._times = (ping, pong_within, timeout)
        self._node = secrets.token_hex(envelope.NODE // 2)
        self._keys = Keys(prefix)
        self._store = Store(self._client, self._keys, timeout)
        self._publisher = Publisher(self._store, self._node)
        self._roll = Roll(self._store, self._node)
        self._receiver: Receiver | None = None
        self._link: Link | None = None
        self._tasks: list[asyncio.Task[None]] = []
        #: What is subscribed, by the name under which it is published.
        self._channels: dict[bytes, _Subscription] = {}
        self._epoch = ""
        self._error: Exception | None = None
        self._forgotten = False

    @property
    def available(self) -> bool:
        """Whether Redis can be reached, as far as is known."""
        return self._link is not None and self._link.available

    # -- Life

    async def start(self, receiver: Receiver) -> None:
        """Connect; where that fails, go on trying.

        Args:
            receiver: The hub.

        Raises:
            EngineUnavailable: Redis is too old.

        Cancel: safe; call :meth:`aclose` then.
        """
        if self._link is not None:
            raise RuntimeError("an engine is started once")
        self._receiver = receiver
        every, within, timeout = self._times
        link = self._link = Link(self, [self._keys.all], every, within, timeout)
        self._store.on_failure, self._store.on_life = link.check, self._forget
        context = contextvars.copy_context()
        context.run(free)  # it outlives whatever starts it
        self._tasks = [
            launch(link.run(), "hub redis link", context.copy()),
            launch(self._publisher.run(), "hub redis publisher", context.copy()),
            launch(self._keep(), "hub redis keeper", context.copy()),
        ]
        await asyncio.wait((link.settled,))
        if isinstance(self._error, EngineUnavailable) and self._error.retry_after >= _NEVER:
            raise self._error

    async def aclose(self) -> None:
        """End tasks and connections. What waits to be published fails."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self._publisher.fail(EngineUnavailable("the engine was closed"))
        if self._own:
            await self._client.aclose()

    def _ready(self) -> Link:
        link = self._link
        if link is None or not self._tasks:
            raise EngineUnavailable("the engine is not started, or was closed")
        if not link.available:
            error = self._error
            detail = error.detail if isinstance(error, EngineUnavailable) else str(error or "Redis was not reached yet")
            raise EngineUnavailable(detail)
        return link

    # -- Publications

    async def publish(self, publish: Publish) -> Published:
        """As of :class:`sojourn.hub.engine.Engine`."""
        self._ready()
        return await self._publisher.publish(publish)

    async def subscribe(self, channel: str) -> Cursor:
        """As of :class:`sojourn.hub.engine.Engine`. Where it raises, the channel is not subscribed."""
        link, name = self._ready(), self._keys.channel(channel)
        subscription = self._channels.get(name)
        if subscription is None:
            subscription = self._channels[name] = _Subscription(channel)
        subscription.asking += 1
        try:
            await self._store.bounded(lambda: link.subscribe(name))
            position = subscription.begin(await self._touch([channel]))
        except BaseException:
            if subscription.asking == 1 and subscription.opening and self._channels.get(name) is subscription:
                del self._channels[name]
                link.unsubscribe(name)
            raise
        finally:
            subscription.asking -= 1
        return position

    async def unsubscribe(self, channel: str) -> None:
        """As of :class:`sojourn.hub.engine.Engine`. Needs no connection."""
        name = self._keys.channel(channel)
        if self._channels.pop(name, None) is not None and self._link is not None:
            self._link.unsubscribe(name)

    async def position(self) -> Cursor:
        """As of :class:`sojourn.hub.engine.Engine`."""
        self._ready()
        return await self._touch([])

    async def history(self, wanted: Sequence[Wanted], limit: int) -> Page:
        """As of :class:`sojourn.hub.engine.Engine`."""
        self._ready()
        keys, limit = self._keys, max(limit, 1)

        def build(life: str) -> Asked:
            names, arguments = [keys.meta, keys.marks], [life.encode(), limit]
            for channel, since, rule in wanted:
                kept = keys.order(life, channel) if rule.mode == "latest" else keys.stream(life, channel)
                names += [keys.last(life, channel), kept, keys.values(life, channel)]
                epoch, seq = ("", 0) if since is None else since
                arguments += [epoch.encode(), seq, max(1, int(rule.ttl * 1000)), rule.mode.encode()]
            return Asked(names, arguments)

        raw, seq, more, lost, *found = await self._store.run(self._store.scripts.history, build)
        epoch = raw.decode()
        publications: list[Publication] = []
        for number, *entries in found:
            publications += envelope.page_of(wanted[int(number)].channel, epoch, entries)
        publications.sort(key=_SEQ)
        position = publications[-1].cursor if more else Cursor(epoch, int(seq))
        missing = {wanted[int(lost[at])].channel: int(lost[at + 1]) for at in range(0, len(lost), 2)}
        return Page(publications, position, missing, bool(more))

    async def tell(self, data: bytes) -> None:
        """As of :class:`sojourn.hub.engine.Engine`."""
        self._ready()
        await self._store.say(self._keys.all, self._node.encode() + data)

    # -- Presence

    async def enter(self, channel: str, members: Sequence[Present], ttl: float) -> None:
        """As of :class:`sojourn.hub.engine.Engine`."""
        self._ready()
        await self._roll.enter(channel, members, ttl)

    async def leave(self, channel: str, members: Sequence[str]) -> None:
        """As of :class:`sojourn.hub.engine.Engine`."""
        self._ready()
        await self._roll.leave(channel, members)

    async def refresh(self, present: Mapping[str, Sequence[str]], ttl: float) -> None:
        """As of :class:`sojourn.hub.engine.Engine`."""
        self._ready()
        await self._roll.refresh(present, ttl)

    async def present(self, channel: str, limit: int) -> Sequence[Present]:
        """As of :class:`sojourn.hub.engine.Engine`."""
        self._ready()
        return await self._roll.present(channel, limit)

    async def count(self, channel: str) -> tuple[int, int]:
        """As of :class:`sojourn.hub.engine.Engine`."""
        self._ready()
        return await self._roll.count(channel)

    # -- What the link tells

    async def connecting(self) -> Any:
        """Redis is looked at before it is listened to."""
        self._epoch = (await self._store.greet()).epoch
        return self._client.connection_pool.make_connection()

    def up(self, again: bool) -> None:
        """Everything is subscribed; what came meanwhile is in the history."""
        assert self._receiver is not None
        away, self._error = self._error is not None, None
        if away:
            self._receiver.away(None)
        if again:
            self._receiver.lost(None)
            self._forget()  # perhaps; it costs little to say again who is here

    def down(self, error: Exception) -> None:
        """Redis is away, since now or still."""
        assert self._receiver is not None
        first, self._error = self._error is None, error
        if first:
            self._receiver.away(error)

    def heard(self, name: bytes, message: bytes) -> None:
        """Something was published. What is no message of a hub is not for us, whoever has sent it."""
        receiver = self._receiver
        assert receiver is not None
        subscription = self._channels.get(name)
        try:
            if subscription is None:
                if name == self._keys.all and message[: envelope.NODE] != self._node.encode():
                    receiver.told(message[envelope.NODE :])
            elif message[:1] == envelope.PUBLICATION:
                publication = envelope.publication_of(subscription.channel, message)
                if publication.epoch != self._epoch:  # Redis was emptied meanwhile, though the connection is the same
                    self._epoch = publication.epoch
                    receiver.lost(None)
                if not subscription.early or not subscription.too_early(publication.cursor):
                    receiver.deliver(publication)
            else:
                self._changed(receiver, subscription.channel, message)
        except ValueError:
            pass  # no message of a hub's

    # -- Inside

    def _changed(self, receiver: Receiver, channel: str, message: bytes) -> None:
        self._roll.used = True
        if message[:1] == envelope.CHANGE:
            node, came, left = envelope.change_of(message)
            if node != self._node:
                receiver.changed(channel, came, left)
        elif message[:1] == envelope.EXPIRED:
            mine = self._roll.mine.get(channel, {})
            left = [member for member in envelope.expired_of(message) if member not in mine]
            if left:
                receiver.changed(channel, (), left)

    def _forget(self) -> None:
        """Redis may have forgotten who is here, and what is in use."""
        self._forgotten = True

    async def _touch(self, channels: Sequence[str]) -> Cursor:
        keys = self._keys

        def build(life: str) -> Asked:
            names = [keys.meta, keys.marks, *(keys.last(life, channel) for channel in channels)]
            return Asked(names, [life.encode()])

        epoch, seq = await self._store.run(self._store.scripts.touch, build)
        return Cursor(epoch.decode(), int(seq))

    async def _keep(self) -> None:
        """What has to be done from time to time: see who is late, and have Redis remember what is in use here."""
        loop, due = asyncio.get_running_loop(), 0.0
        while True:
            await asyncio.wait((loop.create_future(),), timeout=_SWEEP)
            due -= _SWEEP
            try:
                if not self.available:
                    continue
                if self._forgotten:
                    self._forgotten, due = False, 0.0
                    await self._roll.restore()
                await self._roll.sweep()
                if due <= 0.0:
                    due = REMEMBER / 3
                    channels = [subscription.channel for subscription in self._channels.values()]
                    for at in range(0, len(channels), _STEP):
                        await self._touch(channels[at : at + _STEP])
            except EngineUnavailable:
                self._forgotten = True  # it is done again when Redis is back


#: ``retry_after`` of what does not pass by itself, in seconds.
_NEVER: Final = 60.0
