"""``sojourn eof``: who hangs up, when, and after how long idle."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import click

from sojourn.ops.asking import as_json, asks, tell, unanswered
from sojourn.ops.client import Admin
from sojourn.ops.table import Column, Screen, screen, table
from sojourn.ops.words import duration, number

__all__ = ["age_of", "eof"]

_COLUMNS: Final = (
    Column("COUNT", lambda row: number(row["ended"]), right=True),
    Column("SHARE", lambda row: f"{row['share']:.0%}", right=True),
    Column("REASON", lambda row: row["reason"]),
    Column("PHASE", lambda row: row["phase"]),
    Column("PROTOCOL", lambda row: row["protocol"] or "none", rank=2),
    Column("BY", lambda row: row["who"], rank=1),
    Column("FAULT", lambda row: row["fault"], rank=3),
    Column("IDLE", lambda row: duration(row["half"]), right=True),
    Column("9 OF 10 UP TO", lambda row: duration(row["most"]), right=True, rank=1),
)
_MINUTES: Final = (
    Column("MINUTE", lambda minute: f"{datetime.fromtimestamp(minute['begin'], UTC):%H:%M}"),
    Column("ENDED", lambda minute: number(minute["total"]), right=True),
    Column("MOST OF THEM", lambda minute: minute["most"], cut="end"),
)


@click.command()
@click.option("--minutes", is_flag=True, help="Minute by minute (UTC) too.")
@click.option("--worker", type=int, help="Of this worker. [all together]")
@asks
@as_json
def eof(admin: Admin, as_json: bool, minutes: bool, worker: int | None) -> int:
    """Say how connections ended in the last hour: by whom, for which reason, and after how long without a byte.

    Where the evidence is clear, sentences say what it means: a proxy that closes after N seconds, for example.
    """
    document = admin.get("/eof", worker=worker)
    if as_json:
        tell(document)
    else:
        for line in _lines(document, minutes, screen()):
            click.echo(line)
    return unanswered(document)


def age_of(ages: Sequence[tuple[float, int]], share: float) -> float | None:
    """The idle age that this share did not exceed; None when nothing was counted.

    Args:
        ages: Ages in seconds, rising, and how many had each.
        share: Such as 0.5 for the median.
    """
    left = share * sum(count for _, count in ages)
    for age, count in ages:
        left -= count
        if left <= 0:
            return age
    return None


def _lines(report: Mapping[str, Any], minutes: bool, target: Screen) -> Iterator[str]:
    total = report["total"]
    yield target.bold(f"{number(total)} connections ended in the last {duration(report['until'] - report['since'])}")
    if total:
        rows = [
            {**row, "share": row["ended"] / total, "half": age_of(row["ages"], 0.5), "most": age_of(row["ages"], 0.9)}
            for row in report["rows"]
        ]
        yield ""
        yield from table(_COLUMNS, rows, target)
    if minutes and report["minutes"]:
        yield ""
        yield from table(_MINUTES, [_minute(minute) for minute in report["minutes"]], target)
    for sentence in report["sentences"]:
        yield ""
        yield from textwrap.wrap(sentence, target.width) if target.width else [sentence]


def _minute(minute: Mapping[str, Any]) -> dict[str, Any]:
    reasons: dict[str, int] = {}
    for each in minute["counts"]:
        reasons[each["reason"]] = reasons.get(each["reason"], 0) + each["ended"]
    ordered = sorted(reasons.items(), key=lambda item: -item[1])
    most = ", ".join(f"{number(count)} {reason}" for reason, count in ordered[:3])
    return {"begin": minute["begin"], "total": minute["total"], "most": most}
