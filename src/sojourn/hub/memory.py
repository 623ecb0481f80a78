"""The engine of one process: everything in its memory."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from contextvars import Context
from typing import Final

from sojourn.clock import Clock, SystemClock
from sojourn.errors import EngineUnavailable
from sojourn.hub.engine import Page, Present, Publish, Published, Receiver, Wanted
from sojourn.hub.log import Log
from sojourn.hub.roster import Roster
from sojourn.wire.hub.cursor import Cursor

__all__ = ["MemoryEngine", "new_epoch"]

#: Seconds between two looks at what is over.
_SWEEP: Final = 1.0
#: The one node there is.
_NODE: Final = ""


def new_epoch() -> str:
    """A name for a life of a store that no other has."""
    return secrets.token_hex(5)


class MemoryEngine:
    """Orders and keeps publications in the memory of this process; what it keeps ends with the process.

    ``publish`` delivers before it returns. Nothing here waits for anything, and it is always available.

    Args:
        size: Bytes of publications that are kept at most, about; then each channel in turn loses its oldest.
        channels: Channels that are known at most.
        clock: Times what is kept; None takes the machine's.

    Example:
        >>> engine = MemoryEngine(size=64 * 1024 * 1024)
        >>> engine.available
        False
    """

    def __init__(self, *, size: int = 256 * 1024 * 1024, channels: int = 100_000, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._log = Log(new_epoch(), channels=channels, size=size)
        self._roster = Roster()
        self._subscribed: set[str] = set()
        self._receiver: Receiver | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._pause = _SWEEP
        self._context = Context()  # nobody's request

    @property
    def available(self) -> bool:
        """Whether it was started."""
        return self._receiver is not None

    async def start(self, receiver: Receiver) -> None:
        """Begin.

        Args:
            receiver: Who gets what is published.
        """
        self._receiver = receiver
        self._plan()

    async def aclose(self) -> None:
        """End. Nothing is delivered any more."""
        self._receiver = None
        self._subscribed.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def publish(self, publish: Publish) -> Published:
        """Publish, and deliver, before it returns."""
        receiver = self._receiver
        if receiver is None:
            raise _stopped()
        publication = self._log.publish(publish, self._clock.monotonic())
        if isinstance(publication, Published):
            return publication
        if publish.channel in self._subscribed:
            receiver.deliver(publication)
        return Published(publication.cursor)

    async def subscribe(self, channel: str) -> Cursor:
        """Have a channel delivered from now on."""
        self._running()
        self._subscribed.add(channel)
        return self._log.position

    async def unsubscribe(self, channel: str) -> None:
        """Have it delivered no more."""
        self._subscribed.discard(channel)

    async def position(self) -> Cursor:
        """The present place of the whole."""
        self._running()
        return self._log.position

    async def history(self, wanted: Sequence[Wanted], limit: int) -> Page:
        """What is kept of some channels, each after its place."""
        self._running()
        return self._log.page(wanted, limit, self._clock.monotonic())

    async def tell(self, data: bytes) -> None:
        """Nobody is there to be told."""
        self._running()

    async def enter(self, channel: str, members: Sequence[Present], ttl: float) -> None:
        """These members are present, or have changed."""
        self._running()
        self._roster.enter(_NODE, channel, members, ttl, self._clock.monotonic())
        self._hasten(ttl)

    async def leave(self, channel: str, members: Sequence[str]) -> None:
        """These members are present no more."""
        self._roster.leave(_NODE, channel, members)

    async def refresh(self, present: Mapping[str, Sequence[str]], ttl: float) -> None:
        """These members are still there."""
        self._running()
        self._roster.refresh(_NODE, present, ttl, self._clock.monotonic())
        self._hasten(ttl)

    async def present(self, channel: str, limit: int) -> Sequence[Present]:
        """Who is in a channel."""
        self._running()
        return self._roster.present(channel, limit)

    async def count(self, channel: str) -> tuple[int, int]:
        """How many members and how many users are in a channel."""
        self._running()
        return self._roster.count(channel)

    def _running(self) -> None:
        if self._receiver is None:
            raise _stopped()

    def _hasten(self, ttl: float) -> None:
        """Look often enough for who is refreshed so often."""
        if ttl / 4 < self._pause:
            self._pause = ttl / 4
            self._plan()

    def _plan(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(self._pause, self._sweep, context=self._context)

    def _sweep(self) -> None:
        now = self._clock.monotonic()
        self._roster.expire(now)
        self._log.sweep(now, self._subscribed)
        self._plan()


def _stopped() -> EngineUnavailable:
    return EngineUnavailable("it was not started, or has ended")
