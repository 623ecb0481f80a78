"""The report as data: what ended in the last hour, and what that means."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

import msgspec

from sojourn.ending import REASONS
from sojourn.observe.endings.reading import Settings, sentences
from sojourn.observe.endings.tally import Kind

__all__ = ["CLASSES", "EofCount", "EofMinute", "EofReport", "EofRow", "merged", "report"]

#: Classes of idle ages: from so many seconds up to the next.
CLASSES: Final = (0.0, 1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0)


class EofCount(NamedTuple):
    """How many connections ended alike in a minute.

    Attributes:
        protocol: ``http``, ``websocket``, or "" when no request came.
        reason: The reason word.
        phase: Where they were.
        idle: Their class of idle age: from so many seconds.
        ended: How many.
    """

    protocol: str
    reason: str
    phase: str
    idle: float
    ended: int


class EofMinute(NamedTuple):
    """A minute in which something ended.

    Attributes:
        begin: Its begin, in seconds since 1970.
        total: How many connections ended.
        counts: How, the most frequent first.
    """

    begin: int
    total: int
    counts: list[EofCount]


class EofRow(NamedTuple):
    """How many connections ended for one reason, in one phase, over the whole time.

    Attributes:
        protocol: ``http``, ``websocket``, or "" when no request came.
        reason: The reason word.
        phase: Where they were.
        who: Whose act or silence it was.
        fault: Whom an SLO charges.
        ended: How many.
        idle: How many of each of the report's ``classes`` of idle age.
        ages: Idle age in seconds and how many had it, finer than the classes.
    """

    protocol: str
    reason: str
    phase: str
    who: str
    fault: str
    ended: int
    idle: list[int]
    ages: list[tuple[float, int]]


class EofReport(msgspec.Struct, kw_only=True):
    """Who hangs up on us, when, and after how long idle.

    Attributes:
        since: Begin of what is counted, in seconds since 1970; at most an hour ago.
        until: Moment of the report.
        total: Connections that ended.
        classes: Lower ends of the classes of idle age, in seconds.
        rows: The most frequent first.
        minutes: Oldest first; minutes without an end are left out.
        settings: What the sentences compare with.
        sentences: What it means, where the evidence is clear.
    """

    since: float
    until: float
    total: int
    classes: tuple[float, ...]
    rows: list[EofRow]
    minutes: list[EofMinute]
    settings: Settings
    sentences: list[str]


def report(
    minutes: Iterable[tuple[int, Mapping[Kind, int]]], since: float, until: float, settings: Settings
) -> EofReport:
    """The report of what was counted.

    Args:
        minutes: Begin of each minute and its counts, oldest first.
        since: Begin, in seconds since 1970.
        until: Now.
        settings: What the sentences compare with.
    """
    minutes = list(minutes)
    rows = _rows(
        (kind.protocol, kind.reason, kind.phase, kind.age, n) for _, kinds in minutes for kind, n in kinds.items()
    )
    counted = [
        (begin, [(k.protocol, k.reason, k.phase, CLASSES[_class(k.age)], n) for k, n in kinds.items()])
        for begin, kinds in minutes
    ]
    return _assembled(rows, counted, since, until, settings)


def merged(reports: Iterable[EofReport]) -> EofReport:
    """One report of several workers, which have the same settings. At least one."""
    parts = list(reports)
    rows = _rows(
        (row.protocol, row.reason, row.phase, age, n) for part in parts for row in part.rows for age, n in row.ages
    )
    together: dict[int, list[tuple[str, str, str, float, int]]] = {}
    for part in parts:
        for minute in part.minutes:
            together.setdefault(minute.begin, []).extend(map(tuple, minute.counts))  # type: ignore[arg-type]
    since, until = min(part.since for part in parts), max(part.until for part in parts)
    return _assembled(rows, sorted(together.items()), since, until, parts[0].settings)


def _assembled(
    rows: list[EofRow],
    minutes: Iterable[tuple[int, list[tuple[str, str, str, float, int]]]],
    since: float,
    until: float,
    settings: Settings,
) -> EofReport:
    ages = [(row.protocol, row.reason, row.phase, row.ages) for row in rows]
    return EofReport(
        since=since,
        until=until,
        total=sum(row.ended for row in rows),
        classes=CLASSES,
        rows=rows,
        minutes=[_minute(begin, counts) for begin, counts in minutes],
        settings=settings,
        sentences=sentences(ages, settings),
    )


def _rows(counts: Iterable[tuple[str, str, str, float, int]]) -> list[EofRow]:
    """Counts by protocol, reason, phase and age as rows, the most frequent first."""
    found: dict[tuple[str, str, str], Counter[float]] = {}
    for protocol, reason, phase, age, count in counts:
        found.setdefault((protocol, reason, phase), Counter())[age] += count
    rows = []
    for (protocol, reason, phase), ages in found.items():
        idle = [0] * len(CLASSES)
        for age, count in ages.items():
            idle[_class(age)] += count
        row = REASONS[reason]
        who, fault = row.who.name.lower(), row.fault.value
        rows.append(EofRow(protocol, reason, phase, who, fault, ages.total(), idle, sorted(ages.items())))
    return sorted(rows, key=lambda row: (-row.ended, row.reason, row.phase, row.protocol))


def _minute(begin: int, counts: Iterable[tuple[str, str, str, float, int]]) -> EofMinute:
    together: Counter[tuple[str, str, str, float]] = Counter()
    for *kind, count in counts:
        together[tuple(kind)] += count  # type: ignore[index]  # a list of four became a tuple of four
    ordered = sorted(together.items(), key=lambda item: (-item[1], item[0]))
    return EofMinute(begin, together.total(), [EofCount(*kind, count) for kind, count in ordered])


def _class(age: float) -> int:
    return bisect_right(CLASSES, age) - 1
