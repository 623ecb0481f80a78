"""``sojourn leaks``: what outlived its owner, by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import click

from sojourn.ops.asking import as_json, asks, tell, unanswered
from sojourn.ops.client import Admin
from sojourn.ops.table import Column, Screen, screen, table
from sojourn.ops.words import duration, number, place, plain, size, stack

__all__ = ["COLUMNS", "leaks"]

#: The exit code of ``--fail-on-leak``.
_LEAKS: Final = 9

#: What a list of leaks shows.
COLUMNS: Final = (
    Column("KIND", lambda leak: leak["kind"]),
    Column("ALIVE", lambda leak: number(leak["alive"]), right=True),
    Column("EVER", lambda leak: number(leak["known"]), right=True),
    Column("AGE", lambda leak: duration(leak["age"]), right=True),
    Column("WHAT", lambda leak: leak["what"], cut="end"),
    Column("CREATED", lambda leak: place(leak["created"]), cut="start"),
    Column("WAITS AT", lambda leak: place(leak["waiting"]), cut="start", rank=1),
    Column("OWNER", lambda leak: leak["owner"], cut="end", rank=2),
    Column("HELD BY", lambda leak: leak["holder"], cut="end", rank=3),
    Column("WORKER", lambda leak: str(leak["worker"]), right=True, rank=4),
)


_OVERDUE: Final = (
    Column("POOL", lambda lease: lease["pool"]),
    Column("HELD", lambda lease: duration(lease["seconds"]), right=True),
    Column("TAKEN AT", lambda lease: place(lease["created"]), cut="start"),
    Column("OWNER", lambda lease: lease["owner"], cut="end"),
    Column("STATE", lambda lease: "its request has ended" if lease["leaked"] else "overdue"),
    Column("WORKER", lambda lease: str(lease["worker"]), right=True, rank=1),
)


@click.command()
@click.option("--stacks", is_flag=True, help="With the stack of each, innermost first.")
@click.option("--worker", type=int, help="Of this worker.")
@click.option("--fail-on-leak", is_flag=True, help="Exit with 9 when there is any, for scripts.")
@asks
@as_json
def leaks(admin: Admin, as_json: bool, stacks: bool, worker: int | None, fail_on_leak: bool) -> int:
    """Name what outlived its owner: tasks, coroutines, leases, descriptors, connections; with file and line."""
    document = admin.get("/leaks", worker=worker)
    found, overdue = document["leaks"], document["overdue"]
    if as_json:
        tell(document)
    else:
        if not found:
            click.echo("no leak", err=True)
        for line in _lines(document, stacks, screen()):
            click.echo(line)
    leaked = found or any(lease["leaked"] for lease in overdue)
    return unanswered(document) or (_LEAKS if leaked and fail_on_leak else 0)


def _lines(document: Mapping[str, Any], stacks: bool, target: Screen) -> Iterator[str]:
    if document["leaks"]:
        yield from _listed(COLUMNS, document["leaks"], stacks, target)
    if document["overdue"]:
        yield target.bold("held for longer than they should be:")
        yield from _listed(_OVERDUE, document["overdue"], stacks, target)
    for each in document["counts"]:
        for note in each["growth"]:
            before, now = map(size if note["what"] == "memory" else number, (note["before"], note["now"]))
            growth = f"{plain(note['what'])} from {before} to {now} in two and a half hours"
            yield target.red(f"worker {each['worker']}: {growth}, while the load did not grow")
        open_ = each["descriptors"]
        if open_["noting"]:
            share = f"{number(open_['unexplained'])} of {number(open_['open'])}"
            yield target.red(
                f"worker {each['worker']}: {share} descriptors belong to nothing the server knows, and rise"
            )


def _listed(
    columns: Sequence[Column], rows: Sequence[Mapping[str, Any]], stacks: bool, target: Screen
) -> Iterator[str]:
    lines = table(columns, rows, target)
    yield next(lines)
    for row, line in zip(rows, lines, strict=True):
        yield line
        if stacks:
            yield from (f"    {frame}" for frame in stack(row["stack"]))
