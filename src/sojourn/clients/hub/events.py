"""What a client of a hub hands to its application."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Any, NamedTuple

__all__ = [
    "Count",
    "Ended",
    "Event",
    "Gap",
    "HubState",
    "Joined",
    "Left",
    "Member",
    "Message",
    "Page",
    "Published",
    "Rejoined",
    "Roster",
    "Snapshot",
]


class HubState(Enum):
    """How a client stands.

    ``connecting`` and ``waiting`` lead to each other until one connection is ``open``; ``stopped`` and ``given_up`` are
    final.
    """

    CONNECTING = "connecting"
    OPEN = "open"
    WAITING = "waiting"
    STOPPED = "stopped"
    GIVEN_UP = "given_up"


class Message(NamedTuple):
    """Something that was published, or sent to this client alone.

    Attributes:
        channel: Where; "" when it was sent to this user or connection.
        data: The payload: text, bytes, or what its JSON says.
        position: Its cursor, for ``join(since=...)`` after a restart; "" when it has no number.
        key: What it is the latest value of; "" for nothing in particular.
    """

    channel: str
    data: Any
    position: str = ""
    key: str = ""


class Gap(NamedTuple):
    """Publications are missing before the next one: load the state anew.

    Attributes:
        channel: Where.
        position: What comes next is behind this cursor.
    """

    channel: str
    position: str


class Snapshot(NamedTuple):
    """Publications are missing, and this is what they led to, from the server's application.

    Attributes:
        channel: Where.
        data: The state.
        position: What comes next is behind this cursor.
    """

    channel: str
    data: Any
    position: str


class Member(NamedTuple):
    """Who is in a channel.

    Attributes:
        id: Unique for each connection.
        user: Who it is; "" when nobody has proved anything.
        state: ``normal``, or ``suspect`` while it does not answer.
        info: What it has told about itself when it joined.
    """

    id: str
    user: str = ""
    state: str = "normal"
    info: Any = None


class Joined(NamedTuple):
    """Somebody came, or has changed.

    Attributes:
        channel: Where.
        member: Who.
    """

    channel: str
    member: Member


class Left(NamedTuple):
    """Somebody left.

    Attributes:
        channel: Where.
        member: Id of the member.
    """

    channel: str
    member: str


class Rejoined(NamedTuple):
    """The connection was lost and is back. What was published meanwhile follows; who came and left is not told.

    Attributes:
        channel: Where.
        position: The server's position when it was joined again.
    """

    channel: str
    position: str


#: What comes from a channel.
Event = Message | Gap | Snapshot | Joined | Left | Rejoined


class Roster(NamedTuple):
    """Who is in a channel.

    Attributes:
        members: Who.
        more: Whether there are others.
    """

    members: Sequence[Member]
    more: bool = False


class Count(NamedTuple):
    """How many are in a channel.

    Attributes:
        members: Connections.
        users: Different users.
    """

    members: int
    users: int


class Page(NamedTuple):
    """A part of a channel's history.

    Attributes:
        messages: In order.
        position: Who has all of these and resumes from here misses nothing.
        gap: Whether something before the first of these is missing.
        more: Whether there are more behind these.
    """

    messages: Sequence[Message]
    position: str
    gap: bool = False
    more: bool = False


class Published(NamedTuple):
    """What became of a publication.

    Attributes:
        position: Its cursor.
        repeated: Whether the server had it already, from a try whose answer was lost.
    """

    position: str
    repeated: bool = False


class Ended(NamedTuple):
    """Why a client does not come back.

    Attributes:
        reason: In words, for logs.
        code: WebSocket close code, or HTTP status of a refused handshake; 0 for neither.
    """

    reason: str
    code: int = 0
