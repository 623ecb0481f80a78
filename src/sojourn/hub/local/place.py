"""Where the broker of a host is, and who may be it."""

from __future__ import annotations

import fcntl
import os
import secrets
import socket
import stat
from collections.abc import Mapping
from typing import Final

from sojourn.errors import ConfigError

__all__ = ["VARIABLE", "Place", "bound", "connected", "from_environment", "new_name"]

#: Names the broker of the supervisor to its workers. It is no key of the configuration: those begin with SOJOURN_.
VARIABLE: Final = "_SOJOURN_BROKER"
#: Bytes of a path: ``sun_path`` of unix(7), with its end.
_LONGEST: Final = 107


def new_name() -> str:
    """An address that no other has, and that leaves no file behind: of the abstract namespace of Linux."""
    return f"@sojourn-broker-{secrets.token_hex(12)}"


def from_environment(environ: Mapping[str, str]) -> str | None:
    """The address of the supervisor's broker; None when there is none."""
    return environ.get(VARIABLE) or None


def _address(name: str) -> str:
    """A name as the socket calls take it."""
    return "\0" + name[1:] if name.startswith("@") else name


def connected(name: str) -> socket.socket:
    """A socket that is connected to who listens there. It waits for nothing.

    Raises:
        OSError: Nobody does, or as many wait already as may.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.connect(_address(name))  # a local socket connects at once or not at all (unix(7))
    except BaseException:
        sock.close()
        raise
    return sock


def bound(name: str) -> socket.socket:
    """A socket that is bound there.

    Raises:
        OSError: It can't be.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.bind(_address(name))
        if not name.startswith("@"):
            os.chmod(name, 0o600)
    except BaseException:
        sock.close()
        raise
    return sock


class Place:
    """A path at which one process of several is the broker: whoever holds the lock.

    Args:
        path: Of the socket; the lock is a file beside it, which stays.

    Raises:
        ConfigError: The path is too long.
    """

    def __init__(self, path: str) -> None:
        if len(os.fsencode(path)) > _LONGEST:
            raise ConfigError(f"the path of a socket has at most {_LONGEST} bytes: {path}")
        self.path = path
        self._lock = -1

    def claim(self) -> socket.socket | None:
        """Become the broker: a bound socket; None when another process is it.

        Raises:
            OSError: Neither is possible there.
        """
        lock = os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return None
        except BaseException:
            os.close(lock)
            raise
        try:
            self._remove()  # of a broker that was killed: a living one would hold the lock
            sock = bound(self.path)
        except BaseException:
            os.close(lock)
            raise
        self._lock = lock
        return sock

    def release(self) -> None:
        """Be it no more. Calling it again does nothing."""
        if self._lock >= 0:
            try:
                self._remove()
            finally:
                os.close(self._lock)
                self._lock = -1

    def _remove(self) -> None:
        try:
            if stat.S_ISSOCK(os.lstat(self.path).st_mode):
                os.unlink(self.path)
        except FileNotFoundError:
            pass  # nobody was there before
