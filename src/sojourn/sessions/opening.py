"""The store that a text means."""

from __future__ import annotations

from sojourn.sessions.store import SessionStore

__all__ = ["store_of"]


def store_of(where: str) -> SessionStore:
    """A Redis by its URL, else an SQLite file by its path.

    Raises:
        ConfigError: The package ``redis`` is missing, or the URL is none.
    """
    if where.startswith(("redis://", "rediss://", "unix://")):
        from sojourn.sessions.redis import RedisSessions

        return RedisSessions(where)
    from sojourn.sessions.sqlite import SqliteSessions

    return SqliteSessions(where)
