"""A channel as this node sees it: who of its members is in it, and how far it has come."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sojourn.hub.cursor import Cursor
from sojourn.hub.publication import Publication
from sojourn.hub.rules import Channel
from sojourn.hub.shares import Gap

if TYPE_CHECKING:
    from sojourn.hub.direct import DirectMember
    from sojourn.hub.forms import Form
    from sojourn.hub.member import Member
    from sojourn.hub.presence import Roll
    from sojourn.hub.pulled import PulledMember

__all__ = ["Late", "Topic"]


class Late(NamedTuple):
    """A member has more of a channel than this node: it has read history that is still on its way to the node.

    Attributes:
        place: What it has.
        stale: An epoch before that of the place, in which the topic still is; "" when it is in the same.
    """

    place: Cursor
    stale: str

    def misses(self, cursor: Cursor) -> bool:
        """Whether something at a place is new to it."""
        if cursor.epoch == self.place.epoch:
            return cursor.seq > self.place.seq
        return cursor.epoch != self.stale


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
        held: What came while the topic repairs itself; None while it does not.
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
        "held",
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
        self.groups: dict[Form, dict[DirectMember, None]] = {}
        self.pulled: dict[PulledMember, None] = {}
        self.late: dict[Member, Late] = {}
        self.catching: dict[Member, list[Publication | Gap]] = {}
        self.batch: list[Publication] = []
        self.held: list[Publication] | None = None
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
