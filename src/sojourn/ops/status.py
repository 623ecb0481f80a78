"""``sojourn status``: the instance, its workers, and the countdown of a drain."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import click

from sojourn.ops.asking import as_json, asks, tell
from sojourn.ops.client import Admin
from sojourn.ops.table import Column, Screen, screen, table
from sojourn.ops.words import duration, number, plain

__all__ = ["WORKERS", "countdown", "status"]

#: What a list of workers shows.
WORKERS: Final = (
    Column("WORKER", lambda w: str(w["number"]), right=True),
    Column("PID", lambda w: str(w["pid"]), right=True),
    Column("STATE", lambda w: w["state"]),
    Column("AGE", lambda w: duration(w["age"]), right=True),
    Column("SIGN OF LIFE", lambda w: "-" if w["beat_age"] is None else f"{duration(w['beat_age'])} ago", right=True),
    Column("CONNECTIONS", lambda w: number(w["connections"]), right=True),
    Column("SERVED", lambda w: number(w["served"]), right=True),
    Column("GENERATION", lambda w: str(w["generation"]), right=True, rank=1),
)


@click.command()
@asks
@as_json
def status(admin: Admin, as_json: bool) -> int:
    """Show the instance, its workers, and the countdown of a drain.

    The exit code is 0 when it is ready for new requests, and 1 when it is not.
    """
    document = admin.get("/status")
    if as_json:
        tell(document)
    else:
        for line in _lines(document, screen()):
            click.echo(line)
    return 0 if document["ready"] else 1


def _lines(document: Mapping[str, Any], target: Screen) -> Iterator[str]:
    state = document["state"] if document["ready"] else f"{document['state']}, not ready"
    yield f"{target.bold(plain(document['instance']))}  {state}  (sojourn {document['version']}, pid {document['pid']})"
    if document["changing"]:
        yield "a rolling restart or an upgrade is under way"
    if document["problem"]:
        yield target.red(f"problem: {plain(document['problem'])}")
    if document["countdown"]:
        yield countdown(document["countdown"])
    if document["workers"]:
        yield ""
        yield from table(WORKERS, document["workers"], target)


def countdown(drain: Mapping[str, Any]) -> str:
    """A drain in one line."""
    kinds = {"requests": "request", "streams": "stream", "sockets": "WebSocket", "idle": "idle connection"}
    open_ = [f"{drain[key]} {word}{'s' * (drain[key] != 1)}" for key, word in kinds.items() if drain[key]]
    return f"drain: {drain['phase']}, {duration(drain['left'])} left; {', '.join(open_) or 'nothing'} open"
