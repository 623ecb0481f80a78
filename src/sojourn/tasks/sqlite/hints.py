"""What nodes of one host tell each other: datagrams, sent after a transaction and never waited for.

A node that listens has a Unix socket in the folder of `nodes.py`. One that can't keep up is told later that it has
missed something. Nothing is lost without them: a node looks for itself as well.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

__all__ = ["Hint", "Mouth", "bound", "drained"]

_SOCKET: Final = ".sock"
#: Ids in one datagram; datagrams taken in one turn of the event loop; and bytes of the largest one.
_IDS: Final = 500
_TURN: Final = 100
_BYTES: Final = 1 << 18
#: Characters that an address of a Unix socket may have.
_ADDRESS: Final = 100


class Hint(msgspec.Struct, frozen=True, array_like=True):
    """What one transaction has done.

    Attributes:
        due: Something may be claimable.
        changed: Ids.
        cancelled: Ids.
        missed: Some hints could not be sent.
    """

    due: bool = False
    changed: list[str] = []
    cancelled: list[str] = []
    missed: bool = False


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(Hint).decode
_MISSED: Final = _encode(Hint(missed=True))


@contextmanager
def _short(folder: Path, name: str) -> Iterator[str]:
    """The address of a socket in a folder: as long as it may be, which paths often are not."""
    path = str(folder / name)
    if len(os.fsencode(path)) <= _ADDRESS or not os.path.isdir("/proc/self/fd"):
        yield path
        return
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}/{name}"
    finally:
        os.close(fd)


def bound(folder: Path, stem: str) -> socket.socket:
    """A socket that hears hints.

    Raises:
        OSError: There can't be one.
    """
    ear = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        ear.setblocking(False)
        path = folder / f"{stem}{_SOCKET}"
        path.unlink(missing_ok=True)
        with _short(folder, path.name) as address:
            ear.bind(address)
        path.chmod(0o600)
    except BaseException:
        ear.close()
        raise
    return ear


def drained(ear: socket.socket) -> list[Hint]:
    """What has come, some of it."""
    hints = []
    for _ in range(_TURN):
        try:
            hints.append(_decode(ear.recv(_BYTES)))
        except (BlockingIOError, InterruptedError):
            break
        except (OSError, msgspec.DecodeError):
            hints.append(Hint(missed=True))
            break
    return hints


class Mouth:
    """Sends hints to all other nodes that listen. Used by one thread.

    Args:
        folder: Where their sockets are.
        stem: Of the own one.
    """

    def __init__(self, folder: Path, stem: str) -> None:
        self._folder = folder
        self._own = f"{stem}{_SOCKET}"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        #: Text: it is looked at after each transaction.
        self._place = str(folder)
        self._names: list[str] = []
        self._seen = 0
        #: Those that could not take a hint, and do not know yet.
        self._behind: set[str] = set()

    def tell(self, hint: Hint) -> None:
        """Send it, in parts if it is long."""
        names = self._peers()
        if not names:
            return
        parts = [_encode(part) for part in _parts(hint)]
        for name in names:
            if name in self._behind:
                self._send(name, _MISSED)
            elif not all(self._send(name, part) for part in parts):
                self._behind.add(name)

    def catch_up(self) -> None:
        """Tell those that have missed something."""
        self._seen = 0  # two changes of a folder may have the same time
        for name in list(self._behind):
            self._send(name, _MISSED)

    def close(self) -> None:
        """Say no more."""
        self._socket.close()

    def _peers(self) -> list[str]:
        try:
            changed = os.stat(self._place).st_mtime_ns
            if changed != self._seen:
                names = os.listdir(self._place)
                self._names = [name for name in names if name.endswith(_SOCKET) and name != self._own]
                self._seen = changed
        except OSError:  # the folder was removed
            return []
        return self._names

    def _send(self, name: str, data: bytes) -> bool:
        """Returns False when it can't take any at present."""
        try:
            with _short(self._folder, name) as address:
                self._socket.sendto(data, address)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            if isinstance(error, ConnectionRefusedError | FileNotFoundError):
                self._behind.discard(name)  # it is gone; who finds it dead removes its files
                return True
            return False
        if data is _MISSED:
            self._behind.discard(name)
        return True


def _parts(hint: Hint) -> Iterator[Hint]:
    long = max(len(hint.changed), len(hint.cancelled), 1)
    for begin in range(0, long, _IDS):
        end = begin + _IDS
        yield Hint(hint.due and not begin, hint.changed[begin:end], hint.cancelled[begin:end], hint.missed)
