"""``sojourn config --running`` and ``sojourn config set``: the settings that are in force, and changing them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

import click

from sojourn.errors import ConfigError
from sojourn.ops.asking import as_json, asks, tell
from sojourn.ops.client import Admin
from sojourn.ops.table import Column, screen, table
from sojourn.ops.words import plain
from sojourn.server.settings import keys
from sojourn.server.settings.values import display

__all__ = ["change", "running", "value"]


_COLUMNS: Final = (
    Column("KEY", lambda row: row["key"]),
    Column("VALUE", lambda row: row["text"], cut="end"),
    Column("ORIGIN", lambda row: row.get("origin") or "", cut="end", rank=2),
    Column("CHANGE", lambda row: row.get("change") or "", rank=1),
)


@click.command("config --running")
@click.argument("names", metavar="[KEY]...", nargs=-1)
@asks
@as_json
def running(admin: Admin, names: tuple[str, ...], as_json: bool) -> int:
    """Show the settings that are in force: all, or those whose key contains one of KEYS.

    CHANGE says when a change takes effect: live, for new connections, or after a restart.
    """
    document = admin.get("/config")
    rows = [row for row in document["settings"] if not names or any(name in row["key"] for name in names)]
    if as_json:
        tell({**document, "settings": rows})
        return 0
    for line in table(_COLUMNS, rows, screen()):
        click.echo(line)
    click.echo(f"version {document['version']}", err=True)
    return 0


@click.command("config set")
@click.argument("settings", metavar="KEY=VALUE...", nargs=-1, required=True)
@asks
@as_json
def change(admin: Admin, settings: tuple[str, ...], as_json: bool) -> int:
    """Change settings of a running server: all of them, or none when one can't be. No connection is closed.

    The server must allow it with admin.actions. A restart reads the settings anew, so write there what is to stay.
    """
    wanted: dict[str, str] = {}
    for setting in settings:
        key, mark, text = setting.partition("=")
        if not mark or not key:
            raise ConfigError(f"{setting!r} is no setting: write KEY=VALUE, such as timeouts.header=5s")
        if key in wanted:
            raise ConfigError("is given twice", key=key)
        wanted[key] = text
    document = admin.post("/config", wanted)
    if as_json:
        tell(document)
        return 0
    for key, (before, after) in document["changes"].items():
        when = "for new connections" if key in document["new"] else "now"
        click.echo(f"{plain(key)}: {_written(key, before)} -> {_written(key, after)}, {when}")
    for warning in document["warnings"]:
        click.echo(f"warning: {plain(warning)}", err=True)
    click.echo(f"version {document['version']}" if document["changes"] else "nothing changed", err=True)
    return 0


def _written(path: str, found: object) -> str:
    """A value as ``sojourn config`` shows it; that of a key which is not known here as it is written in a file."""
    if isinstance(found, str):
        return plain(found)
    key = keys().get(path)
    return plain(
        display(key, found) if key is not None and isinstance(found, bool | int | float) else json.dumps(found)
    )


def value(document: Mapping[str, Any], key: str) -> Any:
    """The value of a key in the answer of ``/config``; None when it is not there."""
    return next((row["value"] for row in document["settings"] if row["key"] == key), None)
