"""One transaction: the time it is made at, and what others are told when it is done."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from sqlite3 import Connection, Cursor
from typing import Any, Final

import msgspec

__all__ = ["Turn", "listed"]

#: Rows of one statement. Each statement gives other threads of the process a turn, so few are better.
_ROWS: Final = (64, 16, 4, 1)

_encode: Final = msgspec.json.Encoder().encode


def listed(values: Iterable[Any]) -> str:
    """Values as ``json_each`` reads them: one statement for any number of them."""
    return _encode(list(values)).decode()


class Turn:
    """All the calls of a transaction share it.

    Args:
        connection: In the transaction.
        wall: Now, in seconds since 1970.
        mono: Now, by the clock of leases.

    Attributes:
        due: Whether something may be claimable.
        changed: Tasks that have changed.
        cancelled: Tasks that are to end.
        buried: Files of nodes that are dead, and whose leases are ended by this.
    """

    __slots__ = ("buried", "cancelled", "changed", "connection", "due", "mono", "run", "wall")

    def __init__(self, connection: Connection, wall: float, mono: float) -> None:
        self.connection = connection
        self.run = connection.execute
        self.wall = wall
        self.mono = mono
        self.due = False
        self.changed: list[str] = []
        self.cancelled: list[str] = []
        self.buried: list[str] = []

    def rows(self, beginning: str, marks: str, rows: Sequence[Sequence[Any]], end: str = "") -> int:
        """Run an INSERT of many rows, some in each statement.

        Args:
            beginning: Up to VALUES.
            marks: One row's question marks, in parentheses.
            rows: Their values.
            end: What follows the values.

        Returns:
            How many rows were inserted.
        """
        left: Iterator[Sequence[Any]] = iter(rows)
        count, done = len(rows), 0
        for size in _ROWS:
            while count >= size:
                some = [value for row in islice(left, size) for value in row]
                text = f"{beginning} VALUES {','.join([marks] * size)} {end}"
                done += self.run(text, some).rowcount
                count -= size
        return done

    def each(self, statement: str, rows: Sequence[Sequence[Any]]) -> Cursor:
        """Run a statement for each of some rows."""
        return self.connection.executemany(statement, rows)
