"""Samples of one run, and the arithmetic on them: medians, spans, ratios per round."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Sample:
    """One measured value. Cores are shares of one core; `others` is what else ran on the more disturbed
    of the two."""

    figure: str
    server: str
    round: int
    value: float
    server_core: float | None = None
    client_core: float | None = None
    others: float | None = None
    detail: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Span:
    """Median, smallest and largest of the rounds."""

    median: float
    low: float
    high: float


def span(values: list[float]) -> Span | None:
    """None when nothing was measured."""
    return Span(statistics.median(values), min(values), max(values)) if values else None


@dataclass
class Results:
    """Everything one run found, failures included."""

    samples: list[Sample] = field(default_factory=list)
    errors: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def fail(self, what: str, error: Exception) -> None:
        """Keeps the first error of each kind, and a text only once."""
        text = str(error) or type(error).__name__
        if text not in self.errors.values():
            self.errors.setdefault(what, text)

    def of(self, figure: str, server: str) -> dict[int, Sample]:
        """Samples by round."""
        return {s.round: s for s in self.samples if s.figure == figure and s.server == server}

    def span(self, figure: str, server: str) -> Span | None:
        """The rounds of one figure of one server."""
        return span([s.value for s in self.of(figure, server).values()])

    def ratio(self, figure: str, server: str, peer: str) -> Span | None:
        """Server's value over the peer's in the same round."""
        return self._pairs(figure, server, peer, lambda ours, theirs: ours / theirs)

    def cost(self, figure: str, server: str, without: str) -> Span | None:
        """Share of throughput that `server` loses against `without`."""
        return self._pairs(figure, server, without, lambda ours, theirs: 1 - ours / theirs)

    def _pairs(self, figure: str, server: str, peer: str, join: Callable[[float, float], float]) -> Span | None:
        ours, theirs = self.of(figure, server), self.of(figure, peer)
        both = sorted(ours.keys() & theirs.keys())
        return span([join(ours[r].value, theirs[r].value) for r in both if theirs[r].value > 0])

    def worst(self, figure: str, server: str, field_name: str) -> float | None:
        """Largest core share among the rounds."""
        found = [getattr(s, field_name) for s in self.of(figure, server).values()]
        known = [value for value in found if value is not None]
        return max(known) if known else None

    def as_json(self) -> dict[str, Any]:
        """Plain data for results.json."""
        return {"samples": [asdict(s) for s in self.samples], "errors": self.errors, "notes": self.notes}
