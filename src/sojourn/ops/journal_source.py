"""Where the commands on durable tasks look: at a running server, or into the journal itself, without any server."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar
from urllib.parse import quote

import click

from sojourn.errors import ConfigError
from sojourn.ops.asking import find, with_options
from sojourn.ops.client import Admin
from sojourn.tasks.opening import file_of, journal_of

__all__ = ["Opened", "Served", "Source", "looks"]

_Function = TypeVar("_Function", bound=Callable[..., Any])
_T = TypeVar("_T")
#: Changes in one go take longer than other answers.
_CHANGES: Final = 30.0
_LONG: Final = ("payload", "spec", "result", "error", "checkpoint", "said")


class Source(Protocol):
    """Where to look. Documents are those of the admin listener. What can't be done raises a ``SojournError``."""

    def overview(self, **query: Any) -> dict[str, Any]:
        """What runs where, and how many there are; ``name``, ``limit``."""

    def tasks(self, **query: Any) -> dict[str, Any]:
        """Tasks, newest first; ``name``, ``state``, ``kind``, ``owner``, ``before``, ``limit``."""

    def task(self, task: str) -> dict[str, Any]:
        """A task with all that is known of it."""

    def change(self, what: str, task: str) -> dict[str, Any]:
        """Cancel a task, or have it tried again: the task after that."""

    def change_all(self, what: str, **query: Any) -> dict[str, Any]:
        """The same for at most 200 of ``kind`` and ``state``, and in ``before`` where to go on."""


def looks(function: _Function) -> _Function:
    """Give a command the options that say where to look; it gets ``source``.

    Args:
        function: The command, before ``click.command``.
    """

    @wraps(function)
    def looking(
        *,
        journal: str | None,
        place: str | None,
        token_file: Path | None,
        config_file: Path | None,
        timeout: float,
        **more: Any,
    ) -> Any:
        source: Source
        if journal is not None:
            source = Opened(journal)
        else:
            source = Served(find(place, token_file, config_file, timeout, os.environ))
        return function(source=source, **more)

    text = "Open this journal instead: a path, postgresql://... or redis://...; no server is asked."
    result: _Function = click.option("--journal", metavar="JOURNAL", help=text)(with_options(looking))
    return result


class Served:
    """Asks a running server.

    Args:
        admin: Its client.
    """

    def __init__(self, admin: Admin) -> None:
        self._admin = admin

    def overview(self, **query: Any) -> dict[str, Any]:
        """What runs where, and how many there are."""
        document: dict[str, Any] = self._admin.get("/journal", **query)
        return document

    def tasks(self, **query: Any) -> dict[str, Any]:
        """Tasks, newest first."""
        document: dict[str, Any] = self._admin.get("/journal/tasks", **query)
        return document

    def task(self, task: str) -> dict[str, Any]:
        """A task with all that is known of it."""
        document: dict[str, Any] = self._admin.get(f"/journal/tasks/{quote(task, safe='')}")
        return document

    def change(self, what: str, task: str) -> dict[str, Any]:
        """Cancel a task, or have it tried again."""
        document: dict[str, Any] = self._admin.post(f"/journal/tasks/{quote(task, safe='')}/{what}")
        return document

    def change_all(self, what: str, **query: Any) -> dict[str, Any]:
        """The same for many."""
        document: dict[str, Any] = self._admin.post(f"/journal/{what}", seconds=_CHANGES, **query)
        return document


class Opened:
    """Opens the journal itself, for each question anew.

    Args:
        text: Which: a path or a URL.

    Raises:
        ConfigError: There is no such file.
    """

    def __init__(self, text: str) -> None:
        path = file_of(text)
        if path is not None and not Path(path).exists():
            raise ConfigError(f"there is no journal at {path}")  # opening it would make one
        self._text = text

    def overview(self, **query: Any) -> dict[str, Any]:
        """What there is; what runs where, only the servers know."""
        amounts = self._ask("journal_amounts", {})
        tasks = {name: each._asdict() for name, each in amounts.items()}
        return {"journals": [], "tasks": tasks, "problem": None, "workers": {}}

    def tasks(self, **query: Any) -> dict[str, Any]:
        """Tasks, newest first."""
        return {"tasks": [_short(record) for record in self._ask("journal_tasks", query)]}

    def task(self, task: str) -> dict[str, Any]:
        """A task with all that is known of it."""
        record = self._ask("journal_task", {"id": task})
        return {**record._asdict(), "said": [moment._asdict() for moment in record.said]}

    def change(self, what: str, task: str) -> dict[str, Any]:
        """Cancel a task, or have it tried again."""
        return _short(self._ask("journal_change", {"id": task, "what": what}))

    def change_all(self, what: str, **query: Any) -> dict[str, Any]:
        """The same for many."""
        document: dict[str, Any] = self._ask("journal_change_all", {**query, "what": what})
        return document

    def _ask(self, what: str, arguments: Mapping[str, Any]) -> Any:
        # Only one service is here: its name in the application is not known.
        given = {key: value for key, value in arguments.items() if value is not None and key != "name"}
        return asyncio.run(self._answer(what, given))

    async def _answer(self, what: str, arguments: dict[str, Any]) -> Any:
        from sojourn.bus import Bus
        from sojourn.observe.journal_answers import JournalAnswers
        from sojourn.scopes.journals import Journals
        from sojourn.tasks.stats import Stats
        from sojourn.tasks.view import View

        journal = journal_of(self._text)
        services, view = Journals(Bus()), View("journal", journal, Stats())
        services.join(view)
        try:
            await journal.open(f"sojourn-journal:{os.getpid()}")
            answer: Awaitable[object] = JournalAnswers(services).answers[what](arguments)
            return await answer
        finally:
            await journal.aclose()


def _short(record: Any) -> dict[str, Any]:
    return {name: value for name, value in record._asdict().items() if name not in _LONG}
