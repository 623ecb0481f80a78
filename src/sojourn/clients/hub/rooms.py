"""The channels of a client: which are to be asked for, which have a moment of their own, which it is in. Pure."""

from __future__ import annotations

from typing import Any

from sojourn.clients.hub.membership import Membership, Phase
from sojourn.clock import NEVER
from sojourn.wire.hub.cursor import Cursor

__all__ = ["Rooms"]


class Rooms:
    """All channels of a client, through all of its connections."""

    __slots__ = ("_all", "_asked", "_nagging", "_outside")

    def __init__(self) -> None:
        self._all: dict[str, Membership] = {}
        #: To be asked for, in order.
        self._outside: dict[str, Membership] = {}
        #: With a moment of their own.
        self._nagging: dict[str, Membership] = {}
        #: On their way, by the id of the join.
        self._asked: dict[int, Membership] = {}

    def __contains__(self, channel: str) -> bool:
        return channel in self._all

    @property
    def asking(self) -> bool:
        """Whether a join is on its way."""
        return bool(self._asked)

    @property
    def due(self) -> float:
        """The earliest of their moments."""
        return min((membership.due for membership in self._nagging.values()), default=NEVER)

    def add(self, channel: str, info: Any, since: Cursor | None) -> None:
        """Another channel."""
        self._all[channel] = self._outside[channel] = Membership(channel, info, since)

    def remove(self, channel: str) -> Membership | None:
        """A channel less; None when it is not there."""
        self._outside.pop(channel, None)
        self._nagging.pop(channel, None)
        return self._all.pop(channel, None)

    def clear(self) -> None:
        """None any more."""
        for kept in (self._all, self._outside, self._nagging, self._asked):
            kept.clear()

    def cut(self, *, afresh: bool) -> None:
        """The connection is lost: all are to be asked for again.

        Args:
            afresh: The server can't resume.
        """
        self._asked.clear()
        self._nagging.clear()
        self._outside = dict(self._all)
        for membership in self._all.values():
            membership.cut()
            if afresh:
                membership.restart()

    def first(self) -> Membership | None:
        """The next one to be asked for."""
        return next(iter(self._outside.values()), None)

    def ask(self, membership: Membership, number: int) -> None:
        """It is asked for."""
        del self._outside[membership.channel]
        membership.phase = Phase.ASKED
        self._asked[number] = membership

    def answered(self, number: int) -> Membership | None:
        """Who was asked for by this id, if it was a join."""
        return self._asked.pop(number, None)

    def current(self, membership: Membership) -> bool:
        """Whether it was not left meanwhile."""
        return self._all.get(membership.channel) is membership

    def inside(self, channel: str) -> Membership | None:
        """A channel of which something came; None when that belongs to a time before it was joined."""
        membership = self._all.get(channel)
        return membership if membership is not None and membership.phase is Phase.INSIDE else None

    def may(self, channel: str) -> bool:
        """Whether commands of a channel can be sent: it is joined, or is not to be joined."""
        membership = self._all.get(channel)
        return membership is None or membership.phase is Phase.INSIDE

    def watch(self, membership: Membership) -> None:
        """Its moment may be another one."""
        if membership.due < NEVER:
            self._nagging[membership.channel] = membership
        else:
            self._nagging.pop(membership.channel, None)

    def ripe(self, now: float) -> list[Membership]:
        """Those whose moment has come. Who is outside is to be asked for again."""
        found = [membership for membership in self._nagging.values() if membership.due <= now]
        for membership in found:
            del self._nagging[membership.channel]
            membership.due = NEVER
            if membership.phase is Phase.OUT:
                self._outside[membership.channel] = membership
        return found
