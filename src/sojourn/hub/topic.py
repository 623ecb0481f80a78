"""A channel as this node sees it: who of its members is in it, and how far it has come."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sojourn.hub.publication import Publication
from sojourn.hub.rules import Channel
from sojourn.wire.hub.cursor import Cursor

if TYPE_CHECKING:
    from sojourn.hub.forms import Form
    from sojourn.hub.group import Group
    from sojourn.hub.member import Member
    from sojourn.hub.presence import Roll
    from sojourn.hub.pulled import PulledMember

__all__ = ["Late", "Lost", "Topic"]


class Lost(NamedTuple):
    """Something of a channel was lost for this node, while a member was catching up.

    Attributes:
        channel: Of what.
        cursor: The place to tell.
        last: The place up to which something may be missing.
    """

    channel: str
    cursor: Cursor
    last: Cursor


class Late(NamedTuple):
    """A member has more of a channel than this node: it has read history that is still on its way to the node.

    Attributes:
        place: What it has.
        stale: Epochs before that of the place, in which the topic still is, or was when the member came.
    """

    place: Cursor
    stale: frozenset[str]

    def misses(self, cursor: Cursor) -> bool:
        """Whether something at a place is new to it."""
        if cursor.epoch == self.place.epoch:
            return cursor.seq > self.place.seq
        return cursor.epoch not in self.stale


class Topic:
    """One channel on this node. It is there while it has members, or somebody is about to join, and a little longer.

    Attributes:
        channel: Its name.
        rule: What holds for it.
        params: What its name says, by the parameters of its pattern.
        epoch: The life of the store in which it counts.
        seq: Number of its last publication here, or the engine's place when it was subscribed: nothing of the channel
            up to it is still to come.
        groups: Members that are written to straight, by the form they get.
        pulled: Members that fetch what waits for them.
        late: Members that are in it, and get nothing of it before the first that is new to them.
        catching: Members that read what they have missed, with what came meanwhile: publications, and notices of gaps.
        batch: What came in this turn of the loop and is not written yet.
        users: How many hold it open.
        full: Members for which publishers have to wait.
        roll: Who is present; None when nobody is told.
    """

    __slots__ = (
        "batch",
        "catching",
        "channel",
        "epoch",
        "full",
        "groups",
        "late",
        "params",
        "pulled",
        "roll",
        "rule",
        "seq",
        "users",
    )

    def __init__(self, channel: str, rule: Channel, params: dict[str, str], place: Cursor) -> None:
        self.channel = channel
        self.rule = rule
        self.params = params
        self.epoch, self.seq = place
        self.groups: dict[Form, Group] = {}
        self.pulled: dict[PulledMember, None] = {}
        self.late: dict[Member, Late] = {}
        self.catching: dict[Member, list[Publication | Lost]] = {}
        self.batch: list[Publication] = []
        self.users = 0
        self.full: set[Member] = set()
        self.roll: Roll | None = None

    @property
    def size(self) -> int:
        """How many members are in it."""
        return len(self.late) + len(self.pulled) + sum(map(len, self.groups.values()))

    def members(self) -> list[Member]:
        """All members that are in it."""
        found: list[Member] = [*self.late, *self.pulled]
        for group in self.groups.values():
            found.extend(group)
        return found
