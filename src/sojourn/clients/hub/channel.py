"""One channel, as the application of a client sees it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec

from sojourn.clients.hub.commands import Command
from sojourn.clients.hub.events import Count, Event, Member, Message, Page, Published, Roster
from sojourn.clients.hub.inbox import Inbox
from sojourn.clients.hub.machine import value_of
from sojourn.errors import HubGone
from sojourn.wire import hub as wire
from sojourn.wire.hub.cursor import Cursor

if TYPE_CHECKING:
    from sojourn.clients.hub.client import HubClient

__all__ = ["HubChannel"]


class HubChannel:
    """A channel that is joined, and joined again after each cut, until it is left. Made by ``HubClient.join``.

    Iterate over it for what comes; one task at a time. The iteration ends when the channel is left or the client
    closed, and raises HubRefused or HubGone when it can't go on.

    Attributes:
        name: Its name.
    """

    __slots__ = ("_client", "_inbox", "entered", "name", "waiting")

    def __init__(self, client: HubClient, name: str, inbox: Inbox[Event]) -> None:
        self._client = client
        self._inbox = inbox
        self.name = name
        #: Set when it is joined for the first time, or can't be; and how many wait for that.
        self.entered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiting = 0

    @property
    def position(self) -> str:
        """Cursor of what was read last, for ``join(since=...)`` after a restart; "" before the first."""
        return self._inbox.position

    def __aiter__(self) -> HubChannel:
        return self

    async def __anext__(self) -> Event:
        return await self._inbox.next()

    async def publish(self, data: Any, *, key: str = "", uid: str | None = None) -> Published:
        """Publish to the channel, and wait for its number.

        While there is no connection it waits for one. If the connection is lost before the answer it is sent again,
        with the same id, so that it is published once.

        Args:
            data: Bytes, text, or what JSON can express.
            key: What it is the latest value of.
            uid: Tells a repetition from another publication; None for an id of its own.

        Returns:
            Its place.

        Raises:
            HubRefused: The hub does not want it, it is too large, or too many wait already.
            HubGone: The client is closed, or has given up.
            DeadlineExceeded: No answer in time (``ClientRules.reply`` or the ambient deadline); it may be published.
            ValueError: It can't be written as JSON.

        Cancel: safe; it may be published.
        """
        uid = self._client.new_uid() if uid is None else uid
        if isinstance(data, bytes | bytearray | memoryview):
            body = wire.Pub(self.name, b=bytes(data), key=key, uid=uid)
        else:
            body = wire.Pub(self.name, d=msgspec.Raw(json_of(data)), key=key, uid=uid)
        done = await self._client.ask(Command("pub", json_of(body), self.name), wire.Published)
        return Published(done.pos, done.repeated)

    async def presence(self) -> Roster:
        """Who is in the channel.

        Raises:
            HubRefused, HubGone, DeadlineExceeded: As :meth:`publish`.

        Cancel: safe.
        """
        done = await self._client.ask(Command("who", json_of(wire.Who(self.name)), self.name), wire.Members)
        return Roster([Member(one.member, one.user, one.state, one.info) for one in done.members], done.more)

    async def count(self) -> Count:
        """How many are in the channel.

        Raises:
            HubRefused, HubGone, DeadlineExceeded: As :meth:`publish`.

        Cancel: safe.
        """
        done = await self._client.ask(Command("count", json_of(wire.Count(self.name)), self.name), wire.Counted)
        return Count(done.members, done.users)

    async def history(self, since: str | None = None, limit: int | None = None) -> Page:
        """What the hub has kept of the channel.

        Args:
            since: A cursor: only what is behind it. None: all that is kept.
            limit: Messages at most. None: as many as the hub gives at once.

        Raises:
            HubRefused, HubGone, DeadlineExceeded: As :meth:`publish`.

        Cancel: safe.
        """
        command = Command("hist", json_of(wire.Hist(self.name, since, limit)), self.name)
        done = await self._client.ask(command, wire.Page)
        place = Cursor.parse(done.pos)
        epoch = "" if place is None else place.epoch
        messages = [
            Message(one.ch, value_of(one.d, one.b), f"{epoch}.{one.p}" if one.p else "", one.k) for one in done.pubs
        ]
        return Page(messages, done.pos, done.gap, done.more)

    async def leave(self) -> None:
        """Leave the channel; what came and was not read can still be read.

        Cancel: safe; it does not wait.
        """
        self._client.forsake(self)

    def over(self, error: Exception | None) -> None:
        """Nothing comes any more: it was left or the client closed (None), or it can't go on."""
        self._inbox.end(error)
        if not self.entered.done():
            self.entered.set_exception(error or HubGone(f"{self.name!r} was left, or the client closed"))
            self.entered.exception()  # read: nobody may be waiting for it

    def put(self, event: Event, size: int) -> None:
        """Something came."""
        self._inbox.put(event, size)

    def __repr__(self) -> str:
        return f"<HubChannel {self.name!r} at {self.position or 'its beginning'}, {len(self._inbox)} to be read>"


def json_of(value: Any) -> bytes:
    """A value as JSON.

    Raises:
        ValueError: It can't be written as JSON.
    """
    try:
        return msgspec.json.encode(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"it can't be written as JSON: {error}") from None
