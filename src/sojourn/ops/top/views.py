"""The views of `top`: what each asks for, how often, its columns, and its rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from sojourn.ops import leaks, ps, tasks
from sojourn.ops.status import WORKERS
from sojourn.ops.table import Column
from sojourn.ops.top.watch import Asked, Watch
from sojourn.ops.words import number

__all__ = ["FILTERS", "VIEWS", "Choice", "View"]

Row = Mapping[str, Any]

#: Filters of the connections by the key that switches them.
FILTERS: Final[Mapping[str, Mapping[str, object]]] = {
    "older": {"older": 60},
    "slow": {"slow": True},
    "suspicious": {"suspicious": True},
}


class Choice(NamedTuple):
    """What the person at the terminal has chosen.

    Attributes:
        sort: Order of the connections: a key of ``ps.SORTS``.
        limit: Rows shown at most.
        filters: Names of ``FILTERS`` that are on.
    """

    sort: str = "age"
    limit: int = 50
    filters: frozenset[str] = frozenset()


class View(NamedTuple):
    """A table.

    Attributes:
        name: In the list of views.
        seconds: Between two refreshes while it is shown.
        columns: Its columns.
        fetch: Asks for what it shows; blocks. None for a view that lives on the head's answers.
        rows: The rows, in their order.
        key: Names a row, so that the cursor stays on it.
        note: What the rows are about; {seconds} is over how long rates are counted.
    """

    name: str
    seconds: float
    columns: Sequence[Column]
    fetch: Callable[[Asked, Choice], Any] | None
    rows: Callable[[Watch, Any, Choice], Sequence[Row]]
    key: Callable[[Row], str]
    note: str = ""


def _connections(admin: Asked, choice: Choice) -> Any:
    query: dict[str, Any] = {name: value for chosen in choice.filters for name, value in FILTERS[chosen].items()}
    return admin.get("/connections", **query)["connections"]


def _endings(watch: Watch, _: Any, __: Choice) -> list[Row]:
    found = []
    for what, counter in (
        ("request", "sojourn_requests_ended_total"),
        ("connection", "sojourn_connections_ended_total"),
        ("refused", "sojourn_connections_refused_total"),
    ):
        found += _counted(watch, counter, "reason", what)
    return found


def _deadlines(watch: Watch, _: Any, __: Choice) -> list[Row]:
    return _counted(watch, "sojourn_deadlines_missed_total", "deadline", "")


def _counted(watch: Watch, counter: str, label: str, what: str) -> list[Row]:
    recent, total = watch.minute(counter, label), watch.page.by(counter, label)
    each_minute = 60.0 / watch.seconds if watch.seconds else 0.0
    rows = [
        {"what": what, "word": word, "recent": recent.get(word, 0.0) * each_minute, "total": count}
        for word, count in total.items()
        if count
    ]
    return sorted(rows, key=lambda row: (-row["recent"], -row["total"]))


_RECENT: Final = Column("A MINUTE", lambda row: number(round(row["recent"])), right=True)
_TOTAL: Final = Column("EVER", lambda row: number(row["total"]), right=True)

#: All views, in their order.
VIEWS: Final = (
    View(
        "connections",
        2.0,
        ps.COLUMNS,
        _connections,
        lambda _, rows, choice: ps.listed(rows, choice.sort),
        ps.name,
    ),
    View(
        "tasks",
        5.0,
        tasks.GROUPED,
        lambda admin, _: admin.get("/tasks")["tasks"],
        lambda _, rows, __: tasks.grouped(rows),
        lambda row: f"{row['coroutine']} {row['created']} {row['waiting']}",
        "tasks that were made and wait at the same places",
    ),
    View(
        "endings",
        2.0,
        (
            Column("WHAT", lambda row: row["what"]),
            Column("REASON", lambda row: row["word"]),
            _RECENT,
            _TOTAL,
        ),
        None,
        _endings,
        lambda row: f"{row['what']} {row['word']}",
        "over the last {seconds}",
    ),
    View(
        "deadlines",
        2.0,
        (Column("DEADLINE", lambda row: row["word"]), _RECENT, _TOTAL),
        None,
        _deadlines,
        lambda row: str(row["word"]),
        "deadlines missed over the last {seconds}",
    ),
    View(
        "leaks",
        5.0,
        leaks.COLUMNS,
        lambda admin, _: admin.get("/leaks")["leaks"],
        lambda _, rows, __: rows,
        lambda row: f"{row['worker']} {row['kind']} {row['what']} {row['created']} {row['waiting']}",
    ),
    View(
        "workers",
        2.0,
        WORKERS,
        None,
        lambda watch, _, __: watch.status.get("workers", ()),
        lambda row: str(row["number"]),
    ),
)
