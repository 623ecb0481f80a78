"""A line of requests that notices when it stands, by the rule of controlled delay.

A line whose oldest has not waited for long now and then is doing its work: it takes up a burst, and is served oldest
first. One in which somebody always has waited for long is only delay: everybody waits, and nobody is served faster for
it. Then who came last goes first, because its client is still there and still has time, and the others do not wait long
to be told no.

Not whether it is empty counts: many quick requests at once may always leave some in line, each for a moment.

Source: Nichols and Jacobson, "Controlling Queue Delay", ACM Queue 10(5), 2012; Maurer, "Fail at Scale", ACM Queue
13(8), 2015 (controlled delay and adaptive last in, first out for requests).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, NamedTuple, TypeVar

from sojourn.clock import NEVER

__all__ = ["Line", "Waits"]

T = TypeVar("T", bound=Hashable)


class Waits(NamedTuple):
    """How long a line lets wait; all in seconds.

    Attributes:
        longest: While it does not stand.
        patience: While it stands; the shorter of both counts. Half of it is long.
        standing: Somebody always has waited for long, for so long: it stands.
    """

    longest: float
    patience: float
    standing: float


class Line(Generic[T]):
    """Requests of one class that wait.

    Args:
        waits: How long.
    """

    __slots__ = ("_good_at", "_waiting", "waits")

    def __init__(self, waits: Waits) -> None:
        self.waits = waits
        #: Ticket -> when it came; in this order.
        self._waiting: OrderedDict[T, float] = OrderedDict()
        #: When nobody in it had waited for long, as far as was seen.
        self._good_at = 0.0

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, ticket: T) -> bool:
        return ticket in self._waiting

    def stands(self, now: float) -> bool:
        """Whether somebody in it always has waited for long."""
        for since in self._waiting.values():
            if now - since < self.waits.patience / 2:
                self._good_at = now
                return False
            return now - self._good_at >= self.waits.standing
        return False

    @property
    def next_expiry(self) -> float:
        """When the next wait is over if the line does not begin to stand before; NEVER when nobody waits."""
        for since in self._waiting.values():
            return since + self.waits.longest
        return NEVER

    def add(self, now: float, ticket: T) -> None:
        """Somebody waits from now on."""
        if ticket in self._waiting:
            raise ValueError(f"{ticket!r} is waiting already")
        if not self._waiting:
            self._good_at = now
        self._waiting[ticket] = now

    def take(self, now: float) -> tuple[T, float]:
        """Who goes now, and how long it has waited; somebody waits. The newest of a line that stands."""
        ticket, since = self._waiting.popitem(last=self.stands(now))
        return ticket, now - since

    def oldest(self) -> T:
        """Take out who came first; somebody waits."""
        return self._waiting.popitem(last=False)[0]

    def remove(self, ticket: T) -> bool:
        """Take somebody out. False when it does not wait here."""
        return self._waiting.pop(ticket, None) is not None

    def expired(self, now: float) -> list[T]:
        """Take out those who have waited too long, oldest first."""
        tickets: list[T] = []
        waits = self.waits
        longest = min(waits.longest, waits.patience) if self.stands(now) else waits.longest
        while self._waiting and next(iter(self._waiting.values())) + longest <= now:
            tickets.append(self._waiting.popitem(last=False)[0])
        return tickets
