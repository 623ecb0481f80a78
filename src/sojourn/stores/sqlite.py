"""What is done to a file of SQLite beside SQLite."""

from __future__ import annotations

import os
import threading

__all__ = ["make_private"]


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
