"""Sessions in an SQLite file: the statements, run by one thread."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Sequence
from typing import Any, Final

from sojourn.clock import Clock
from sojourn.sessions.stored import GRACE, Draft, Revocation, Saved, Stored
from sojourn.stores.sqlite import make_private, when_free

__all__ = ["Tables", "Told"]

#: Milliseconds to wait for another process that writes.
_BUSY_MS: Final = 500
#: Seconds between two looks for what is over, how much of it is removed at once, and for how long revocations are kept.
_SWEEP: Final = 60.0
_SWEPT: Final = 1000
_KEPT: Final = 60.0
#: Keys in one statement; SQLite before 3.32 takes 999 values.
_KEYS: Final = 500

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS sessions (
    key TEXT PRIMARY KEY, user TEXT NOT NULL, data BLOB NOT NULL, version INTEGER NOT NULL, created REAL NOT NULL,
    idle REAL NOT NULL, idle_until REAL NOT NULL, expires REAL NOT NULL, read_only INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS sessions_of_user ON sessions (user) WHERE user <> '';
CREATE INDEX IF NOT EXISTS sessions_idle ON sessions (idle_until);
CREATE TABLE IF NOT EXISTS revocations (
    number INTEGER PRIMARY KEY AUTOINCREMENT, what TEXT NOT NULL, name TEXT NOT NULL, keep TEXT NOT NULL,
    at REAL NOT NULL
);
"""
_COLUMNS: Final = "key, user, data, version, created, expires, idle_until, read_only, idle"
_INSERT: Final = (
    "INSERT INTO sessions (key, user, data, version, created, idle, idle_until, expires) "
    "VALUES (?, ?, ?, 1, ?, ?, ?, ?)"
)

#: Revocations since a number, the latest number, and whether some may be missing.
Told = tuple[list[Revocation], int, bool]


class Tables:
    """One connection. All is called in one thread at a time; each call is one transaction.

    Args:
        path: Of the file, which is made if it is not there.
        clock: The time.
    """

    def __init__(self, path: str, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._connection: sqlite3.Connection | None = None
        self._swept = 0.0

    def load(self, key: str) -> Stored | None:
        row = self._row(key)
        if row is None:
            return None
        now = self._clock.wall()
        expires, idle_until, read_only, idle = row[5:]
        # Written once in a quarter of the idle time, not with each request.
        if not read_only and idle_until < min(now + 0.75 * idle, expires):
            self.touch([key])
        return _stored(row, now)

    def create(self, key: str, draft: Draft) -> Stored:
        with self._write():
            return self._insert(key, draft, self._clock.wall())

    def save(self, key: str, version: int, data: bytes) -> Saved:
        with self._write():
            now = self._clock.wall()
            changed = self._run(
                "UPDATE sessions SET data = ?, version = version + 1, idle_until = min(? + idle, expires) "
                "WHERE key = ? AND version = ? AND read_only = 0 AND idle_until > ?",
                (data, now, key, version, now),
            ).rowcount
            row = self._row(key)
        return Saved(changed == 1, None if row is None else _stored(row, now))

    def rotate(self, key: str, version: int, new: str, draft: Draft) -> Saved:
        with self._write():
            now = self._clock.wall()
            row = self._row(key)
            old = None if row is None else _stored(row, now)
            if old is None or old.version != version or old.read_only:
                return Saved(False, old)
            stored = self._insert(new, draft, now)
            if old.user == draft.user:
                self._run(
                    "UPDATE sessions SET (created, expires) = (SELECT created, expires FROM sessions WHERE key = ?), "
                    "idle_until = min(idle_until, (SELECT expires FROM sessions WHERE key = ?)) WHERE key = ?",
                    (key, key, new),
                )
                stored = stored._replace(created=old.created, left=old.left)
            if old.user and old.user != draft.user:
                self._run("DELETE FROM sessions WHERE key = ?", (key,))
                self._tell(Revocation("session", key), now)
            else:
                self._run(
                    "UPDATE sessions SET read_only = 1, idle_until = min(idle_until, ?) WHERE key = ?",
                    (now + GRACE, key),
                )
                self._tell(Revocation("rotated", key), now)
        return Saved(True, stored)

    def touch(self, keys: Collection[str]) -> set[str]:
        there: set[str] = set()
        every = list(keys)
        with self._write():
            now = self._clock.wall()
            for begin in range(0, len(every), _KEYS):
                some = every[begin : begin + _KEYS]
                marks = ",".join("?" * len(some))
                found = self._run(f"SELECT key FROM sessions WHERE idle_until > ? AND key IN ({marks})", (now, *some))
                there.update(key for (key,) in found)
                self._run(
                    "UPDATE sessions SET idle_until = min(? + idle, expires) "
                    f"WHERE idle_until > ? AND read_only = 0 AND key IN ({marks})",
                    (now, now, *some),
                )
            self._sweep(now)
        return there

    def revoke(self, revocation: Revocation) -> None:
        what, name, keep = revocation
        with self._write():
            if what == "session":
                self._run("DELETE FROM sessions WHERE key = ?", (name,))
            elif what == "user":
                self._run("DELETE FROM sessions WHERE user = ? AND key <> ?", (name, keep))
            elif what == "all":
                self._run("DELETE FROM sessions", ())
            self._tell(revocation, self._clock.wall())

    def of(self, user: str) -> Sequence[Stored]:
        now = self._clock.wall()
        rows = self._run(
            f"SELECT {_COLUMNS} FROM sessions WHERE user = ? AND user <> '' AND read_only = 0 AND idle_until > ? "
            "ORDER BY created",
            (user, now),
        )
        return [_stored(row, now) for row in rows]

    def told(self, since: int) -> Told:
        """Revocations after a number; below zero: none, and the latest number."""
        if since < 0:
            (latest,) = self._run("SELECT seq FROM sqlite_sequence WHERE name = 'revocations'", ()).fetchone() or (0,)
            return [], latest, False
        rows = self._run(
            "SELECT number, what, name, keep FROM revocations WHERE number > ? ORDER BY number", (since,)
        ).fetchall()
        if not rows:
            return [], since, False
        # Numbers are never used twice: where the first is not the next, somebody has removed what lies between.
        return [Revocation(*row[1:]) for row in rows], rows[-1][0], rows[0][0] != since + 1

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _opened(self) -> sqlite3.Connection:
        if self._connection is not None:
            return self._connection
        if self._path != ":memory:":
            make_private(self._path)  # what sessions hold is for nobody else
        # Not always the same thread, but never two at once.
        connection = sqlite3.connect(self._path, timeout=_BUSY_MS / 1000, isolation_level=None, check_same_thread=False)
        try:
            when_free(lambda: connection.execute("PRAGMA journal_mode = WAL"), _BUSY_MS / 1000)
            connection.execute("PRAGMA synchronous = NORMAL")  # a crash of the machine may lose the last moments
            connection.executescript(_SCHEMA)
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return connection

    def _run(self, statement: str, values: Sequence[Any]) -> sqlite3.Cursor:
        return self._opened().execute(statement, values)

    def _write(self) -> _Transaction:
        return _Transaction(self._opened())

    def _row(self, key: str) -> Any:
        now = self._clock.wall()
        return self._run(f"SELECT {_COLUMNS} FROM sessions WHERE key = ? AND idle_until > ?", (key, now)).fetchone()

    def _insert(self, key: str, draft: Draft, now: float) -> Stored:
        idle_until, expires = now + min(draft.idle, draft.absolute), now + draft.absolute
        self._run(_INSERT, (key, draft.user, draft.data, now, draft.idle, idle_until, expires))
        self._sweep(now)
        return Stored(key, draft.user, draft.data, 1, now, draft.absolute)

    def _tell(self, revocation: Revocation, now: float) -> None:
        self._run("INSERT INTO revocations (what, name, keep, at) VALUES (?, ?, ?, ?)", (*revocation, now))

    def _sweep(self, now: float) -> None:
        if now - self._swept >= _SWEEP:
            self._swept = now
            self._run(
                "DELETE FROM sessions WHERE key IN (SELECT key FROM sessions WHERE idle_until <= ? LIMIT ?)",
                (now, _SWEPT),
            )
            self._run("DELETE FROM revocations WHERE at < ?", (now - _KEPT,))


class _Transaction:
    """Writes as one; nobody else writes meanwhile."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        # IMMEDIATE: one that begins by reading could not write once another process has, and would fail.
        self._connection.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._connection.in_transaction:
            self._connection.execute("COMMIT" if kind is None else "ROLLBACK")


def _stored(row: Any, now: float) -> Stored:
    key, user, data, version, created, expires, idle_until, read_only, _ = row
    left = (idle_until if read_only else expires) - now
    return Stored(key, user, bytes(data), version, created, left, bool(read_only))
