"""Tables: fit into a terminal, plain and whole when they go to a pipe or a file."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import click

from sojourn.ops.words import plain, shortened

__all__ = ["Column", "Screen", "screen", "table"]

_GAP: Final = "  "
#: What a column that may be cut keeps at least.
_LEAST: Final = 12


class Screen(NamedTuple):
    """Where text goes.

    Attributes:
        width: Columns of the terminal; None for a pipe or a file, where nothing is cut.
        colours: Whether headings and states may have colours.
    """

    width: int | None = None
    colours: bool = False

    def bold(self, text: str) -> str:
        """A heading."""
        return click.style(text, bold=True) if self.colours else text

    def red(self, text: str) -> str:
        """What somebody should look at."""
        return click.style(text, fg="red") if self.colours and text else text


def screen() -> Screen:
    """Standard output as it is: colours only on a terminal, and not when NO_COLOR is set to something."""
    if not sys.stdout.isatty():
        return Screen()
    return Screen(shutil.get_terminal_size().columns, not os.environ.get("NO_COLOR"))


class Column(NamedTuple):
    """A column of a table.

    Attributes:
        title: Its heading.
        show: Makes the text of a row.
        right: Whether it is aligned to the right, as numbers are.
        cut: Whether it may be made narrower: ``end``, ``start`` (a path keeps its end), or "" when it may not.
        rank: Columns of the highest rank go first where there is no room; those of rank 0 never do.
    """

    title: str
    show: Callable[[Mapping[str, Any]], str]
    right: bool = False
    cut: str = ""
    rank: int = 0


def table(columns: Sequence[Column], rows: Sequence[Mapping[str, Any]], target: Screen) -> Iterator[str]:
    """The lines of a table, the headings first. A column without any content is left out, unless its rank is 0.

    Args:
        columns: What to show.
        rows: The rows, in their order.
        target: Where it goes.
    """
    cells = [[plain(column.show(row)) for row in rows] for column in columns]
    kept = [index for index, column in enumerate(columns) if not column.rank or any(c.strip("-") for c in cells[index])]
    widths = {index: max(len(columns[index].title), *map(len, cells[index]), 0) for index in kept}
    if target.width is not None:
        _fit(columns, widths, target.width)
    for line in range(-1, len(rows)):
        parts = []
        for index, width in widths.items():
            column = columns[index]
            text = column.title if line < 0 else cells[index][line]
            text = shortened(text, width, start=column.cut == "start")
            parts.append(text.rjust(width) if column.right else text.ljust(width))
        joined = _GAP.join(parts).rstrip()
        yield target.bold(joined) if line < 0 else joined


def _fit(columns: Sequence[Column], widths: dict[int, int], room: int) -> None:
    """Make columns narrower, then leave some out, until a line has room."""

    def excess() -> int:
        return sum(widths.values()) + len(_GAP) * (len(widths) - 1) - room

    def least(index: int) -> int:
        return min(widths[index], max(_LEAST, len(columns[index].title))) if columns[index].cut else widths[index]

    def hopeless() -> bool:
        return sum(map(least, widths)) + len(_GAP) * (len(widths) - 1) > room

    for index in sorted(widths, key=lambda index: -columns[index].rank):
        if not (hopeless() and columns[index].rank):
            break
        del widths[index]
    while (over := excess()) > 0:
        widest = max((i for i in widths if columns[i].cut), key=lambda i: widths[i] - least(i), default=None)
        if widest is None or widths[widest] <= least(widest):
            return
        others = [widths[i] for i in widths if columns[i].cut and widths[i] < widths[widest]]
        step = widths[widest] - max(others, default=0)
        widths[widest] -= max(1, min(over, step, widths[widest] - least(widest)))
