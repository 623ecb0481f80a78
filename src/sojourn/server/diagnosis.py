"""All that watches one worker, and answers questions about it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from sojourn.asgi.site import Site
from sojourn.observe.connections import Connections

__all__ = ["Answer", "Diagnosis"]

#: Answers one kind of question; the arguments are plain values.
Answer = Callable[[Mapping[str, Any]], Awaitable[object]]


class _Part(Protocol):
    @property
    def answers(self) -> Mapping[str, Answer]: ...

    def close(self) -> None: ...


class Diagnosis:
    """The parts that ``diagnostics.*`` asks for. Made on the event loop before the application starts.

    Args:
        site: What the worker serves.

    Attributes:
        answers: What can be asked, by name.
    """

    def __init__(self, site: Site) -> None:
        self._parts: list[_Part] = [Connections(site)]
        self.answers: dict[str, Answer] = {}
        for part in self._parts:
            self.answers.update(part.answers)

    def close(self) -> None:
        """Undo everything; calling it twice does nothing."""
        parts, self._parts = self._parts, []
        for part in reversed(parts):
            part.close()
