"""``sojourn top``: the command."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import click

from sojourn.clock import SystemClock
from sojourn.errors import SojournError
from sojourn.ops.asking import asks
from sojourn.ops.client import Admin, Refused
from sojourn.ops.ps import SORTS
from sojourn.ops.table import Screen, screen, table
from sojourn.ops.top.head import head
from sojourn.ops.top.views import FILTERS, VIEWS, Choice
from sojourn.ops.top.watch import Asked, Watch
from sojourn.ops.words import duration

__all__ = ["printed", "top"]


@click.command()
@click.option("--once", is_flag=True, help="Print everything once, after two looks; needs no Textual.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="File for --once. [standard output]")
@click.option("--seconds", default=1.0, show_default=True, help="Between the two looks of --once, for the rates.")
@click.option("--sort", type=click.Choice(list(SORTS)), default="age", show_default=True, help="Of the connections.")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="Rows of each table.")
@click.option("--filter", "filters", type=click.Choice(list(FILTERS)), multiple=True, help="Of the connections.")
@asks
def top(admin: Admin, once: bool, output: Path | None, seconds: float, filters: tuple[str, ...], **more: object) -> int:
    """Watch a server: connections, tasks, endings, deadlines, leaks, workers. `?` explains the keys."""
    choice = Choice(str(more["sort"]), int(str(more["limit"])), frozenset(filters))
    if output is not None and not once:
        raise click.UsageError("-o goes with --once")
    if not once:
        return _live(admin, choice)
    watch = Watch(admin, SystemClock())
    watch.note(*watch.fetch())
    threading.Event().wait(seconds)
    watch.note(*watch.fetch())
    text = "\n".join(printed(admin, watch, choice, screen() if output is None else Screen())) + "\n"
    if output is None:
        click.echo(text, nl=False)
        return 0
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise SojournError(f"{output} can't be written: {error.strerror}") from error
    return 0


def printed(admin: Asked, watch: Watch, choice: Choice, target: Screen) -> Iterator[str]:
    """Everything as lines of text.

    Args:
        admin: Whom to ask for the tables.
        watch: What is known, after two looks.
        choice: Order, limit and filters.
        target: Where the lines go.
    """
    yield from head(watch)
    for view in VIEWS:
        yield ""
        try:
            rows = view.rows(watch, view.fetch(admin, choice) if view.fetch else None, choice)
        except Refused as error:
            yield target.bold(view.name)
            yield str(error)
            continue
        note = view.note.format(seconds=duration(watch.seconds))
        yield target.bold(", ".join(filter(None, [view.name, f"{min(len(rows), choice.limit)} of {len(rows)}", note])))
        if rows:
            yield from table(view.columns, rows[: choice.limit], target)


def _live(admin: Admin, choice: Choice) -> int:
    try:
        from sojourn.ops.top.app import Top
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("textual", "rich"):
            raise
        raise SojournError("`sojourn top` needs Textual: pip install 'sojourn[top]', or use --once") from error
    admin.get("/status")  # whoever can't be reached is told so on the terminal, not in a window
    app = Top(admin, SystemClock(), choice)
    app.run()
    return app.return_code or 0
