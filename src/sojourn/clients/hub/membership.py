"""One channel that a client is in, or wants to be in: how far it has come, and what is missing. Pure.

Two numbers are kept. ``since`` is where the client resumes: it only grows, in an epoch. ``seen`` is the last one that
was handed over: a publication that is not behind it comes again, and is dropped. They differ after a join: the server
may still send what lies before its own position, such as what was missed, or the latest values.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, Final

from sojourn.clients.hub.events import Event, Gap, Message, Rejoined, Snapshot
from sojourn.clock import NEVER
from sojourn.wire.hub.cursor import Cursor

__all__ = ["Membership", "Phase"]

#: Seconds for the server to follow "not recovered" by a gap or a snapshot, before the gap is told without it.
_PATIENCE: Final = 1.0


class Phase(Enum):
    """Where it stands on the present connection.

    ``out``: not asked for yet. ``asked``: the join is on its way. ``inside``: joined.
    """

    OUT = "out"
    ASKED = "asked"
    INSIDE = "inside"


class Membership:
    """One channel.

    Args:
        channel: Its name.
        info: What is shown to others.
        since: Where to resume; None: from now on.

    Attributes:
        phase: Where it stands on the present connection.
        joined: Whether it has ever been joined.
        tries: Joins in a row that were refused for now.
        due: When something has to be done about it: another join, or a gap has to be told.
    """

    __slots__ = (
        "_epoch",
        "_missing",
        "_restart",
        "_seen",
        "_told",
        "channel",
        "due",
        "info",
        "joined",
        "phase",
        "since",
        "tries",
    )

    def __init__(self, channel: str, info: Any, since: Cursor | None) -> None:
        self.channel = channel
        self.info = info
        self.since = since
        self.phase = Phase.OUT
        self.joined = False
        self.tries = 0
        self.due = NEVER
        self._epoch = "" if since is None else since.epoch
        #: The last publication that was handed over, in the present epoch.
        self._seen = 0 if since is None else since.seq
        #: Where it goes on after something that is missing, and that was not told yet.
        self._missing: Cursor | None = None
        #: Up to where it was told that something is missing.
        self._told: Cursor | None = None
        #: Whether the next join is afresh although something was there before: a gap.
        self._restart = False

    @property
    def missing(self) -> bool:
        """Whether a gap is still to be told."""
        return self._missing is not None

    def cut(self) -> None:
        """The connection is lost. A gap that was not told is found again by the next join."""
        self.phase = Phase.OUT
        self.due = NEVER
        self._missing = None

    def restart(self) -> None:
        """The server can't resume: join afresh, and tell a gap."""
        self._restart = self._restart or self.joined
        self.since = None

    def entered(self, place: Cursor | None, recovered: bool | None, now: float) -> list[Event]:
        """The server has let it in.

        Args:
            place: The server's position.
            recovered: Whether nothing is missing since :attr:`since`; None when it was joined without.
            now: Monotonic seconds.
        """
        again, self.joined, self.phase, self.tries, self.due = self.joined, True, Phase.INSIDE, 0, NEVER
        events: list[Event] = [Rejoined(self.channel, "" if place is None else str(place))] if again else []
        if place is None:
            return events
        if self.since is None:
            self._turn_to(place.epoch)
            self.since = place
            if self._restart:
                self._restart = False
                events.append(self._gap(place))
        elif recovered is not True or place.epoch != self.since.epoch:
            # The server says which publication comes next, or sends a snapshot: in a moment.
            self._missing = place
            self.due = now + _PATIENCE
        return events

    def published(self, seq: int, data: Any, key: str) -> list[Event]:
        """A publication came. Nothing is handed over when it was here before."""
        if seq <= 0:  # published while the server's store was away: it has no place
            return [Message(self.channel, data, "", key)]
        events = self.overdue()
        if seq <= self._seen:
            return events
        self._seen = seq
        place = Cursor(self._epoch, seq)
        if not (self.since is not None and self.since.reaches(place)):
            self.since = place
        events.append(Message(self.channel, data, str(place), key))
        return events

    def gap(self, place: Cursor) -> list[Event]:
        """Publications are missing before the next one."""
        self._missing, self.due = None, NEVER
        if self._told is not None and self._told.reaches(place):
            return []  # it was told without waiting for the server to say so
        self._pass(place)
        return [self._gap(place)]

    def snapshot(self, place: Cursor, data: Any) -> list[Event]:
        """Publications are missing, and this is what they led to."""
        self._missing, self.due = None, NEVER
        self._pass(place)
        self._told = place
        return [Snapshot(self.channel, data, str(place))]

    def overdue(self) -> list[Event]:
        """Tell a gap that the server has announced and not told."""
        missing, self._missing = self._missing, None
        if missing is None:
            return []
        self.due = NEVER
        self._turn_to(missing.epoch)
        return [self._gap(missing)]

    def _gap(self, place: Cursor) -> Gap:
        # Whoever hears of it loads the state anew, and so has everything up to here.
        if self.since is None or not self.since.reaches(place):
            self.since = place
        self._told = place
        return Gap(self.channel, str(place))

    def _pass(self, place: Cursor) -> None:
        self._turn_to(place.epoch)
        self._seen = max(self._seen, place.seq)
        if self.since is None or not self.since.reaches(place):
            self.since = place

    def _turn_to(self, epoch: str) -> None:
        if epoch != self._epoch:
            self._epoch, self._seen = epoch, 0
