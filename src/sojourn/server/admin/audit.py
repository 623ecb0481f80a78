"""Who told the server what: one line of JSON for each command, written before the command is carried out.

What can't be recorded is not done. So the line is there first, with ``"result": "unfinished"`` and room behind it; the
result is written over that. A line that stays unfinished is a command during which the process died.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from sojourn.clock import Clock
from sojourn.errors import ErrandError

__all__ = ["Audit", "Entry"]

#: Room for the result in bytes, as JSON text.
_ROOM: Final = 200
_UNFINISHED: Final = "unfinished"


class Entry:
    """The line of one command.

    Args:
        fd: The file; None when nothing is recorded.
        at: Where the result stands in it.
    """

    __slots__ = ("_at", "_fd")

    def __init__(self, fd: int | None = None, at: int = 0) -> None:
        self._fd = fd
        self._at = at

    def end(self, result: str) -> None:
        """Say what came of it; nothing happens the second time.

        Args:
            result: ``ok``, or why not; cut at about 190 bytes.
        """
        fd, self._fd = self._fd, None
        if fd is not None:
            try:
                os.pwrite(fd, _padded(result), self._at)
            except OSError:
                pass  # the line says "unfinished", which is what can be known from it
            finally:
                os.close(fd)


class Audit:
    """Appends to ``admin.audit``. The file is opened for each command, so it may be renamed at any time.

    Args:
        path: The file; None records nothing.
        clock: Its ``wall`` stamps the lines.
    """

    def __init__(self, path: str | None, clock: Clock) -> None:
        self._path = path
        self._clock = clock

    def begin(self, who: str, what: str, facts: Mapping[str, Any]) -> Entry:
        """Record a command that is about to be carried out.

        Args:
            who: Who gave it.
            what: Its name.
            facts: Its arguments, or what it changes from what to what.

        Raises:
            ErrandError: It can't be recorded.
        """
        if self._path is None:
            return Entry()
        time = datetime.fromtimestamp(self._clock.wall(), UTC).isoformat(timespec="milliseconds")
        known = {"time": time.replace("+00:00", "Z"), "who": who, "what": what, **facts}
        head = msgspec.json.encode(known)[:-1] + b',"result":'
        line = head + _padded(_UNFINISHED) + b"}\n"
        try:
            fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
            try:
                return Entry(fd, _append(fd, line) + len(head))
            except BaseException:
                os.close(fd)
                raise
        except OSError as error:
            detail = f"nothing was done, because it can't be recorded in admin.audit: {error.strerror or error}"
            raise ErrandError(503, "not_recorded", detail) from error


def _append(fd: int, line: bytes) -> int:
    """Write a line at the end; where it begins."""
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        raise OSError("it is no regular file")
    fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # a supervisor and its successor may both be writing
    try:
        begin = os.lseek(fd, 0, os.SEEK_END)
        if os.write(fd, line) != len(line):
            os.ftruncate(fd, begin)
            raise OSError("the disk is full")
        return begin
    finally:
        fcntl.lockf(fd, fcntl.LOCK_UN)


def _padded(result: str) -> bytes:
    """A result as JSON text of a fixed length, spaces behind it."""
    while len(text := msgspec.json.encode(result)) > _ROOM:
        result = result[: len(result) - max(1, (len(text) - _ROOM) // 6)]  # a character takes six bytes at most
    return text.ljust(_ROOM)
