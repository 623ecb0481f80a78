"""What a dashboard is made of, free of Grafana's JSON; and the queries most panels are made of."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

from sojourn.ops.monitoring.promql import Query

__all__ = ["SERVERS", "Bound", "Dashboard", "Panel", "Row", "each", "mean", "quantiles", "rate"]

#: Matchers of the dashboards' variables.
SERVERS: Final = 'job=~"$job",instance=~"$instance"'

Kind = Literal["timeseries", "stat", "bargauge", "table"]
Colour = Literal["green", "yellow", "orange", "red"]


class Bound(NamedTuple):
    """From this value on a panel has this colour; below the first bound it is green."""

    value: float
    colour: Colour


class Panel(NamedTuple):
    """One picture.

    Attributes:
        title: What it shows.
        description: What it means, and what is to be done when it looks bad.
        queries: What it asks.
        unit: Grafana's word: ``s``, ``bytes``, ``short``, ``percentunit``, ``reqps``, ``ops``, ``Bps``.
        kind: How it is drawn.
        bounds: Where it changes its colour; those of the alerts.
        width: Of 24 columns.
        stacked: Whether the series are parts of a whole.
        top: The largest value of its axis; None follows the data.
    """

    title: str
    description: str
    queries: tuple[Query, ...]
    unit: str = "short"
    kind: Kind = "timeseries"
    bounds: tuple[Bound, ...] = ()
    width: int = 8
    stacked: bool = False
    top: float | None = None


class Row(NamedTuple):
    """Panels below a title."""

    title: str
    panels: tuple[Panel, ...]


class Dashboard(NamedTuple):
    """A page.

    Attributes:
        uid: Its name in addresses and of its file.
        title: Its name in Grafana.
        description: Which question it answers.
        rows: What is on it.
    """

    uid: str
    title: str
    description: str
    rows: tuple[Row, ...]


def _chosen(select: str) -> str:
    return f"{{{SERVERS},{select}}}" if select else f"{{{SERVERS}}}"


def rate(counter: str, *by: str, select: str = "", legend: str = "") -> Query:
    """How often a second, for each value of these labels.

    Args:
        counter: Name of a counter.
        by: Labels that stay; without any everything is one sum.
        select: More matchers, such as ``fault="app"``.
        legend: Name of the series; made of the labels when "".
    """
    inner = f"rate({counter}{_chosen(select)}[$__rate_interval])"
    return Query(f"sum by ({', '.join(by)}) ({inner})", legend or _legend(by))


def each(gauge: str, *by: str, select: str = "", legend: str = "", join: str = "sum") -> Query:
    """A gauge, put together for each value of these labels. Arguments as in :func:`rate`; ``join`` may be ``max``."""
    return Query(f"{join} by ({', '.join(by)}) ({gauge}{_chosen(select)})", legend or _legend(by))


def quantiles(
    histogram: str, *by: str, select: str = "", shares: tuple[float, ...] = (0.5, 0.95, 0.99)
) -> tuple[Query, ...]:
    """Quantiles of a histogram, one query each. Arguments as in :func:`rate`."""
    found = []
    for share in shares:
        inner = f"sum by ({', '.join(('le', *by))}) (rate({histogram}_bucket{_chosen(select)}[$__rate_interval]))"
        legend = " ".join((f"P{share * 100:g}", *(f"{{{{{label}}}}}" for label in by)))
        found.append(Query(f"histogram_quantile({share}, {inner})", legend))
    return tuple(found)


def mean(histogram: str, *by: str, select: str = "") -> Query:
    """The mean of a histogram. Arguments as in :func:`rate`."""
    chosen, labels = _chosen(select), ", ".join(by)
    total, count = (
        f"sum by ({labels}) (rate({histogram}_{end}{chosen}[$__rate_interval]))" for end in ("sum", "count")
    )
    return Query(f"{total} / {count}", _legend(by) or "mean")


def _legend(by: tuple[str, ...]) -> str:
    return " ".join(f"{{{{{label}}}}}" for label in by) or "all"
