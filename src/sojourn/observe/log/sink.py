"""One output of the log: a file descriptor, the format of its lines, and what went missing on the way there."""

from __future__ import annotations

import os
import select
import stat
from collections.abc import Callable
from typing import Any, Literal, Protocol

from sojourn.errors import ConfigError

__all__ = ["Cause", "Form", "Sink", "complain"]

#: A write of at most this many bytes to a pipe is not mixed with another process's (POSIX PIPE_BUF on Linux).
_ATOMIC = 4096
#: Milliseconds between two looks at a reader that set the descriptor to non-blocking and is slow.
_RETRY = 100


#: Why lines are missing: the ring was full, or the output refused them.
Cause = Literal["dropped", "unwritten"]


class Form(Protocol):
    """How lines look."""

    def line(self, when: float, payload: Any) -> bytes:
        """The line of one payload, line feed included; ``b""`` when it is not to be written."""

    def gap(self, when: float, count: int, cause: Cause) -> bytes:
        """A line that says how many are missing here."""


def complain(text: str, *, fd: int = 2) -> None:
    """Tell the operator on standard error, unless that would have to wait. Never raises."""
    try:
        poll = select.poll()
        poll.register(fd, select.POLLOUT)
        if any(ready & select.POLLOUT for _, ready in poll.poll(0)):
            os.write(fd, f"sojourn: {text}\n".encode("utf-8", "backslashreplace")[:_ATOMIC])
    except OSError:
        pass  # standard error is closed or broken: nobody is left to tell; the counters of the sink still do


class Sink:
    """Writes the lines of one output. All but ``dropped`` belongs to the ring's writer thread.

    Errors never leave it: lines that can't be written are counted, the first error is told on standard error, and the
    next write that works is preceded by a line about the gap.

    Args:
        form: How lines look.
        name: What to call it in a complaint, such as ``access log``.
        fd: Where to write; None opens ``path``.
        path: A file to append to; it is created with mode 640, because it holds addresses of people.
        complain: Called with a text about the first error; for tests.

    Raises:
        ConfigError: The file can't be opened.

    Attributes:
        dropped: Lines that found the ring full.
        unwritten: Lines lost to errors of ``write``.
        errors: Errors of ``write``.
        failed: Lines that could not be formatted; each is a bug.
    """

    __slots__ = (
        "_complain", "_complained", "_fd", "_form", "_limit", "_name", "_path", "_telling", "_told_dropped",
        "_told_unwritten", "_torn", "_when", "dropped", "errors", "failed", "unwritten",
    )  # fmt: skip

    def __init__(
        self,
        form: Form,
        name: str,
        *,
        fd: int | None = None,
        path: str | None = None,
        complain: Callable[[str], None] = complain,
    ) -> None:
        self._form = form
        self._name = name
        self._path = path if fd is None else None
        self._complain = complain
        self._complained = False
        self._fd = -1
        self._torn = False
        self._when = 0.0
        self._telling: int | None = None
        self._told_dropped = 0
        self._told_unwritten = 0
        self.dropped = 0
        self.unwritten = 0
        self.errors = 0
        self.failed = 0
        if fd is None:
            try:
                fd = self._open()
            except OSError as error:
                raise ConfigError(f"can't be opened: {error.strerror}: {path}", key="log.file") from error
        self._use(fd)

    def render(self, when: float, payload: Any) -> bytes:
        """The line of one payload; ``b""`` when it is not wanted or its format failed."""
        self._when = when
        try:
            return self._form.line(when, payload)
        except Exception as error:  # noqa: BLE001 - a bug in a format must not end the thread and with it all logging
            self.failed += 1
            self._once(f"{self._name}: a line could not be formatted: {error!r}; please report it")
            return b""

    def gap(self, when: float, dropped: int) -> bytes:
        """A line about what the ring had dropped by then and no written line has told; ``b""`` when nothing."""
        if dropped == self._told_dropped:
            return b""
        self._telling = dropped
        return self._form.gap(when, self._telling - self._told_dropped, "dropped")

    def write(self, data: bytes) -> None:
        """Write whole lines, in one call to a file and in pieces that stay whole to a pipe. Waits for a slow reader."""
        head = b"\n" if self._torn else b""
        told = self.unwritten
        if told > self._told_unwritten:
            head += self._form.gap(self._when, told - self._told_unwritten, "unwritten")
        data = head + data
        done = 0
        try:
            while done < len(data):
                try:
                    done += os.write(self._fd, data[done : self._end(data, done)])
                except BlockingIOError:
                    self._wait()
        except OSError as error:
            self.errors += 1
            # A line about dropped lines is not a lost line: it is told again.
            self.unwritten += data.count(b"\n", max(done, len(head))) - (self._telling is not None)
            self._torn = data[done - 1] != 0x0A if done else self._torn
            self._once(f"{self._name} can't be written: {error.strerror}; lines are lost and counted until it can")
        else:
            self._torn = False
            self._told_unwritten = told
            self._told_dropped = self._told_dropped if self._telling is None else self._telling
        self._telling = None

    def reopen(self) -> None:
        """Open the path anew, because the file was renamed; keep the old file when that fails. A descriptor stays."""
        if self._path is None:
            return
        try:
            fd = self._open()
        except OSError as error:
            self.errors += 1
            self._complain(f"{self._name} can't be reopened: {error.strerror}: {self._path}; the old file is kept")
            return
        self.close()
        self._use(fd)

    def close(self) -> None:
        """Close the file that was opened here. A descriptor that was given stays open."""
        if self._path is not None:
            os.close(self._fd)
            self._fd = -1

    def _open(self) -> int:
        assert self._path is not None
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY, 0o640)

    def _use(self, fd: int) -> None:
        self._fd = fd
        self._torn = False
        try:
            regular = stat.S_ISREG(os.fstat(fd).st_mode)
        except OSError:  # not open: the first write says so
            regular = True
        self._limit = 1 << 62 if regular else _ATOMIC

    def _end(self, data: bytes, start: int) -> int:
        """Where the next call's piece ends: behind the last line it has room for, or inside one that is too long."""
        limit = start + self._limit
        if limit >= len(data):
            return len(data)
        return data.rfind(b"\n", start, limit) + 1 or limit

    def _wait(self) -> None:
        """Wait until a non-blocking descriptor takes bytes again."""
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        poll.poll(_RETRY)

    def _once(self, text: str) -> None:
        if not self._complained:
            self._complained = True
            self._complain(text)
