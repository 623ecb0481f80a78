"""Reads a page of metrics, in Prometheus' text format or OpenMetrics, and compares two of them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

__all__ = ["Page", "Series", "parse"]

_LINE: Final = re.compile(
    r"([a-zA-Z_:][a-zA-Z0-9_:]*)"  # name
    r"(?:\{((?:[^\"}]|\"(?:[^\"\\]|\\.)*\")*)\})?"  # labels
    r"[ \t]+(\S+)"  # value
    r"(?:[ \t].*)?"  # time and exemplar: of no use here
)
_LABEL: Final = re.compile(r"([a-zA-Z_][a-zA-Z0-9_]*)\s*=\s*\"((?:[^\"\\]|\\.)*)\"")
_ESCAPE: Final = re.compile(r"\\(.)")


class Series(NamedTuple):
    """One value.

    Attributes:
        labels: Its labels.
        value: What it is now; may be infinite or not a number.
    """

    labels: Mapping[str, str]
    value: float


class Page:
    """The values of a page by name.

    Args:
        series: The values; samples of a histogram have the names they have on the page (``_bucket``, ``_sum``, ...).
    """

    def __init__(self, series: Mapping[str, list[Series]]) -> None:
        self._series = series

    def __iter__(self) -> Iterator[tuple[str, Series]]:
        return ((name, each) for name, many in self._series.items() for each in many)

    def __contains__(self, name: str) -> bool:
        return name in self._series

    def total(self, name: str, **labels: str) -> float | None:
        """The sum of all values of a name that have these labels; None when there is none."""
        found = [each.value for each in self._series.get(name, ()) if labels.items() <= each.labels.items()]
        return math.fsum(found) if found else None

    def highest(self, name: str) -> float | None:
        """The largest value of a name; None when there is none."""
        return max((each.value for each in self._series.get(name, ())), default=None)

    def by(self, name: str, label: str) -> dict[str, float]:
        """Sums of a name's values for each value of a label."""
        sums: dict[str, float] = {}
        for each in self._series.get(name, ()):
            key = each.labels.get(label, "")
            sums[key] = sums.get(key, 0.0) + each.value
        return sums

    def gained(self, before: Page | None, name: str, label: str) -> dict[str, float]:
        """What counters have gained since a page before, for each value of a label.

        A counter that is lower than it was has begun anew, so all of it is new.

        Args:
            before: The earlier page; None counts from zero.
            name: Name of the counter.
            label: Which label.
        """
        earlier = before.by(name, label) if before is not None else {}
        now = self.by(name, label)
        return {key: value - then if value >= (then := earlier.get(key, 0.0)) else value for key, value in now.items()}

    def grown(self, before: Page | None, name: str) -> float | None:
        """What a counter has gained altogether since a page before; None when it is on neither page."""
        if name not in self._series:
            return None
        return math.fsum(self.gained(before, name, "").values())

    def quantile(self, before: Page | None, name: str, share: float) -> float | None:
        """A quantile of what a histogram has gained since a page before, as PromQL's ``histogram_quantile`` has it.

        Args:
            before: The earlier page; None takes all there ever was.
            name: The histogram, without ``_bucket``.
            share: Which quantile: 0.99 for the P99.

        Returns:
            An estimate within the bucket; the largest finite bound for what is above it; None when nothing was gained.
        """
        gained = self.gained(before, f"{name}_bucket", "le")
        buckets = sorted((_number(bound), count) for bound, count in gained.items())
        total = buckets[-1][1] if buckets else 0.0
        if not total > 0:
            return None
        rank, lower, below = share * total, 0.0, 0.0
        for bound, count in buckets:
            if count >= rank:
                if math.isinf(bound):
                    return lower
                return lower + (bound - lower) * (rank - below) / (count - below) if count > below else bound
            lower, below = bound, count
        return lower


def parse(text: str) -> Page:
    """Read a page. Comments and lines that can't be meant are left out.

    Args:
        text: The page.
    """
    series: dict[str, list[Series]] = {}
    for line in text.split("\n"):
        if not line or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line.strip())
        value = _number(match[3]) if match else math.nan
        if match is None or (math.isnan(value) and match[3] != "NaN"):
            continue
        labels = {name: _ESCAPE.sub(_unescaped, said) for name, said in _LABEL.findall(match[2] or "")}
        series.setdefault(match[1], []).append(Series(labels, value))
    return Page(series)


def _number(text: str) -> float:
    """A value; NaN when it is none. Python reads all that the formats write: ``+Inf``, ``NaN``, ``1e+06``."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def _unescaped(match: re.Match[str]) -> str:
    return "\n" if match[1] == "n" else match[1]
