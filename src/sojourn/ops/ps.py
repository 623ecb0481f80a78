"""``sojourn ps``: what is connected, and what would end it next."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import click

from sojourn.ops.asking import as_json, asks, tell, unanswered
from sojourn.ops.client import Admin
from sojourn.ops.table import Column, screen, table
from sojourn.ops.words import duration, number, plain, size

__all__ = ["COLUMNS", "SORTS", "detail", "listed", "name", "ps"]

#: How rows can be ordered: what is compared, and whether the largest comes first.
SORTS: Final[Mapping[str, tuple[Callable[[Mapping[str, Any]], Any], bool]]] = {
    "age": (lambda c: c["age"], True),
    "idle": (lambda c: c["idle"], True),
    "in": (lambda c: c["bytes_in"], True),
    "out": (lambda c: c["bytes_out"], True),
    "buffered": (lambda c: c["buffered"], True),
    "requests": (lambda c: c["requests"], True),
    "deadline": (lambda c: float("inf") if c["deadline_in"] is None else c["deadline_in"], False),
    "rtt": (lambda c: c["rtt"] or 0.0, True),
    "route": (lambda c: (c["route"] or c["path"], -c["age"]), False),
    "peer": (lambda c: c["peer"], False),
}


def name(row: Mapping[str, Any]) -> str:
    """What a connection is called: ``1-17`` is number 17 of worker 1."""
    return f"{row['worker']}-{row['id']}"


def _deadline(row: Mapping[str, Any]) -> str:
    return f"{row['deadline']} in {duration(row['deadline_in'])}" if row["deadline"] else "none"


def _what(row: Mapping[str, Any]) -> str:
    return f"{row['method']} {row['path']}" if row["method"] else row["path"]


def _state(row: Mapping[str, Any]) -> str:
    waits = [word for word, is_so in (("write", row["blocked"]), ("read", row["reading_paused"])) if is_so]
    return f"{row['phase']}, {'+'.join(waits)} waits" if waits else str(row["phase"])


#: What a list of connections shows.
COLUMNS: Final = (
    Column("ID", name),
    Column("PEER", lambda c: c["peer"], cut="start", rank=2),
    Column("KIND", lambda c: c["kind"]),
    Column("STATE", _state, rank=4),
    Column("REQUEST", _what, cut="end"),
    Column("ROUTE", lambda c: c["route"] if c["route"] != c["path"] else "", cut="end", rank=6),
    Column("AGE", lambda c: duration(c["age"]), right=True),
    Column("IDLE", lambda c: duration(c["idle"]), right=True),
    Column("REQS", lambda c: number(c["requests"]), right=True, rank=7),
    Column("IN", lambda c: size(c["bytes_in"]), right=True, rank=5),
    Column("OUT", lambda c: size(c["bytes_out"]), right=True, rank=5),
    Column("BUFFERED", lambda c: size(c["buffered"]) if c["buffered"] else "-", right=True, rank=3),
    Column("RTT", lambda c: duration(c["rtt"]), right=True, rank=6),
    Column("DEADLINE", _deadline),
    Column("NOTE", lambda c: c["suspicious"], cut="end", rank=1),
)


@click.command()
@click.option("--older", type=float, metavar="SECONDS", help="Open for at least so long.")
@click.option("--idle", type=float, metavar="SECONDS", help="Without a byte either way for at least so long.")
@click.option("--slow", is_flag=True, help="Whose client does not take what waits for it.")
@click.option("--suspicious", is_flag=True, help="With something odd about them.")
@click.option("--route", metavar="ROUTE", help="Of this route or path.")
@click.option("--peer", metavar="ADDRESS", help="Of this address, or ADDRESS:PORT.")
@click.option("--worker", type=int, help="Of this worker.")
@click.option("--sort", type=click.Choice(list(SORTS)), default="age", show_default=True, help="What comes first.")
@click.option("--limit", type=click.IntRange(min=1), help="At most so many.")
@asks
@as_json
def ps(admin: Admin, as_json: bool, sort: str, limit: int | None, **filters: Any) -> int:
    """List the open connections, each with the deadline that would end it next."""
    document = admin.get("/connections", **filters)  # all of them: the limit is for the order asked for
    rows = listed(document["connections"], sort)
    shown = rows[:limit]
    if as_json:
        tell({**document, "connections": shown})
        return unanswered(document)
    if shown:
        for line in table(COLUMNS, shown, screen()):
            click.echo(line)
    else:
        click.echo("no such connection" if any(filters.values()) else "no connection", err=True)
    if len(shown) < len(rows):
        click.echo(f"{len(rows) - len(shown)} more", err=True)
    return unanswered(document)


def listed(rows: Iterable[Mapping[str, Any]], sort: str) -> list[Mapping[str, Any]]:
    """Connections in an order of ``SORTS``."""
    key, largest_first = SORTS[sort]
    return sorted(rows, key=key, reverse=largest_first)


def detail(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    """All that is known about one connection, as label and text."""
    return [
        (label, plain(text))
        for label, text in (
            ("connection", name(row)),
            ("peer", row["peer"]),
            ("came in at", row["listener"]),
            ("kind", f"{row['kind']} ({row['protocol'] or 'nothing yet'})"),
            ("state", _state(row)),
            ("request", _what(row)),
            ("route", row["route"]),
            ("age", duration(row["age"])),
            ("idle", duration(row["idle"])),
            ("requests", number(row["requests"])),
            ("received", f"{size(row['bytes_in'])} ({row['bytes_in']} bytes)"),
            ("sent", f"{size(row['bytes_out'])} ({row['bytes_out']} bytes)"),
            ("waits for the client", f"{size(row['buffered'])} ({row['buffered']} bytes)"),
            ("round trip", duration(row["rtt"])),
            ("next deadline", _deadline(row)),
            ("note", row["suspicious"]),
        )
        if text
    ]
