"""What is done to a file of SQLite beside SQLite, and waiting for others where SQLite does not."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable
from typing import Final, TypeVar

from sojourn.clock import SystemClock

__all__ = ["is_busy", "make_private", "when_free"]

T = TypeVar("T")

#: Seconds between two tries, at first and at most. SQLite's own wait sleeps up to a tenth of a second at a time.
_FIRST: Final = 0.0003
_LONGEST: Final = 0.004
_now: Final = SystemClock.monotonic


def is_busy(error: Exception) -> bool:
    """Whether others use the file just now."""
    return str(getattr(error, "sqlite_errorname", "")).startswith("SQLITE_BUSY")


def when_free(do: Callable[[], T], seconds: float) -> T:
    """Do something, again and again while others use the file. In a thread of its own.

    SQLite does not wait where two might wait for each other, such as for the change to a write-ahead log.

    Args:
        do: What to do.
        seconds: For how long to try.

    Raises:
        sqlite3.OperationalError: It can't be done, or others have used the file for so long.
    """
    pause, limit = _FIRST, 0.0
    while True:
        try:
            return do()
        except sqlite3.OperationalError as error:
            limit = limit or _now() + seconds
            if not is_busy(error) or _now() >= limit:
                raise
        threading.Event().wait(pause)
        pause = min(pause * 1.5, _LONGEST)


def make_private(path: str) -> None:
    """Make an empty file for its user only, unless it is there, before SQLite does: its other files get the same mode.

    It is closed before it has its name. Whoever closes a file loses all locks of POSIX that its process has on it, also
    those of other connections, and SQLite would take it for unused.

    Args:
        path: Of the file.

    Raises:
        OSError: It can't be made.

    Source: https://www.sqlite.org/howtocorrupt.html section 2.2.
    """
    if os.path.exists(path):
        return
    new = f"{path}.{os.getpid()}.{threading.get_ident()}.new"
    os.close(os.open(new, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    try:
        os.link(new, path)
    except FileExistsError:
        return  # somebody else was faster
    finally:
        os.unlink(new)
