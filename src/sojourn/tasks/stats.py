"""What a service of durable tasks counts of itself. Whoever does something adds to a slot."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from typing import Final

from sojourn.clock import Clock, SystemClock
from sojourn.scopes.used import Figures, Key, Times
from sojourn.tasks.record import Outcome

__all__ = ["RUN", "WAITED", "OfKind", "Stats"]

#: Upper bounds of the buckets, in seconds: those of ``sojourn_journal_wait_seconds`` and ``_run_seconds``.
WAITED: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0)
RUN: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0, 43200.0)

_OUTCOMES: Final[tuple[Outcome, ...]] = ("completed", "failed", "cancelled", "retry", "handover", "unbegun")


class OfKind:
    """The numbers of one kind.

    Attributes:
        submitted: Tasks that were started.
        waited: Runs by how long the task was due before, and one number for those above.
        waited_sum: Seconds of all of them.
        run: Runs by how long they lasted, and one number for those above.
        run_sum: Seconds of all of them.
        outcomes: Runs that have ended, by how.
        crashed: Tasks that were taken up because their node was lost.
        handed_over: Runs that were given back because this node ends.
        lost: Runs whose lease went to somebody else, or could not be renewed in time.
        fenced: Ends that did not count, because somebody else had the task.
    """

    __slots__ = (
        "crashed",
        "fenced",
        "handed_over",
        "lost",
        "outcomes",
        "run",
        "run_sum",
        "submitted",
        "waited",
        "waited_sum",
    )

    def __init__(self) -> None:
        self.submitted = self.crashed = self.handed_over = self.lost = self.fenced = 0
        self.waited = [0] * (len(WAITED) + 1)
        self.run = [0] * (len(RUN) + 1)
        self.waited_sum = self.run_sum = 0.0
        self.outcomes: dict[str, int] = dict.fromkeys(_OUTCOMES, 0)


class Stats:
    """The numbers of one service in one process. Some 0.3 us for each thing that is counted.

    Args:
        clock: Measures how long the journal is away; None takes the system's.

    Attributes:
        kinds: By kind. Kinds are named by code, so there are few.
        claims: Times that the journal was asked for work.
        claimed: Tasks that it gave.
        beats: Times that leases were renewed.
        self_fenced: Runs that were cancelled here because their lease could not be renewed in time.
        call_failures: Calls to the journal that failed, by call.
        losses: Times that the journal could not be reached any more.
    """

    __slots__ = (
        "_away",
        "_away_since",
        "_now",
        "beats",
        "call_failures",
        "claimed",
        "claims",
        "kinds",
        "losses",
        "self_fenced",
    )

    def __init__(self, clock: Clock | None = None) -> None:
        self._now = (clock or SystemClock()).monotonic
        self.kinds: dict[str, OfKind] = {}
        self.claims = self.claimed = self.beats = self.self_fenced = self.losses = 0
        self.call_failures: Counter[str] = Counter()
        self._away = 0.0
        self._away_since: float | None = None

    def of(self, kind: str) -> OfKind:
        """The numbers of a kind, for who counts often."""
        found = self.kinds.get(kind)
        if found is None:
            found = self.kinds[kind] = OfKind()
        return found

    def submitted(self, kind: str, n: int = 1) -> None:
        """So many tasks were started."""
        self.of(kind).submitted += n

    def began(self, kind: str, waited: float) -> None:
        """A run has begun, so many seconds after its task was due."""
        counted = self.kinds.get(kind) or self.of(kind)
        counted.waited[bisect_left(WAITED, waited)] += 1
        if waited > 0.0:
            counted.waited_sum += waited

    def ended(self, kind: str, outcome: Outcome, seconds: float) -> None:
        """A run has ended after so many seconds, however it did."""
        counted = self.kinds.get(kind) or self.of(kind)
        counted.outcomes[outcome] += 1
        counted.run[bisect_left(RUN, seconds)] += 1
        if seconds > 0.0:
            counted.run_sum += seconds

    def lost(self, kind: str) -> None:
        """The lease of a run went to somebody else, or could not be renewed in time."""
        self.of(kind).lost += 1

    def fenced(self, kind: str) -> None:
        """The end of a run did not count."""
        self.of(kind).fenced += 1

    def crashed(self, kind: str) -> None:
        """A task was taken up because its node was lost."""
        self.of(kind).crashed += 1

    def handed_over(self, kind: str) -> None:
        """A run was given back because this node ends."""
        self.of(kind).handed_over += 1

    def call_failed(self, call: str) -> None:
        """A call to the journal failed."""
        self.call_failures[call] += 1

    def away(self, is_away: bool) -> None:
        """The journal can't be reached, or answers again; telling it again changes nothing."""
        if is_away and self._away_since is None:
            self._away_since = self._now()
            self.losses += 1
        elif not is_away and self._away_since is not None:
            self._away += self._now() - self._away_since
            self._away_since = None

    @property
    def away_for(self) -> float | None:
        """Seconds since the journal can't be reached; None while it can."""
        return None if self._away_since is None else self._now() - self._away_since

    def total(self, slot: str) -> int:
        """A number of all kinds together, by its name in :class:`OfKind`."""
        return sum(getattr(counted, slot) for counted in self.kinds.values())

    def outcomes(self) -> dict[str, int]:
        """Runs of all kinds that have ended, by how."""
        return {outcome: sum(each.outcomes[outcome] for each in self.kinds.values()) for outcome in _OUTCOMES}

    def figures(self) -> Figures:
        """All of it under the names of the metrics."""
        away = self.away_for or 0.0
        counts: dict[Key, float] = {
            ("journal_claims_total",): float(self.claims),
            ("journal_claimed_total",): float(self.claimed),
            ("journal_beats_total",): float(self.beats),
            ("journal_self_fenced_total",): float(self.self_fenced),
            ("journal_losses_total",): float(self.losses),
            ("journal_away_seconds_total",): self._away + away,
        }
        for call, number in self.call_failures.items():
            counts["journal_call_failures_total", call] = float(number)
        times: dict[Key, Times] = {}
        for kind, each in self.kinds.items():
            counts["journal_submitted_total", kind] = float(each.submitted)
            counts["journal_lost_total", kind] = float(each.lost)
            counts["journal_fenced_total", kind] = float(each.fenced)
            counts["journal_interruptions_total", kind, "crash"] = float(each.crashed)
            counts["journal_interruptions_total", kind, "drain"] = float(each.handed_over)
            for outcome, number in each.outcomes.items():
                counts["journal_runs_total", kind, outcome] = float(number)
            times["journal_wait_seconds", kind] = Times(tuple(each.waited), each.waited_sum)
            times["journal_run_seconds", kind] = Times(tuple(each.run), each.run_sum)
        return Figures(counts, {("journal_away_for_seconds",): away}, times)
