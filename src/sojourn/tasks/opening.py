"""The journal that a text means: a path, or the URL of a server."""

from __future__ import annotations

import os
from typing import Any, Final

from sojourn.errors import ConfigError
from sojourn.tasks.journal import Journal

__all__ = ["file_of", "journal_from", "journal_of"]

_POSTGRES: Final = frozenset({"postgres", "postgresql"})
_REDIS: Final = frozenset({"redis", "rediss", "valkey", "valkeys", "unix"})
_FILE: Final = frozenset({"sqlite", "sqlite3", "file"})
#: What a client of Redis calls them.
_CALLED: Final = {"valkey": "redis", "valkeys": "rediss"}


def journal_from(given: Any) -> Journal:
    """The journal that an application gives: one that is made, or a path or URL for :func:`journal_of`.

    Raises:
        ConfigError: It is none.
    """
    if isinstance(given, str | os.PathLike):
        return journal_of(os.fspath(given))
    if not callable(getattr(given, "submit", None)):
        raise ConfigError(f"durable tasks: {given!r:.100} is no journal: give a path, a URL, or one that is made")
    journal: Journal = given
    return journal


def journal_of(text: str) -> Journal:
    """The journal that a text means. Nothing is opened yet.

    Args:
        text: A path, also as ``sqlite:PATH``, for a file of this host; ``postgresql://...``; ``redis://...``,
            ``rediss://...``, ``valkey://...``, or ``unix://PATH`` with the socket of Redis.

    Raises:
        ConfigError: It means none, or the package of its client is missing.
    """
    path = file_of(text)
    if path is not None:
        from sojourn.tasks.sqlite.journal import SqliteJournal

        return SqliteJournal(path)
    scheme, _, rest = text.partition(":")
    scheme = scheme.lower()
    if scheme in _POSTGRES:
        from sojourn.tasks.postgres.journal import PostgresJournal  # its client is an extra

        return PostgresJournal(text)
    if scheme in _REDIS:
        from sojourn.tasks.redis.journal import RedisJournal

        return RedisJournal(f"{_CALLED.get(scheme, scheme)}:{rest}")
    raise ConfigError(f"{scheme}: keeps no journal; there are paths, postgresql:// and redis://")


def file_of(text: str) -> str | None:
    """The path of the file that a text means; None when it means a server.

    Args:
        text: As for :func:`journal_of`.

    Raises:
        ConfigError: It is empty.
    """
    scheme, colon, rest = text.partition(":")
    if not text.strip():
        raise ConfigError("which journal of durable tasks? Give a path, postgresql://... or redis://...")
    if colon and scheme.lower() in _FILE:
        return rest.removeprefix("//")
    return None if colon and (scheme.lower() in _POSTGRES | _REDIS or rest.startswith("//")) else text
