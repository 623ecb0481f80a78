"""What holds the order of publications, their history and who is present: in this process, on this host, or in Redis.

The contract. ``sojourn.testing.hub_engine`` tests any engine for it:

1. Publications have numbers that only grow, over all channels, within an epoch. Each names the one before it in its
   channel, so that a hole is seen.
2. What is published to a channel after ``subscribe`` has returned is delivered, or ``lost`` says that something may be
   missing. Never neither. A node gets publications in the order of their numbers, over all its channels.
3. A page of history is read from all its channels in one step. It says that something of a channel was lost exactly
   when something after ``since`` is missing, as long as the engine remembers the channel, and when the epoch is another
   one; and up to which number.
4. What was published with an ``id`` is not published again within ``REMEMBERED`` seconds: the first one's number is
   given.
5. Everything is delivered in the hub's loop, and nothing of the receiver's raises.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

from sojourn.hub.publication import Kind, Publication
from sojourn.hub.rules import History
from sojourn.wire.hub.cursor import Cursor

__all__ = ["REMEMBERED", "Engine", "Page", "Present", "Publish", "Published", "Receiver", "Wanted"]

#: Seconds for which the id of a publication is remembered at least.
REMEMBERED: Final = 120.0


class Publish(NamedTuple):
    """What to publish.

    Attributes:
        channel: Where.
        kind: What the payload is.
        data: The payload.
        history: What is kept of the channel.
        key: What it is the latest value of; "" for the channel as a whole.
        id: Tells a repetition from another publication; "" when it is never repeated.
    """

    channel: str
    kind: Kind
    data: bytes
    history: History
    key: str = ""
    id: str = ""


class Published(NamedTuple):
    """What became of it.

    Attributes:
        cursor: Its place.
        repeated: Whether it had been published before, and was not published again.
    """

    cursor: Cursor
    repeated: bool = False


class Wanted(NamedTuple):
    """What is to be read of a channel.

    Attributes:
        channel: Which.
        since: What came after this place; None: all that is kept, and nothing of it counts as lost.
        history: The rule of the channel.
    """

    channel: str
    since: Cursor | None
    history: History


class Page(NamedTuple):
    """A part of the history of one or several channels, as it was at one moment.

    Attributes:
        publications: In the order of their numbers, over all the channels.
        position: The engine's place when this was read: all of the channels up to it is here, or lost. With ``more``,
            the place of the last of these.
        lost: The channels of which something after ``since`` is missing, and can't be had any more; each with the
            number of the last that is, which may be beyond the position when there is more.
        more: Whether there are more behind these.
    """

    publications: Sequence[Publication]
    position: Cursor
    lost: Mapping[str, int]
    more: bool = False

    @property
    def gap(self) -> bool:
        """Whether something is missing."""
        return bool(self.lost)


class Present(NamedTuple):
    """One member in a channel.

    Attributes:
        member: Its id, unique over all nodes.
        user: Who it is; "" when nobody has proved anything.
        state: ``normal`` or ``suspect``.
        info: What it has told about itself, anything that JSON can express.
    """

    member: str
    user: str
    state: str = "normal"
    info: Any = None


class Receiver(Protocol):
    """The hub, as its engine sees it. Called in the hub's loop; raises nothing."""

    def deliver(self, publication: Publication) -> None:
        """Something was published to a channel that is subscribed."""

    def lost(self, channels: Sequence[str] | None) -> None:
        """Publications may be missing; the hub reads history from its positions. None: in all channels."""

    def told(self, data: bytes) -> None:
        """Another node said something to all."""

    def changed(self, channel: str, came: Sequence[Present], left: Sequence[str]) -> None:
        """Members of other nodes came (or changed), and left (their ids), in a channel that is subscribed."""

    def away(self, error: Exception | None) -> None:
        """The engine can't be reached since now; None: it can again."""


class Engine(Protocol):
    """Orders and keeps publications. Methods raise ``EngineUnavailable`` while it can't be reached.

    Cancel: safe everywhere; what was asked may have been done.
    """

    @property
    def available(self) -> bool:
        """Whether it can be reached, as far as is known."""

    async def start(self, receiver: Receiver) -> None:
        """Begin. Raises EngineUnavailable only when it can never work; else it goes on trying by itself."""

    async def aclose(self) -> None:
        """End; its own tasks and connections with it."""

    async def publish(self, publish: Publish) -> Published:
        """Publish, and deliver to all nodes that are subscribed, this one too."""

    async def subscribe(self, channel: str) -> Cursor:
        """Have a channel delivered from now on. Returns the engine's place: what comes after it is delivered."""

    async def unsubscribe(self, channel: str) -> None:
        """Have it delivered no more."""

    async def position(self) -> Cursor:
        """The present place of the whole."""

    async def history(self, wanted: Sequence[Wanted], limit: int) -> Page:
        """What is kept of some channels, each after its place, read in one step: the oldest of all, up to the limit.

        At least one is given when there is one. Who wants more asks again, from the position.
        """

    async def tell(self, data: bytes) -> None:
        """Say something to all other nodes, best effort."""

    async def enter(self, channel: str, members: Sequence[Present], ttl: float) -> None:
        """These members of this node are present, or have changed; told to the other nodes that are subscribed."""

    async def leave(self, channel: str, members: Sequence[str]) -> None:
        """These members of this node (by id) are present no more."""

    async def refresh(self, present: Mapping[str, Sequence[str]], ttl: float) -> None:
        """Members of this node (ids by channel) that are still there; who is not refreshed is gone after the ttl."""

    async def present(self, channel: str, limit: int) -> Sequence[Present]:
        """Who is in a channel, over all nodes."""

    async def count(self, channel: str) -> tuple[int, int]:
        """How many members and how many users are in a channel."""
