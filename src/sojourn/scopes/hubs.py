"""Which hubs there are, and what each shows: so that their server can count them, and an operator can look.

A hub is often made before there is a server, so it tells who it is when it is used: ``met(hub)``. Without a server of
Sojourn's around it that does nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from typing import Final, NamedTuple, Protocol

from sojourn.scopes.used import Figures, Used

__all__ = ["HUBS", "ChannelInfo", "HubInfo", "Hubs", "MemberInfo", "Shown", "met"]


class ChannelInfo(NamedTuple):
    """A channel that has members in this process.

    Attributes:
        channel: Its name.
        members: Members of this process.
        position: Place of its last publication that this process knows; "" when there was none.
    """

    channel: str
    members: int
    position: str = ""


class MemberInfo(NamedTuple):
    """A member of this process.

    Attributes:
        member: Its id, unique over all nodes.
        user: Who it is; "" when nobody has proved anything.
        peer: ``host:port`` of the client; "" when the server does not say.
        transport: ``direct`` (a WebSocket of Sojourn's server), ``websocket``, ``sse`` or ``poll``.
        state: ``normal`` or ``suspect``.
        channels: How many it is in.
        messages: Messages that wait for it.
        bytes: Bytes of them.
        waits: Seconds that the oldest has waited.
    """

    member: str
    user: str
    peer: str
    transport: str
    state: str
    channels: int
    messages: int
    bytes: int
    waits: float


class HubInfo(NamedTuple):
    """A hub in one process.

    Attributes:
        name: What it is called.
        engine: What kind of engine it has: ``memory``, ``local``, ``redis``, ...
        away: Seconds since its engine can't be reached; None while it can.
        lag: Seconds that its engine took to answer lately.
        members: How many there are, by transport.
        users: How many users they are.
        suspect: Members that have missed a ping.
        slow: Members for whom more waits than the high watermark.
        channels: Channels that have members here.
        present: Members that presence shows, once for each channel.
        buffered: Bytes that wait for all members together.
        largest: The channels with most members.
        waiting: Slow members, those for whom most waits first.
    """

    name: str
    engine: str
    away: float | None
    lag: float
    members: Mapping[str, int]
    users: int
    suspect: int
    slow: int
    channels: int
    present: int
    buffered: int
    largest: Sequence[ChannelInfo] = ()
    waiting: Sequence[MemberInfo] = ()


class Shown(Protocol):
    """A hub, as who looks at it sees it. Called in its loop."""

    @property
    def name(self) -> str:
        """What it is called. Chosen by the code."""

    def figures(self) -> Figures:
        """What it has done and has. Asked each second by one alone: what is the highest begins anew with each call."""

    async def look(self, limit: int) -> HubInfo:
        """How it stands; at most so many channels and slow members.

        Cancel: safe.
        """

    def disconnect_here(self, user: str, member: str, code: int) -> int:
        """End members of this process; they are told by a close code, from 4500 on not to come back.

        Args:
            user: All of this user; "" leaves it to the member.
            member: This one; "" leaves it to the user. Both: this one if it is that user's.
            code: The close code.

        Returns:
            How many there were.
        """


class Hubs(Used[Shown]):
    """The hubs that were used by what a server runs."""

    __slots__ = ()


#: The hubs of the server that runs the present context; None when no server does.
HUBS: Final[ContextVar[Hubs | None]] = ContextVar("sojourn_hubs", default=None)


def met(hub: Shown) -> Hubs | None:
    """A hub that is used tells those of the present context, if there are any. Returns them, to compare next time."""
    hubs = HUBS.get()
    if hubs is not None:
        hubs.join(hub)
    return hubs
