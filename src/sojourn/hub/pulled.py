"""A member that fetches what waits for it: a WebSocket of another server, an event stream, a long poll."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from sojourn.hub.identity import Identity
from sojourn.hub.member import Member
from sojourn.hub.publication import Publication
from sojourn.hub.topic import Topic

if TYPE_CHECKING:
    from sojourn.hub.forms import Form
    from sojourn.hub.node import Node
    from sojourn.hub.stats import Transport

__all__ = ["PulledMember"]

#: Of the hub's own, which go past the bounds of the queue: a client that takes none of so many is too slow.
_CONTROLS: Final = 256


class PulledMember(Member):
    """A member whose own task writes.

    Args:
        node: Where it is.
        identity: Who it is.
        form: How it gets what is published.
        transport: What it is in metrics.
        address: Address of its client.

    Attributes:
        ending: Close code and detail when the hub has ended it; None while it has not.
        heard_at: When something came from it last, in seconds of the hub's time.
        wrote_at: When something was taken to be written last.
    """

    __slots__ = ("_controls", "_finished", "_news", "ending", "heard_at", "transport", "wrote_at")

    def __init__(self, node: Node, identity: Identity, form: Form, transport: Transport, address: str = "") -> None:
        super().__init__(node, identity, form, address)
        self.transport = transport
        self.ending: tuple[int, str] | None = None
        self._controls: list[bytes] = []
        self._news: asyncio.Future[None] | None = None
        self._finished: asyncio.Future[None] | None = None
        self.heard_at = self.wrote_at = self.since

    @property
    def spoken_at(self) -> float:
        return self.wrote_at

    @property
    def finished(self) -> asyncio.Future[None]:
        """Done when the member has ended."""
        if self._finished is None:
            self._finished = self.node.loop.create_future()
            if self.over:
                self._finished.set_result(None)
        return self._finished

    async def next(self, room: int) -> list[bytes]:
        """Wait for something to write.

        Args:
            room: Bytes to take at most, unless one alone is longer.

        Returns:
            What to write, in the member's form, in order; empty when it has ended.

        Cancel: safe; nothing is taken then.
        """
        while not (self._controls or self.waiting is not None):
            if self.over:
                return []
            self._news = news = self.node.loop.create_future()
            try:
                await news
            finally:
                self._news = None
        self.wrote_at = self.node.now()
        found, self._controls = self._controls, []
        found.extend(self.taken(room))
        return found

    @property
    def ready(self) -> bool:
        """Whether ``next`` would not wait."""
        return bool(self._controls) or self.waiting is not None or self.over

    # What the node does with it

    def deliver(self, publications: Sequence[Publication]) -> None:
        if not self.over:
            self.hold(publications)
            self.wake()

    def control(self, data: bytes) -> None:
        if self.over:
            return
        self._controls.append(data)
        if len(self._controls) > _CONTROLS:
            self.node.stats.closed(4008)
            self.end(4008, "too slow")
        self.wake()

    def end(self, code: int, detail: str) -> None:
        if self.ending is None:
            self.ending = (code, detail)
        if not self.over:
            self.node.gone(self)
        self.wake()

    def enter(self, topic: Topic) -> None:
        topic.pulled[self] = None

    def forsake(self, topic: Topic) -> None:
        topic.pulled.pop(self, None)

    def dropped(self) -> None:
        super().dropped()
        self.wake()
        if self._finished is not None and not self._finished.done():
            self._finished.set_result(None)

    def wake(self) -> None:
        """Let ``next`` look."""
        if self._news is not None and not self._news.done():
            self._news.set_result(None)
