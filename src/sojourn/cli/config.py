"""``sojourn config``: the effective settings, with where each comes from."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from sojourn.cli.options import SettingsCommand, load_settings, parameters
from sojourn.cli.reference import reference
from sojourn.cli.serve import deadline_notice
from sojourn.server.settings import Loaded, Row, describe, waits_without_deadline

__all__ = ["config"]

#: Longer values push their origin to the right instead of widening the whole column.
_WIDEST = 32


@click.command(cls=SettingsCommand, params=parameters())
@click.option("--json", "as_json", is_flag=True, help="Print the settings as JSON.")
@click.option("--markdown", is_flag=True, help="Print the reference page of all settings, whatever they are set to.")
def config(config_file: Path | None, as_json: bool, markdown: bool, **given: Any) -> int:
    """Show every setting with its value, unit and origin, as `sojourn serve` with the same flags would have it.

    `sojourn config --running` asks a running server, and `sojourn config set KEY=VALUE ...` changes it.
    """
    if markdown:
        click.echo(reference(), nl=False)
        return 0
    loaded = load_settings(config_file, given, os.environ, Path.cwd())
    if as_json:
        click.echo(_json(loaded))
        return 0
    for line in _table(describe(loaded)):
        click.echo(line)
    for warning in filter(None, (*loaded.warnings, deadline_notice(loaded.config))):
        click.echo(f"warning: {warning}", err=True)
    return 0


def _table(rows: list[Row]) -> Iterator[str]:
    key_width = max(len(row.key) for row in rows)
    value_width = min(max(len(row.text) for row in rows), _WIDEST)
    group = rows[0].key.partition(".")[0]
    for row in rows:
        if row.key.partition(".")[0] != group:
            group = row.key.partition(".")[0]
            yield ""
        yield f"{row.key:<{key_width}}  {row.text:<{value_width}}  {row.origin}"


def _json(loaded: Loaded) -> str:
    settings = [
        {
            "key": row.key,
            "value": row.value,
            "unit": row.unit,
            "layer": row.origin.layer,
            "origin": str(row.origin),
            "change": row.change,
            "doc": row.doc,
        }
        for row in describe(loaded)
    ]
    notes = {"warnings": loaded.warnings, "waits_without_deadline": waits_without_deadline(loaded.config)}
    return json.dumps({"settings": settings, **notes}, indent=2)
