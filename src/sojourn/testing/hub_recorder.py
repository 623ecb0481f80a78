"""What an engine has told a node, and how to wait for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from sojourn.clock import SystemClock
from sojourn.hub.engine import Engine, Page, Present, Publish, Published, Wanted
from sojourn.hub.publication import Kind, Publication
from sojourn.hub.rules import History
from sojourn.wire.hub.cursor import Cursor

__all__ = ["BrokenPromise", "Node", "Recorder", "expect"]

#: Seconds for anything that has to come; none of it takes so long unless it does not come at all.
PATIENCE: Final = 5.0


class BrokenPromise(AssertionError):
    """The engine does not do what the contract says; the text says which part."""


def expect(right: bool, text: str) -> None:
    """Hold a part of the contract.

    Raises:
        BrokenPromise: It does not.
    """
    if not right:
        raise BrokenPromise(text)


class Change(NamedTuple):
    """What was told of members of other nodes."""

    channel: str
    came: Sequence[Present]
    left: Sequence[str]


class Recorder:
    """A receiver that keeps all it is told.

    Attributes:
        publications: In the order in which they were delivered.
        losses: What ``lost`` was called with.
        words: What other nodes told.
        changes: What was told of members of other nodes.
        outages: What ``away`` was called with.
        closed: Whether the engine has ended: it must tell nothing any more.
    """

    def __init__(self) -> None:
        self.publications: list[Publication] = []
        self.losses: list[Sequence[str] | None] = []
        self.words: list[bytes] = []
        self.changes: list[Change] = []
        self.outages: list[Exception | None] = []
        self.closed = False
        self.late: list[str] = []
        self._waiting: list[asyncio.Future[None]] = []
        self._loop = asyncio.get_running_loop()

    def deliver(self, publication: Publication) -> None:
        """As in :class:`sojourn.hub.engine.Receiver`."""
        self.publications.append(publication)
        self._told("deliver")

    def lost(self, channels: Sequence[str] | None) -> None:
        """As in :class:`sojourn.hub.engine.Receiver`."""
        self.losses.append(channels)
        self._told("lost")

    def told(self, data: bytes) -> None:
        """As in :class:`sojourn.hub.engine.Receiver`."""
        self.words.append(data)
        self._told("told")

    def changed(self, channel: str, came: Sequence[Present], left: Sequence[str]) -> None:
        """As in :class:`sojourn.hub.engine.Receiver`."""
        self.changes.append(Change(channel, list(came), list(left)))
        self._told("changed")

    def away(self, error: Exception | None) -> None:
        """As in :class:`sojourn.hub.engine.Receiver`."""
        self.outages.append(error)
        self._told("away")

    def of(self, channel: str) -> list[Publication]:
        """What was delivered of a channel."""
        return [publication for publication in self.publications if publication.channel == channel]

    def holes(self, channel: str, position: int) -> list[Publication]:
        """The deliveries of a channel that tell of a publication before them that was not delivered, or was later.

        Args:
            channel: Which.
            position: From where on all were to be delivered.
        """
        found = []
        for publication in self.of(channel):
            if publication.prev > position or publication.seq <= position:
                found.append(publication)
            position = publication.seq
        return found

    async def until(self, right: Callable[[], bool], text: str, seconds: float | None = None) -> None:
        """Wait until something is so.

        Args:
            right: Whether it is; asked after each time that the engine has told something.
            text: What is promised.
            seconds: How long it may take; None takes five.

        Raises:
            BrokenPromise: It was not so in time.
        """
        clock = SystemClock()
        limit = clock.monotonic() + (PATIENCE if seconds is None else seconds)
        while not right():
            rest = limit - clock.monotonic()
            expect(rest > 0, text)
            woken: asyncio.Future[None] = self._loop.create_future()
            self._waiting.append(woken)
            await asyncio.wait([woken], timeout=min(rest, 0.05))

    def _told(self, what: str) -> None:
        if self.closed:
            self.late.append(what)
        if asyncio.get_running_loop() is not self._loop:
            self.late.append(f"{what} in another loop")
        for woken in self._waiting:
            if not woken.done():
                woken.set_result(None)
        self._waiting.clear()


class Node:
    """An engine that runs, and what it has told.

    Attributes:
        engine: The engine.
        seen: What it has told.
    """

    def __init__(self, engine: Engine, seen: Recorder) -> None:
        self.engine = engine
        self.seen = seen

    async def publish(
        self, channel: str, data: bytes = b"x", *, rule: History | None = None, key: str = "", name: str = ""
    ) -> Published:
        """Publish text; without a rule a hundred are kept for a minute."""
        rule = rule or History(size=100, ttl=60)
        return await self.engine.publish(Publish(channel, Kind.TEXT, data, rule, key, name))

    async def all(self, channel: str, rule: History | None = None) -> Page:
        """All that is kept of a channel."""
        return await self.read(channel, None, 1000, rule or History(size=100, ttl=60))

    async def read(self, channel: str, since: Cursor | None, limit: int, rule: History) -> Page:
        """What is kept of one channel after a place."""
        return await self.engine.history([Wanted(channel, since, rule)], limit)
