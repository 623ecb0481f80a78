"""The engine of one host: asks the broker, and comes back to it, or to the next one, when it was lost."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Iterator, Mapping, Sequence
from contextvars import Context
from typing import Any, Final, TypeVar

import msgspec

from sojourn.asgi.server_control import CURRENT_SERVER
from sojourn.clock import Clock, SystemClock
from sojourn.errors import ConfigError, EngineUnavailable
from sojourn.hub.engine import Page, Present, Publish, Published, Receiver, Wanted
from sojourn.hub.local.hosting import Host
from sojourn.hub.local.link import Link
from sojourn.hub.local.messages import (
    VERSION,
    Bye,
    Change,
    Count,
    Enter,
    Hello,
    Join,
    Kept,
    Leave,
    News,
    Part,
    Put,
    Read,
    Refresh,
    Request,
    Tell,
    Where,
    Who,
    Word,
)
from sojourn.hub.local.place import connected, from_environment
from sojourn.hub.memory import new_epoch
from sojourn.policy.retry import Backoff
from sojourn.scopes.work import launch
from sojourn.wire.hub.cursor import Cursor

__all__ = ["LocalEngine"]

T = TypeVar("T")

_BACKOFF: Final = Backoff(first=0.05, most=1.0)
#: Seconds that ``start`` waits for the broker; later it goes on without.
_FIRST: Final = 2.0
#: Channels and members in one message, and bytes of what a member tells about itself: together below the longest.
_CHANNELS: Final = 50_000
_MEMBERS: Final = 400
_INFO: Final = 65_536

_encode = msgspec.msgpack.Encoder().encode
_place = msgspec.msgpack.Decoder(tuple[str, int]).decode
_published = msgspec.msgpack.Decoder(tuple[str, int, bool]).decode
_page = msgspec.msgpack.Decoder(tuple[list[News], str, int, dict[str, int], bool]).decode
_ids = msgspec.msgpack.Decoder(dict[str, list[str]]).decode
_members = msgspec.msgpack.Decoder(list[Present]).decode
_counts = msgspec.msgpack.Decoder(tuple[int, int]).decode


class LocalEngine:
    """Orders and keeps publications for all workers of one host; no server is needed.

    Under ``sojourn serve`` the supervisor holds them. Elsewhere give a path: the first process that finds nobody there
    holds them for all, and when it ends another does. What was kept ends with the process that held it; who resumes
    then is told of a gap.

    Args:
        path: Of the socket; its folder must be there. None takes the supervisor's.
        store: What is shared: hubs that are to have nothing to do with each other name two.
        size: Bytes of publications that this process would keep at most, if it held them.
        within: Seconds for an answer; a broker that is slower counts as lost.
        clock: Times answers, and what is kept; None takes the machine's.

    Raises:
        ConfigError: The path is too long.

    Example:
        >>> engine = LocalEngine("/run/shop/hub.sock")
        >>> engine.available
        False
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        store: str = "",
        size: int = 256 * 1024 * 1024,
        within: float = 3.0,
        clock: Clock | None = None,
    ) -> None:
        if within <= 0:
            raise ConfigError(f"within is above zero seconds, not {within!r}")
        self._within = within
        self._store = store
        self._clock = clock or SystemClock()
        self._host = Host(os.fspath(path) if path is not None else None, size=size, clock=self._clock)
        self._node = new_epoch()
        self._receiver: Receiver | None = None
        self._task: asyncio.Task[None] | None = None
        self._link: Link | None = None
        self._first: asyncio.Future[None] | None = None
        self._away: Exception | None = None
        self._subscribed: dict[str, None] = {}
        #: The members of this node, by channel and id, and their ttl: a broker that does not know them is told anew.
        self._present: dict[str, dict[str, Present]] = {}
        self._ttl = 60.0

    @property
    def available(self) -> bool:
        """Whether the broker can be reached, as far as is known."""
        return self._link is not None

    @property
    def hosting(self) -> bool:
        """Whether this process is the broker."""
        return self._host.hosting

    async def start(self, receiver: Receiver) -> None:
        """Begin; waits for the broker for two seconds at most.

        Args:
            receiver: Who gets what is published.

        Raises:
            ConfigError: There is no supervisor, and no path was given.

        Cancel: safe; close it then.
        """
        if self._host.name is None:
            name = from_environment(os.environ)
            if name is None and CURRENT_SERVER.get(None) is None:
                raise ConfigError(
                    "LocalEngine() needs workers of `sojourn serve`; elsewhere give all processes the same path"
                )
            self._host.settle(name)
        self._receiver = receiver
        self._first = asyncio.get_running_loop().create_future()
        self._task = launch(self._keep(), "hub engine", Context())  # nobody's request
        await asyncio.wait([self._first], timeout=_FIRST)

    async def aclose(self) -> None:
        """End. Members of this node are gone at once. If it was the broker, another process becomes it."""
        self._receiver = None
        task, self._task = self._task, None
        link, self._link = self._link, None
        if link is not None:
            link.leave(Bye())
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        self._host.close()
        self._subscribed.clear()
        self._present.clear()

    # Publications

    async def publish(self, publish: Publish) -> Published:
        """Publish; this node gets it before the answer, if it is subscribed.

        Raises:
            EngineUnavailable: The broker can't be reached; it may have been published.
            ValueError: It is longer than 32 MiB.
        """
        rule = publish.history
        raw = await self._ask(
            Put(
                channel=publish.channel,
                kind=publish.kind,
                data=publish.data,
                size=rule.size,
                ttl=rule.ttl,
                mode=rule.mode,
                key=publish.key,
                id=publish.id,
            )
        )
        epoch, seq, repeated = _published(raw)
        return Published(Cursor(epoch, seq), repeated)

    async def subscribe(self, channel: str) -> Cursor:
        """Have a channel delivered from now on."""
        new = channel not in self._subscribed
        self._subscribed[channel] = None
        try:
            return Cursor(*_place(await self._ask(Join(channels=[channel]))))
        except EngineUnavailable:
            if new:
                self._subscribed.pop(channel, None)
            raise

    async def unsubscribe(self, channel: str) -> None:
        """Have it delivered no more. Without a broker it is enough to forget it."""
        self._subscribed.pop(channel, None)
        if self._link is not None:
            await self._ask(Part(channels=[channel]))

    async def position(self) -> Cursor:
        """The present place of the whole."""
        return Cursor(*_place(await self._ask(Where())))

    async def history(self, wanted: Sequence[Wanted], limit: int) -> Page:
        """What is kept of some channels, each after its place."""
        asked = [Kept(channel, since, rule.size, rule.ttl, rule.mode) for channel, since, rule in wanted]
        news, epoch, seq, lost, more = _page(await self._ask(Read(wanted=asked, limit=limit)))
        return Page([each.publication() for each in news], Cursor(epoch, seq), lost, more)

    # Words and members

    async def tell(self, data: bytes) -> None:
        """Say something to all other nodes."""
        await self._ask(Tell(data=data))

    async def enter(self, channel: str, members: Sequence[Present], ttl: float) -> None:
        """These members are present, or have changed. A broker that can't be reached now is told when it can.

        What a member tells about itself is left out when it is longer than 64 KiB or can't be written as MessagePack.
        """
        self._ttl = ttl
        fit = [_fitting(present) for present in members]
        self._present.setdefault(channel, {}).update((present.member, present) for present in fit)
        for asked in self._enters(channel, fit):
            await self._ask(asked)

    async def leave(self, channel: str, members: Sequence[str]) -> None:
        """These members are present no more."""
        here = self._present.get(channel, {})
        for member in members:
            here.pop(member, None)
        if not here:
            self._present.pop(channel, None)
        if self._link is not None:
            await self._ask(Leave(channel=channel, members=list(members)))

    async def refresh(self, present: Mapping[str, Sequence[str]], ttl: float) -> None:
        """These members are still there. Those whom the broker has let go, because we were silent, are told anew."""
        self._ttl = ttl
        names = {channel: list(members) for channel, members in present.items()}
        unknown = _ids(await self._ask(Refresh(present=names, ttl=ttl)))
        for channel, members in unknown.items():
            here = self._present.get(channel, {})
            again = [here[member] for member in members if member in here]
            for asked in self._enters(channel, again):
                await self._ask(asked)

    async def present(self, channel: str, limit: int) -> Sequence[Present]:
        """Who is in a channel, over all nodes."""
        return _members(await self._ask(Who(channel=channel, limit=limit)))

    async def count(self, channel: str) -> tuple[int, int]:
        """How many members and how many users are in a channel."""
        return _counts(await self._ask(Count(channel=channel)))

    def _enters(self, channel: str, members: Sequence[Present]) -> Iterator[Enter]:
        for at in range(0, len(members), _MEMBERS):
            yield Enter(channel=channel, members=list(members[at : at + _MEMBERS]), ttl=self._ttl)

    # The link

    def told(self, message: News | Word | Change) -> None:
        """The broker says something by itself."""
        receiver = self._receiver
        if receiver is None:
            return
        if isinstance(message, News):
            if message.channel in self._subscribed:
                receiver.deliver(message.publication())
        elif isinstance(message, Word):
            receiver.told(message.data)
        elif message.channel in self._subscribed:
            receiver.changed(message.channel, message.came, message.left)

    def _ask(self, request: Request) -> asyncio.Future[msgspec.Raw]:
        link = self._link
        if link is None:
            raise EngineUnavailable(str(self._away or "it was not started, or has ended"))
        return link.ask(request)

    async def _keep(self) -> None:
        """Be linked to the broker, always again."""
        loop = asyncio.get_running_loop()
        tries = 0
        while True:
            try:
                link = await self._connect()
            except (OSError, EngineUnavailable) as error:
                tries += 1
                self._lost(error)
            else:
                tries = 1
                why = await link.over
                self._link = None
                self._lost(EngineUnavailable(why))
            if self._first is not None and not self._first.done():
                self._first.set_result(None)
            woken = loop.create_future()
            await asyncio.wait([woken], timeout=_BACKOFF.delay(tries, random.random()))

    async def _connect(self) -> Link:
        """Find the broker, or become it, and tell it what this node has."""
        loop = asyncio.get_running_loop()
        await self._host.attend()
        link = Link(self, within=self._within, now=self._clock.monotonic)
        try:
            sock = connected(self._host.name or "")
            try:
                await loop.create_unix_connection(lambda: link, sock=sock)
            except BaseException:
                sock.close()
                raise
            await link.ask(Hello(version=VERSION, node=self._node, store=self._store))
        except BaseException:
            link.end("no connection")
            raise
        self._settle(link)
        return link

    def _settle(self, link: Link) -> None:
        """Everything in one turn: who hears of the loss asks behind what is said here, and gets nothing before it."""
        channels = list(self._subscribed)
        for at in range(0, len(channels), _CHANNELS):
            link.ask(Join(channels=channels[at : at + _CHANNELS])).add_done_callback(_joined(link))
        for channel, here in self._present.items():
            for asked in self._enters(channel, list(here.values())):
                link.say(asked)
        self._link = link
        again, self._away = self._away is not None, None
        if self._first is not None and not self._first.done():
            self._first.set_result(None)
        receiver = self._receiver
        if again and receiver is not None:
            receiver.lost(None)
            receiver.away(None)

    def _lost(self, error: Exception) -> None:
        first, self._away = self._away is None, error
        if first and self._receiver is not None:
            self._receiver.away(error)


def _fitting(present: Present) -> Present:
    """A member as it can be told."""
    try:
        fits = len(_encode(present.info)) <= _INFO
    except (TypeError, ValueError, OverflowError, RecursionError):
        fits = False  # it was made of JSON, which can express more
    return present if fits else present._replace(info=None)


def _joined(link: Link) -> Any:
    """Without its channels a link is of no use."""

    def done(answer: asyncio.Future[Any]) -> None:
        if not answer.cancelled() and (error := answer.exception()) is not None:
            link.end(str(error))

    return done
