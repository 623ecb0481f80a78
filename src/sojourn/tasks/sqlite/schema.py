"""The file: its tables, how a connection is made, and what SQLite's errors mean."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Final

from sojourn.errors import ConfigError, JournalUnavailable
from sojourn.stores.sqlite import make_private, when_free

__all__ = ["FIRST_OF_THEM", "connect", "make_room", "prepare", "translated"]

#: Of the tables that this code reads and writes.
VERSION: Final = 1
#: Pages of the log that is written first (WAL), after which they are moved into the file; bytes of that many, and some;
#: and bytes that are kept of it.
_CHECKPOINT: Final = 1000
_ROOM: Final = _CHECKPOINT * (4096 + 24) * 17 // 16
_KEPT: Final = 64 << 20
#: Bytes that are free on the disk, or nothing is taken of it before it is needed.
_SPARE: Final = 256 << 20
#: Kilobytes of pages that a connection keeps.
_CACHE: Final = 16_000
#: Seconds to wait for others that open the file at the same moment.
_OTHERS: Final = 2.0

# Columns that change stand before those that are long. State: see `rows.py`. Moments are seconds since 1970, except
# lease_until: seconds of the clock that never jumps, since the boot that `meta` names.
# A task is in exactly one of the four partial indexes: what waits for its turn, what is not due yet, what runs, what
# has ended. Claims and counts read only these.
_TABLES: Final = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE tasks (
    number INTEGER PRIMARY KEY, state INTEGER NOT NULL, kind TEXT NOT NULL, priority INTEGER NOT NULL,
    run_at REAL NOT NULL, epoch INTEGER NOT NULL, lease_until REAL NOT NULL, node TEXT NOT NULL,
    cancelling INTEGER NOT NULL DEFAULT 0, failures INTEGER NOT NULL DEFAULT 0,
    interruptions INTEGER NOT NULL DEFAULT 0, crashes INTEGER NOT NULL DEFAULT 0,
    seq INTEGER NOT NULL DEFAULT 0, settled INTEGER NOT NULL DEFAULT 0, outcome TEXT NOT NULL DEFAULT '',
    created REAL NOT NULL, begun REAL NOT NULL, updated REAL NOT NULL, ended REAL NOT NULL DEFAULT 0,
    gone REAL NOT NULL DEFAULT 0, keep REAL NOT NULL,
    id TEXT NOT NULL UNIQUE, owner TEXT NOT NULL, key TEXT NOT NULL, fingerprint TEXT NOT NULL,
    result BLOB NOT NULL DEFAULT x'', error BLOB NOT NULL DEFAULT x'', checkpoint BLOB NOT NULL DEFAULT x'',
    payload BLOB NOT NULL, spec BLOB NOT NULL
);
CREATE UNIQUE INDEX tasks_key ON tasks (owner, key) WHERE key <> '';
CREATE INDEX tasks_owner ON tasks (owner, number) WHERE owner <> '';
CREATE INDEX tasks_ready ON tasks (kind, priority DESC, run_at) WHERE state = 0;
CREATE INDEX tasks_held ON tasks (kind, lease_until) WHERE state = 1;
CREATE INDEX tasks_delayed ON tasks (kind, run_at) WHERE state = 5;
CREATE INDEX tasks_ended ON tasks (gone, kind, state) WHERE gone > 0;
CREATE TABLE events (
    task INTEGER NOT NULL, seq INTEGER NOT NULL, at REAL NOT NULL, data BLOB NOT NULL, PRIMARY KEY (task, seq)
) WITHOUT ROWID;
"""

#: What an error of SQLite means to an operator, by the beginning of its name.
_MEANINGS: Final = {
    "SQLITE_FULL": "there is no space left for it; nothing was lost, and it goes on when there is",
    "SQLITE_BUSY": "another process has written to it for too long",
    "SQLITE_LOCKED": "another process has written to it for too long",
    "SQLITE_READONLY": "it can't be written to",
    "SQLITE_CORRUPT": "it is damaged: stop all that use it, and restore it from a copy or with `sqlite3 .recover`",
    "SQLITE_NOTADB": "it is not an SQLite file",
    "SQLITE_CANTOPEN": "it can't be opened",
    "SQLITE_IOERR": "reading or writing it has failed",
}
#: After these the connection is as good as before.
_HARMLESS: Final = ("SQLITE_FULL", "SQLITE_BUSY", "SQLITE_LOCKED")
#: These say that what was asked is at fault, not the file.
FIRST_OF_THEM: Final = (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.ProgrammingError, sqlite3.InterfaceError)


def connect(path: str) -> sqlite3.Connection:
    """Open the file, which is made if it is not there, for its user only.

    Raises:
        sqlite3.Error: It can't be.
        OSError: Its folder is not there, or not for this process.
    """
    make_private(path)
    # Not always the same thread, but never two at once. Who waits for other writers is `writer.py`.
    connection = sqlite3.connect(
        path, timeout=1.0, isolation_level=None, check_same_thread=False, cached_statements=256
    )
    try:
        (mode,) = when_free(lambda: connection.execute("PRAGMA journal_mode = WAL").fetchone(), _OTHERS)
        if mode != "wal":
            raise sqlite3.OperationalError(f"it can't be kept with a write-ahead log, only with {mode}")
        for pragma in (
            "synchronous = FULL",
            f"wal_autocheckpoint = {_CHECKPOINT}",
            f"journal_size_limit = {_KEPT}",
            f"cache_size = -{_CACHE}",
            "temp_store = MEMORY",
            "secure_delete = FAST",
        ):
            connection.execute(f"PRAGMA {pragma}").fetchall()
    except BaseException:
        connection.close()
        raise
    return connection


def prepare(connection: sqlite3.Connection, boot: str) -> None:
    """Make the tables, if nobody has, and end the leases of another boot of the machine.

    Args:
        connection: With the right to wait for others.
        boot: Names this boot: what was running in another one runs no more.

    Raises:
        ConfigError: The tables are of a newer version.
    """
    if connection.execute("PRAGMA user_version").fetchone() == (VERSION,) and _boot(connection) == boot:
        return  # who only reads need not wait for who writes
    connection.execute("BEGIN IMMEDIATE")
    try:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > VERSION:
            raise ConfigError(f"the journal's tables are of version {version}, and this Sojourn knows {VERSION}")
        if version < VERSION:
            if connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone():
                raise ConfigError("the journal's file holds something else: tasks need a file of their own")
            for statement in filter(str.strip, _TABLES.split(";")):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {VERSION}")
        if _boot(connection) != boot:
            connection.execute("INSERT OR REPLACE INTO meta VALUES ('boot', ?)", (boot,))
            # Claims are not forced to the disk (`writer.py`): the power may have gone with some, and their epochs are
            # not to be used again.
            connection.execute("UPDATE tasks SET lease_until = 0 WHERE state = 1")
            connection.execute("UPDATE tasks SET epoch = epoch + 1 WHERE state IN (0, 1, 5)")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def make_room(connection: sqlite3.Connection, path: str) -> None:
    """Make the log as long as it will become, if it is not: at best, for it only makes it faster.

    To flush what makes a file longer takes up to twice as long as to flush what is written over. The pages of a
    transaction that is too large for the cache are written to the log; it is undone, and they are written over.

    Args:
        connection: That writes.
        path: Of the file.
    """
    try:
        disk, length = os.statvfs(path), os.stat(f"{path}-wal").st_size
        if disk.f_bavail * disk.f_frsize < _SPARE or length >= _ROOM:
            return
        connection.execute("PRAGMA cache_size = 10").fetchall()
        try:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("CREATE TABLE room (zeros)")
            connection.execute("INSERT INTO room VALUES (zeroblob(?))", (_ROOM - length,))
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            connection.execute(f"PRAGMA cache_size = -{_CACHE}").fetchall()
    except (sqlite3.OperationalError, OSError):
        return  # somebody else writes; and if the disk is full or damaged, the next call says so


def _boot(connection: sqlite3.Connection) -> str | None:
    found = connection.execute("SELECT value FROM meta WHERE name = 'boot'").fetchone()
    return None if found is None else str(found[0])


def translated(error: sqlite3.Error | OSError, path: str) -> tuple[Exception, bool]:
    """What to raise in place of an error, and whether the connection can be kept.

    Args:
        error: What has happened.
        path: Of the file.
    """
    if isinstance(error, FIRST_OF_THEM) or (isinstance(error, sqlite3.Error) and _name(error) == "SQLITE_TOOBIG"):
        return ValueError(f"a task that can't be written down: {error}"), True
    name = _name(error)
    for beginning, meaning in _MEANINGS.items():
        if name.startswith(beginning):
            return JournalUnavailable(f"{path}: {meaning} ({error})"), beginning in _HARMLESS
    if isinstance(error, FileNotFoundError) and not Path(path).parent.is_dir():
        return JournalUnavailable(f"{path}: its folder is not there"), False
    return JournalUnavailable(f"{path}: {error}"), False


def _name(error: Exception) -> str:
    return str(getattr(error, "sqlite_errorname", ""))
