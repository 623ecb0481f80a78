"""A lazy timer wheel: all deadlines of a worker in one structure.

Each member stands in one slot of the wheel, at or before its next deadline. Nothing is moved when a deadline becomes
later: the member is found early, and put back. Only a deadline that becomes earlier than the member's place touches the
wheel. So re-arming costs an assignment and a comparison, and a full lap looks at each member once (Varghese and Lauck
1987, scheme 6, with the lazy re-arming of nginx and Thousand Island).
"""

from __future__ import annotations

from typing import Generic, Protocol, TypeVar

from sojourn.clock import NEVER

__all__ = ["Member", "Wheel"]


class Member(Protocol):
    """What the wheel needs of what it holds."""

    #: Where it stands, in seconds; NEVER while it is not in the wheel. Written by the wheel only.
    looked_at: float

    def passed_by(self, now: float) -> float:
        """The moment of its next deadline, NEVER for none.

        Asked whenever the wheel comes by, so at least once a lap. It must leave the wheel alone.
        """


M = TypeVar("M", bound=Member)


class Wheel(Generic[M]):
    """Members ordered roughly by when they have to be looked at.

    Args:
        now: The moment of the first slot, in seconds.
        tick: Length of a slot, in seconds. Deadlines are noticed up to one tick late, never early.
        slots: Number of slots; ``tick * slots`` is the lap, in which every member is looked at.
    """

    __slots__ = ("_buckets", "_position", "_slots", "_start", "tick")

    def __init__(self, now: float, tick: float = 0.1, slots: int = 600) -> None:
        self.tick = tick
        self._start = now
        self._position = 0  # number of the slot that is advanced over next
        self._slots = slots
        self._buckets: list[dict[M, None]] = [{} for _ in range(slots)]

    def add(self, member: M, due: float) -> None:
        """Put a member where it is found at ``due``, or within a lap, wherever it stood before."""
        if member.looked_at != NEVER:
            self.remove(member)
        self._put(member, due)

    def sooner(self, member: M, due: float) -> None:
        """A deadline of a member became earlier than its place: ``due < member.looked_at``."""
        self.add(member, due)

    def _put(self, member: M, due: float) -> None:
        # The slot that begins at or after the deadline, so that it is never found early in its last slot; at most a
        # lap ahead; never in the past.
        slot = last = self._position + self._slots - 1
        if due < self._start + last * self.tick:
            exact = (due - self._start) / self.tick
            slot = int(exact)
            if slot < exact:
                slot += 1
            if slot < self._position:
                slot = self._position
            elif slot > last:  # by the arithmetic of floats
                slot = last
        member.looked_at = self._start + slot * self.tick
        self._buckets[slot % self._slots][member] = None

    def remove(self, member: M) -> None:
        """Forget a member; nothing happens when it is not there."""
        at = member.looked_at
        if at != NEVER:
            member.looked_at = NEVER
            self._buckets[round((at - self._start) / self.tick) % self._slots].pop(member, None)

    def advance(self, now: float) -> list[M]:
        """Move on to ``now``.

        Returns:
            Members whose next deadline has passed. They are out of the wheel: the caller handles them and, if they
            live on, adds them again.
        """
        due: list[M] = []
        target = int((now - self._start) / self.tick)
        while self._position <= target:
            index = self._position % self._slots
            self._position += 1
            bucket = self._buckets[index]
            if not bucket:
                continue
            self._buckets[index] = {}
            for member in bucket:
                member.looked_at = NEVER
                moment = member.passed_by(now)
                if moment <= now:
                    due.append(member)
                else:
                    self._put(member, moment)
        return due

    def next(self, until: float) -> float:
        """The moment at which ``advance`` will find the first member; ``until`` when there is none before.

        Args:
            until: How far to look, in seconds.
        """
        for position in range(self._position, int((until - self._start) / self.tick) + 1):
            if self._buckets[position % self._slots]:
                return min(until, self._start + position * self.tick)
        return until

    def __len__(self) -> int:
        return sum(map(len, self._buckets))
