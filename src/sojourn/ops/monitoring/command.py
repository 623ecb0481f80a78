"""``sojourn monitoring``: writes dashboards and rules to a folder."""

from __future__ import annotations

from pathlib import Path

import click

from sojourn.errors import SojournError
from sojourn.ops.monitoring.alerts.model import RUNBOOK
from sojourn.ops.monitoring.files import export

__all__ = ["monitoring"]


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--runbook", metavar="URL", default=RUNBOOK, help="Page that explains the alerts; each links to it.")
def monitoring(folder: Path, runbook: str) -> int:
    """Write Grafana's dashboards and Prometheus' rules and alerts to DIR; those of an older version are replaced."""
    try:
        written = export(folder, runbook)
    except OSError as error:
        raise SojournError(f"{error.filename or folder} can't be written: {error.strerror}") from error
    for path in written:
        click.echo(str(path))
    return 0
