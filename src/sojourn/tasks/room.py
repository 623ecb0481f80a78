"""How much a node has room for: places that run, and what may be claimed before there is a place for it."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from typing import Final

from sojourn.policy.appetite import Appetite
from sojourn.tasks.journal import Want
from sojourn.tasks.kinds import Kind, Kinds
from sojourn.tasks.runner import Run
from sojourn.tasks.settings import Settings

__all__ = ["Room"]

#: Seconds of work that may be claimed ahead, so that short tasks do not wait for the journal one by one; and how many.
_AHEAD: Final = 0.1
_MOST_AHEAD: Final = 200
#: What a run is thought to take at least, and how much the latest counts.
_SHORTEST: Final = 0.0005
_WEIGHT: Final = 0.1


class Room:
    """The places of one node.

    Args:
        kinds: What this process can do.
        settings: How much of it.

    Attributes:
        appetite: How many may run.
        waiting: What was claimed ahead and has not begun.
        active: How many run, or have a place kept for them.
        took: Seconds that a run took lately.
    """

    __slots__ = ("_kinds", "_of_kind", "_settings", "active", "appetite", "took", "waiting")

    def __init__(self, kinds: Kinds, settings: Settings) -> None:
        self.appetite = Appetite(settings.concurrency)
        self.waiting: deque[Run] = deque()
        self.active = 0
        self.took = 1.0
        self._kinds = kinds
        self._settings = settings
        self._of_kind: Counter[str] = Counter()

    @property
    def free(self) -> bool:
        """Whether one more may begin at once."""
        return self.active < self.appetite.limit

    def fits(self, kind: Kind) -> bool:
        """Whether one more of a kind may run here."""
        chosen = self._settings.kinds
        if chosen is not None and kind.name not in chosen:
            return False
        return kind.limit is None or self._of_kind[kind.name] < kind.limit

    def reserve(self, kind: Kind, number: int) -> None:
        """So many places more, or fewer, are taken by a kind."""
        self.active += number
        self._of_kind[kind.name] += number

    def ran(self, seconds: float) -> None:
        """A run took so long."""
        self.took += _WEIGHT * (min(seconds, 1.0) - self.took)

    def stall(self) -> None:
        """What runs is not as short as what has ended: nothing is claimed ahead for now."""
        self.took = max(self.took, _AHEAD)

    @property
    def ahead(self) -> int:
        """How many may be claimed before there is a place for them."""
        if self.took >= _AHEAD:
            return 0
        return min(_MOST_AHEAD, int(self.appetite.limit * _AHEAD / max(self.took, _SHORTEST)))

    @property
    def stocked(self) -> bool:
        """Whether enough was claimed ahead for the time that a claim takes, so that claims are few and large."""
        waiting = len(self.waiting)
        return waiting > self.appetite.limit and waiting > self.ahead // 2

    def wants(self) -> list[Want]:
        """How many of which kinds there is room for; nothing when there is none."""
        room = self.appetite.limit - self.active - len(self.waiting) + self.ahead
        if room <= 0:
            return []
        free, wants = [], []
        for kind in self._kinds:
            if not self.fits(kind):
                continue
            if kind.limit is None:
                free.append(kind.name)
                continue
            ahead = sum(1 for run in self.waiting if run.kind is kind)
            left = min(room, kind.limit - self._of_kind[kind.name] - ahead)
            if left > 0:
                wants.append(Want((kind.name,), left))
        if free:
            wants.append(Want(tuple(free), room))
        return wants

    def left(self, wants: Iterable[Want]) -> list[Kind]:
        """Kinds that run here, and of which nothing is wanted: as many run as may."""
        wanted = {name for want in wants for name in want.kinds}
        chosen = self._settings.kinds
        return [kind for kind in self._kinds if kind.name not in wanted and (chosen is None or kind.name in chosen)]
