"""``sojourn metrics``: the page of metrics."""

from __future__ import annotations

import math

import click

from sojourn.observe.log.text import message
from sojourn.ops.asking import as_json, asks, tell
from sojourn.ops.client import Admin
from sojourn.ops.exposition import parse

__all__ = ["metrics"]


@click.command()
@click.argument("names", metavar="[NAME]...", nargs=-1)
@asks
@as_json
def metrics(admin: Admin, names: tuple[str, ...], as_json: bool) -> int:
    """Print the metrics of all workers as Prometheus reads them: all, or those whose name contains one of NAMES."""
    text = admin.ask("GET", "/metrics").body.decode("utf-8", "replace")
    if as_json:
        tell(
            [
                {"name": name, "labels": series.labels, "value": series.value if math.isfinite(series.value) else None}
                for name, series in parse(text)
                if not names or any(wanted in name for wanted in names)
            ]
        )
        return 0
    for line in text.splitlines():
        if not names or any(wanted in _name(line) for wanted in names):
            click.echo(message(line))
    return 0


def _name(line: str) -> str:
    """The metric that a line is about: a value, or a comment such as ``# TYPE name counter``."""
    words = line.split(maxsplit=3)
    if words[:1] == ["#"]:
        return words[2] if len(words) > 2 else ""
    return line.partition("{")[0].partition(" ")[0]
