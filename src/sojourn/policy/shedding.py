"""Slots for requests whose number adapts, with a line for each class: who runs, who waits, who is sent away.

Like :class:`sojourn.policy.admission.Slots`, for a server that finds its limit by itself.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, Literal, TypeVar

from sojourn.clock import NEVER
from sojourn.policy.codel import Line, Waits
from sojourn.policy.priority import SHARES, Turns

__all__ = ["AdaptiveSlots"]

T = TypeVar("T", bound=Hashable)
Verdict = Literal["run", "queued", "queue_full", "concurrency_limit", "shed"]


class AdaptiveSlots(Generic[T]):
    """So many requests run; some more wait, by class, and all together are bounded.

    Where the limit is below its maximum, as many more may wait: who could have run at once then has to wait for a
    moment, which is no reason to be sent away.

    While nobody waits the caller may take a slot by itself: ``running < room`` and then ``running += 1``; giving back
    is ``running -= 1`` and, when anybody ``waits``, :meth:`next`. Both are attributes because every request does it.

    Args:
        limit: Requests that run at once.
        queue: Requests that may wait beside ``maximum`` running ones, in all lines together.
        waits: How long they may.
        maximum: The highest limit there will be; None for the present one.
        running: Requests that run already.

    Attributes:
        running: Requests that run.
        waits: Requests that wait.
        room: Below so many running ones a request may start without being asked anything; 0 while some wait.
        dropped: Tickets that will not run, because others are worth more or they have waited too long, each with the
            word why; whoever calls a method takes them out.
        last_wait: Seconds that the request started last from a line had waited.
    """

    __slots__ = (
        "_closed",
        "_limit",
        "_lines",
        "_turns",
        "dropped",
        "last_wait",
        "maximum",
        "queue",
        "room",
        "running",
        "waits",
    )

    def __init__(self, limit: int, queue: int, waits: Waits, *, maximum: int | None = None, running: int = 0) -> None:
        self._limit = limit
        self._lines: tuple[Line[T], ...] = tuple(Line(waits) for _ in SHARES)
        self._turns = Turns()
        self._closed = False
        self.queue = queue
        self.maximum = limit if maximum is None else maximum
        self.running = running
        self.waits = 0
        self.room = limit
        self.dropped: list[tuple[T, str]] = []
        self.last_wait = 0.0

    @property
    def limit(self) -> int:
        """Requests that run at once."""
        return self._limit

    @limit.setter
    def limit(self, limit: int) -> None:
        self._limit = limit
        self._note()

    @property
    def closed(self) -> bool:
        """Whether every request is asked, also while nobody waits: some classes are not let in."""
        return self._closed

    @closed.setter
    def closed(self, closed: bool) -> None:
        self._closed = closed
        self._note()

    @property
    def waiting(self) -> int:
        """Requests that wait."""
        return self.waits

    @property
    def next_expiry(self) -> float:
        """When the next wait is over at the latest; NEVER when nobody waits."""
        return min((line.next_expiry for line in self._lines), default=NEVER)

    def stands(self, now: float) -> bool:
        """Whether a line stands: more comes than is served."""
        return any(line.stands(now) for line in self._lines)

    def enter(self, now: float, ticket: T, rank: int) -> Verdict:
        """Ask for a slot.

        Args:
            now: Monotonic seconds.
            ticket: Whatever the caller finds its request by; not one that is waiting.
            rank: Its class, 0 being the highest.

        Returns:
            ``run``: it has one, and gives it back. ``queued``: it comes out of :meth:`next` or into ``dropped``, unless
            :meth:`forget` takes it away. Else the reason's word.
        """
        self._expire(now)
        if self.running < self._limit and not self.waits:
            self.running += 1
            return "run"
        if self.waits >= self.maximum - self._limit + self.queue and not self._make_way(now, rank):
            return "queue_full" if self.queue else "concurrency_limit"
        line = self._lines[rank]
        if not line:
            self._turns.came(rank)
        line.add(now, ticket)
        self.waits += 1
        self._note()
        return "queued"

    def next(self, now: float) -> T | None:
        """Who runs now: it has a slot, and gives it back. None when nobody waits or no slot is free; ask until then."""
        if self.waits:
            self._expire(now)
        if not self.waits or self.running >= self._limit:
            return None
        rank = self._turns.next([rank for rank, line in enumerate(self._lines) if line])
        ticket, self.last_wait = self._lines[rank].take(now)
        self.waits -= 1
        self.running += 1
        self._note()
        return ticket

    def forget(self, ticket: T) -> bool:
        """Its client left: take it out of its line. False when it does not wait (any more)."""
        if not self.waits or not any(line.remove(ticket) for line in self._lines):
            return False
        self.waits -= 1
        self._note()
        return True

    def reline(self, maximum: int, queue: int, waits: Waits) -> None:
        """Change how many may wait, and how long; those who wait stay in line."""
        self.maximum, self.queue = maximum, queue
        for line in self._lines:
            line.waits = waits

    def _make_way(self, now: float, rank: int) -> bool:
        """The lines are full: whether somebody goes so that one of this class can wait."""
        for lower in range(len(self._lines) - 1, rank - 1, -1):
            line = self._lines[lower]
            # Of its own class only in a line that stands, where who came last goes first.
            if line and (lower > rank or line.stands(now)):
                self._drop(line.oldest(), "shed")
                return True
        return False

    def _expire(self, now: float) -> None:
        for line in self._lines:
            if line:
                word = "shed" if line.stands(now) else "queue_timeout"
                for ticket in line.expired(now):
                    self._drop(ticket, word)

    def _drop(self, ticket: T, word: str) -> None:
        self.dropped.append((ticket, word))
        self.waits -= 1
        self._note()

    def _note(self) -> None:
        self.room = 0 if self.waits or self._closed else self._limit
