"""``sojourn stacks``: every thread of every worker, also of one that hangs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import click

from sojourn.observe.log.text import message
from sojourn.ops.asking import as_json, asks, tell, unanswered
from sojourn.ops.client import Admin
from sojourn.ops.table import Screen, screen

__all__ = ["stacks"]


@click.command()
@click.option("--worker", type=int, help="Of this worker.")
@asks
@as_json
def stacks(admin: Admin, as_json: bool, worker: int | None) -> int:
    """Print the stacks of all threads. A worker that hangs answers too: the stacks are taken by a signal."""
    document = admin.get("/stacks", worker=worker)
    if as_json:
        tell(document)
    else:
        for line in _lines(document["stacks"], screen()):
            click.echo(line)
    return unanswered(document)


def _lines(found: list[Mapping[str, Any]], target: Screen) -> Iterator[str]:
    for index, each in enumerate(found):
        if index:
            yield ""
        yield target.bold(f"worker {each['worker']}")
        yield from map(message, str(each["text"] or "it did not say").rstrip().splitlines())
