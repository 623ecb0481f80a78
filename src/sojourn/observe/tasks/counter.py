"""How many tasks there are of each kind of owner."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator
from typing import Any, Final

from sojourn.observe.tasks.every import Reference, alive, references
from sojourn.observe.tasks.owners import KINDS, Kind

__all__ = ["Counter"]

#: Up to so many tasks are counted at once, in about half a millisecond; and of more, so many in one turn of the loop.
_AT_ONCE: Final = 1000


class Counter:
    """Counts tasks, in slices where there are many.

    Args:
        loop: Where the tasks run.
        kind: Says what kind of owner a task has.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, kind: Callable[[asyncio.Task[Any]], Kind]) -> None:
        self._loop = loop
        self._kind = kind
        self._counts: dict[str, int] | None = None
        self._counting = False

    def counts(self) -> dict[str, int]:
        """How many there are now; of more than a thousand, how many there were when this was last called.

        Then the next count begins here and goes on in the following turns of the loop.
        """
        if not self._counting:
            every = references(self._loop)
            fresh: dict[str, int] = dict.fromkeys(KINDS, 0)
            if len(every) <= _AT_ONCE or self._counts is None:
                self._add(iter(every), fresh, len(every))
                self._counts = fresh
            else:
                self._counting = True
                self._go_on(iter(every), fresh)
        return dict(self._counts or {})

    def _go_on(self, rest: Iterator[Reference], counts: dict[str, int]) -> None:
        if self._add(rest, counts, _AT_ONCE):
            self._loop.call_soon(self._go_on, rest, counts)
        else:
            self._counts, self._counting = counts, False

    def _add(self, rest: Iterator[Reference], counts: dict[str, int], most: int) -> bool:
        """Count so many more; whether it came to that."""
        piece = list(itertools.islice(rest, most))
        for reference in piece:
            task = alive(reference, self._loop)
            if task is not None:
                counts[self._kind(task)] += 1
        return len(piece) == most
