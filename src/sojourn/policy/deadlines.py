"""Deadlines of one connection: named slots, and the arithmetic of progress.

A slot holds a moment on the worker's clock; :data:`~sojourn.clock.NEVER` when it is not armed. To arm or disarm is an
assignment. Progress deadlines (idle, minimum rate) and hard ceilings are different slots, so that a stream which moves
is never cut by an idle limit and one that drips is cut by its rate.
"""

from __future__ import annotations

from operator import attrgetter
from typing import Final

from sojourn.clock import NEVER

__all__ = ["SLOTS", "Deadlines", "Progress", "rate_deadline"]

#: The slots, in the order in which two that pass at the same moment are reported.
SLOTS: Final = (
    "accept",  # shed at accept: the refusal must have left
    "proxy",
    "tls",
    "header",
    "body",  # progress of the request body, while the application reads
    "body_total",
    "queue",  # waiting for a slot of limits.requests
    "response_start",
    "handler",
    "stream",
    "write",  # progress of a peer that is behind
    "keep_alive",
    "ws_open",
    "ping",
    "ws_idle",
    "ws_close",
    "disconnect",  # the client left; the application has until then
    "close",
    "lifetime",
    "credential",  # what the client proved itself with is over
    "long",  # not an end: the connection is logged as open
)
_moments: Final = attrgetter(*SLOTS)


class Deadlines:
    """The slots of one connection, each a moment in seconds or NEVER. Hot paths assign them directly."""

    __slots__ = SLOTS

    accept: float
    proxy: float
    tls: float
    header: float
    body: float
    body_total: float
    queue: float
    response_start: float
    handler: float
    stream: float
    write: float
    keep_alive: float
    ws_open: float
    ping: float
    ws_idle: float
    ws_close: float
    disconnect: float
    close: float
    lifetime: float
    credential: float
    long: float

    def __init__(self) -> None:
        self.disarm()

    def disarm(self) -> None:
        """No slot is armed."""
        for slot in SLOTS:
            setattr(self, slot, NEVER)

    def soonest(self) -> float:
        """The next deadline; NEVER when none is armed."""
        # The wheel asks this of every connection in every lap. Written out it takes a fifth of the time of min().
        due = self.accept
        if self.proxy < due:
            due = self.proxy
        if self.tls < due:
            due = self.tls
        if self.header < due:
            due = self.header
        if self.body < due:
            due = self.body
        if self.body_total < due:
            due = self.body_total
        if self.queue < due:
            due = self.queue
        if self.response_start < due:
            due = self.response_start
        if self.handler < due:
            due = self.handler
        if self.stream < due:
            due = self.stream
        if self.write < due:
            due = self.write
        if self.keep_alive < due:
            due = self.keep_alive
        if self.ws_open < due:
            due = self.ws_open
        if self.ping < due:
            due = self.ping
        if self.ws_idle < due:
            due = self.ws_idle
        if self.ws_close < due:
            due = self.ws_close
        if self.disconnect < due:
            due = self.disconnect
        if self.close < due:
            due = self.close
        if self.lifetime < due:
            due = self.lifetime
        if self.credential < due:
            due = self.credential
        if self.long < due:
            due = self.long
        return due

    def earliest(self) -> tuple[float, str]:
        """The next deadline and its slot; (NEVER, "") when none is armed."""
        moment = self.soonest()
        return moment, self.slot_at(moment) if moment != NEVER else ""

    def slot_at(self, moment: float) -> str:
        """The slot that holds this moment, the first of several; some slot must."""
        return SLOTS[_moments(self).index(moment)]

    def armed(self) -> dict[str, float]:
        """The armed slots with their moments."""
        return {slot: moment for slot in SLOTS if (moment := getattr(self, slot)) != NEVER}


def rate_deadline(started: float, grace: float, moved: int, rate: int | None) -> float:
    """When a transfer that began at ``started`` and has moved ``moved`` bytes falls below ``rate`` bytes per second.

    Args:
        started: When the peer began to be waited for, in seconds.
        grace: Seconds before the rate is asked for.
        moved: Bytes since then.
        rate: Bytes per second; None asks for none.
    """
    return NEVER if rate is None else started + grace + moved / rate


class Progress:
    """A transfer the other side is behind with: it must move, and on average move fast enough.

    Fed with samples of how many bytes have moved in total; says until when the present state is acceptable.

    Args:
        now: When the wait began, in seconds.
        moved: Bytes moved before it began.
        idle: Longest time without a byte, in seconds; None for no limit.
        rate: Least average in bytes per second; None for none.
        grace: Seconds before the rate is asked for.
    """

    __slots__ = ("_grace", "_idle", "_moved_before", "_rate", "last_moved", "last_progress", "started")

    def __init__(self, now: float, moved: int, idle: float | None, rate: int | None, grace: float) -> None:
        self.started = now
        self.last_progress = now
        self.last_moved = moved
        self._moved_before = moved
        self._idle = idle
        self._rate = rate
        self._grace = grace

    def sample(self, now: float, moved: int) -> None:
        """Note that ``moved`` bytes have moved in total by ``now``."""
        if moved > self.last_moved:
            self.last_moved = moved
            self.last_progress = now

    @property
    def idle_deadline(self) -> float:
        """When it will have stood still for too long."""
        return NEVER if self._idle is None else self.last_progress + self._idle

    @property
    def rate_deadline(self) -> float:
        """When it will have been too slow on average."""
        return rate_deadline(self.started, self._grace, self.last_moved - self._moved_before, self._rate)
