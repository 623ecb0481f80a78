"""What the machine of a client wants to be done."""

from __future__ import annotations

from typing import NamedTuple

from msgspec import Raw

from sojourn.clients.hub.events import Ended, Event, HubState, Message
from sojourn.errors import HubGone, HubRefused

__all__ = [
    "Action",
    "Answer",
    "Became",
    "Connect",
    "Deliver",
    "Direct",
    "Drop",
    "Entered",
    "Fail",
    "Refuse",
    "Renew",
    "Send",
]


class Connect(NamedTuple):
    """Open a connection. Whatever comes of it is told with its number."""

    number: int


class Send(NamedTuple):
    """Write a line to the connection."""

    line: bytes


class Drop(NamedTuple):
    """End the connection, or the try to make one. ``code``: with a closing handshake; 0: at once."""

    number: int
    code: int = 0


class Deliver(NamedTuple):
    """Something for a channel; ``size``: bytes that it took on the wire."""

    channel: str
    event: Event
    size: int


class Direct(NamedTuple):
    """A message to this user or connection."""

    message: Message
    size: int


class Entered(NamedTuple):
    """A channel was joined."""

    channel: str


class Refuse(NamedTuple):
    """A channel can't be joined, and the client is not in it any more."""

    channel: str
    error: HubRefused


class Answer(NamedTuple):
    """A command was carried out. ``result``: its JSON."""

    number: int
    result: Raw


class Fail(NamedTuple):
    """A command was not carried out, or nobody can say."""

    number: int
    error: HubRefused | HubGone


class Renew(NamedTuple):
    """The credential ends soon: get another one."""


class Became(NamedTuple):
    """The state is another one. ``ended``: why it does not come back, or was lost; None while all is well."""

    state: HubState
    ended: Ended | None


Action = Connect | Send | Drop | Deliver | Direct | Entered | Refuse | Answer | Fail | Renew | Became
