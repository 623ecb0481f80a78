"""One client of a hub, whatever it speaks."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sojourn.hub.identity import Identity
from sojourn.hub.publication import Publication
from sojourn.hub.topic import Topic
from sojourn.wire.hub.cursor import Cursor

if TYPE_CHECKING:
    from sojourn.hub.forms import Form
    from sojourn.hub.node import Node
    from sojourn.hub.stats import Transport
    from sojourn.hub.waiting import Waiting

__all__ = ["Member"]


class Member(ABC):
    """One client, from the moment it is known who it is to its end.

    Args:
        node: Where it is.
        identity: Who it is.
        form: How it gets what is published.
        address: Address of its client; "" when that is not known.

    Attributes:
        id: Unique over all nodes.
        form: How it gets what is published.
        topics: The channels it is in.
        infos: What it has said about itself, by channel.
        waiting: What waits for it; None while it keeps up.
        since: When it came, in seconds of the monotonic clock.
        over: Whether it has ended.
        sent: Messages that were written to it.
        suspect: Whether it has missed a ping.
    """

    __slots__ = (
        "__weakref__",
        "_took",
        "address",
        "form",
        "id",
        "identity",
        "infos",
        "node",
        "over",
        "sent",
        "since",
        "suspect",
        "topics",
        "waiting",
    )

    #: What it is in metrics.
    transport: Transport

    def __init__(self, node: Node, identity: Identity, form: Form, address: str = "") -> None:
        self.node = node
        self.identity = identity
        self.form = form
        self.address = address
        self.id = node.new_id()
        self.topics: dict[str, Topic] = {}
        self.infos: dict[str, Any] = {}
        self.waiting: Waiting | None = None
        self.since = node.now()
        self.over = False
        self.sent = 0
        self.suspect = False
        self._took: asyncio.Future[None] | None = None

    @property
    def user(self) -> str:
        """Who it is; "" for nobody in particular."""
        return self.identity.user

    @property
    @abstractmethod
    def spoken_at(self) -> float:
        """When something was written to it last, in seconds of the hub's time."""

    @property
    def buffered(self) -> int:
        """Bytes that wait for it here; those in the server's own buffer are not among them."""
        return 0 if self.waiting is None else self.waiting.bytes

    # What the node does with it

    @abstractmethod
    def deliver(self, publications: Sequence[Publication]) -> None:
        """Write these in order, or let them wait."""

    @abstractmethod
    def control(self, data: bytes) -> None:
        """Write something of the hub's own past all that waits; in the member's form."""

    def deliver_state(self, topic: Topic, state: Publication, cursor: Cursor) -> None:
        """Give it the state of a channel, in place of what can't be had any more."""
        data = self.form.snapshot(state, cursor)
        if self.waiting is None:
            self.control(data)
        else:
            behind = Publication(topic.channel, state.epoch, 0, 0, state.kind, state.data)
            behind.forms[self.form] = data  # in its place behind what waits
            self.hold((behind,))

    @abstractmethod
    def end(self, code: int, detail: str) -> None:
        """End it with a close code of the hub; what waits is dropped."""

    @abstractmethod
    def enter(self, topic: Topic) -> None:
        """It is in a topic from now on."""

    @abstractmethod
    def forsake(self, topic: Topic) -> None:
        """It is in a topic no more."""

    def answered(self) -> None:  # noqa: B027 - only who measures it has something to do
        """It says that it has got a ping; that something came of it was noticed already."""

    async def drained(self) -> None:
        """Wait until nothing waits for it, or it has ended.

        Cancel: safe.
        """
        while self.waiting is not None and not self.over:
            await self._progress()

    async def flushed(self) -> bool:
        """Wait until all that waits for it now was handed to its transport, or dropped by the rule of its channel.

        Returns:
            False when the member has ended before.

        Cancel: safe.
        """
        waiting = self.waiting
        mark = 0 if waiting is None else waiting.mark
        await self.passes(waiting, mark)
        return self.has_passed(waiting, mark)

    async def passes(self, waiting: Waiting | None, mark: int) -> None:
        """Wait until it has passed a mark of what waited for it, or has ended.

        Cancel: safe.
        """
        while not (self.over or self.has_passed(waiting, mark)):
            await self._progress()

    def has_passed(self, waiting: Waiting | None, mark: int) -> bool:
        """Whether it lives, and all that stood before a mark of what waited for it was handed on or dropped."""
        if self.over:
            return False
        # With another queue, or none, it has been through the old one.
        return waiting is None or self.waiting is not waiting or waiting.passed(mark)

    async def _progress(self) -> None:
        if self._took is None:
            self._took = self.node.loop.create_future()
        await asyncio.wait((self._took,))

    def _moved(self) -> None:
        took, self._took = self._took, None
        if took is not None:
            took.set_result(None)

    # What waits

    def hold(self, publications: Sequence[Publication]) -> None:
        """Let these wait, as far as the rules of their channels allow."""
        backlog, topics, form = self.node.backlog, self.node.topics, self.form
        for publication in publications:
            if not backlog.hold(self, publication, topics.get(publication.channel), len(form.of(publication))):
                return

    def hold_gap(self, topic: Topic, cursor: Cursor) -> None:
        """Tell it, in its place, that something of a channel is missing."""
        if self.waiting is not None:
            self.waiting.tell_gap(topic.channel, cursor)
            return
        self._tell_gap(topic.channel, cursor)

    def taken(self, room: int) -> list[bytes]:
        """Take what waits, encoded, up to so many bytes and at least one; empty when nothing waits."""
        waiting = self.waiting
        if waiting is None:
            return []
        before, sent = waiting.bytes, self.sent
        found = []
        for item in waiting.take(room):
            if isinstance(item, Publication):
                found.append(self.form.of(item))
                self.sent += 1
            else:
                data = self.form.gap(item.channel, item.cursor)
                self.node.stats.gaps += 1
                if data is not None:
                    found.append(data)
        stats = self.node.stats
        stats.deliveries += self.sent - sent
        stats.bytes_out += sum(map(len, found))
        self.node.backlog.took(self, waiting, before)
        self._moved()
        return found

    def dropped(self) -> None:
        """It has ended: nothing waits for it any more."""
        self.node.backlog.forget(self)
        self._moved()

    def _tell_gap(self, channel: str, cursor: Cursor) -> None:
        data = self.form.gap(channel, cursor)
        if data is not None:
            self.control(data)
        else:
            self.end(4011, f"publications of {channel} are missing")
