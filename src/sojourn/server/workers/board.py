"""What workers share: one row of numbers each, in memory that supervisor and workers map.

    header | row 0 | row 1 | ...                          counts, one writer each: its worker
           | addresses of row 0 | addresses of row 1 ...  who is connected, by hash (policy.addresses)

A row has one writer, so nothing is lost without a lock, and a worker that is killed takes nothing with it that others
need: clearing its row and its addresses is all there is to repair. An aligned word of eight bytes is read and written
whole, by one instruction on the processors we run on.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import sys
from collections.abc import Iterator
from enum import IntEnum
from typing import Final

from sojourn.errors import StartupError

__all__ = ["Board", "Row", "State"]

#: "SJNBOARD" in ASCII, and the version of the layout: a new supervisor must not misread the rows of an older one.
_MAGIC: Final = 0x534A4E424F415244
_VERSION: Final = 1
#: Words of the header; the secret takes two, and a row has eight.
_AT_MAGIC, _AT_VERSION, _AT_ROWS, _AT_ADDRESSES, _AT_EPOCH, _AT_SECRET = range(6)
_HEADER: Final = 8
_ROW: Final = 8
_WORD: Final = 8
#: Words of a row.
_PID, _STATE, _BEAT, _OPEN, _SERVED, _UNTRACKED = range(6)
#: Bytes an address takes: its hash and how often it is connected.
_ADDRESS: Final = 12
_PAGE: Final = mmap.PAGESIZE


class State(IntEnum):
    """How far a worker is."""

    #: The row is free.
    EMPTY = 0
    STARTING = 1
    READY = 2
    #: It ends; it may accept still, while its balancers look away.
    DRAINING = 3


_STATES: Final = tuple(State)


class Row:
    """One worker's numbers. The worker writes them; everybody may read them at any time."""

    __slots__ = ("_base", "_floats", "_ints", "index")

    def __init__(self, index: int, ints: memoryview[int], floats: memoryview[float]) -> None:
        #: Its place on the board.
        self.index = index
        self._ints = ints
        self._floats = floats
        self._base = _HEADER + index * _ROW

    @property
    def pid(self) -> int:
        """The worker's process; 0 before it is known."""
        return self._ints[self._base + _PID]

    @pid.setter
    def pid(self, value: int) -> None:
        self._ints[self._base + _PID] = value

    @property
    def state(self) -> State:
        """How far the worker is; the supervisor sets the first and the last one, by ``claim`` and ``free``."""
        return _STATES[self._ints[self._base + _STATE]]  # State(...) takes half a microsecond

    @state.setter
    def state(self, value: State) -> None:
        self._ints[self._base + _STATE] = value

    @property
    def beat(self) -> float:
        """When its event loop last gave a sign of life, in monotonic seconds of this machine; 0 before the first."""
        return self._floats[self._base + _BEAT]

    @beat.setter
    def beat(self, value: float) -> None:
        self._floats[self._base + _BEAT] = value

    @property
    def open(self) -> int:
        """Connections it has admitted that are open."""
        return self._ints[self._base + _OPEN]

    @open.setter  # noqa: A003 - the property of this name
    def open(self, value: int) -> None:
        self._ints[self._base + _OPEN] = value

    @property
    def served(self) -> int:
        """Requests it has served."""
        return self._ints[self._base + _SERVED]

    @served.setter
    def served(self, value: int) -> None:
        self._ints[self._base + _SERVED] = value

    @property
    def untracked(self) -> int:
        """Addresses its siblings were never told of, because the table had no place for them; they all, ever."""
        return self._ints[self._base + _UNTRACKED]

    @untracked.setter
    def untracked(self, value: int) -> None:
        self._ints[self._base + _UNTRACKED] = value


class Board:
    """The rows of all workers. Made by :meth:`create` in the supervisor and by :meth:`attach` in its workers.

    Attributes:
        fd: The memory, to be passed to workers and to a new supervisor. Not inheritable unless passed.
    """

    __slots__ = ("_floats", "_ints", "_memory", "_rows", "fd")

    def __init__(self, fd: int) -> None:
        """Use ``create`` or ``attach``."""
        self.fd = fd
        self._memory = mmap.mmap(fd, 0)
        view = memoryview(self._memory)
        words = view[: len(view) // _WORD * _WORD]
        self._ints = words.cast("q")
        self._floats = words.cast("d")
        self._rows = tuple(Row(index, self._ints, self._floats) for index in range(self._ints[_AT_ROWS]))

    @classmethod
    def create(cls, rows: int = 64, addresses: int = 32768) -> Board:
        """Make a board of empty rows.

        Args:
            rows: Processes that may have one at the same time: during a restart old and new ones.
            addresses: Different addresses of one worker that its siblings can know of; a multiple of 16,384, so that
                tables are whole pages. Memory is used for those that are connected only.
        """
        if rows < 1 or addresses < 1 or addresses % 16384:
            raise ValueError(f"a board can't have {rows} rows of {addresses} addresses")
        fd = os.memfd_create("sojourn-board", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(fd, _first_address(rows) + rows * addresses * _ADDRESS)
        # Nobody can make it shorter: touching what is gone would be a bus error in everyone.
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
        secret = os.urandom(2 * _WORD)
        os.pwrite(fd, secret, _AT_SECRET * _WORD)
        for word, value in ((_AT_ROWS, rows), (_AT_ADDRESSES, addresses), (_AT_VERSION, _VERSION), (_AT_MAGIC, _MAGIC)):
            os.pwrite(fd, value.to_bytes(_WORD, sys.byteorder), word * _WORD)
        return cls(fd)

    @classmethod
    def attach(cls, fd: int) -> Board:
        """Map the board behind an inherited descriptor, which is the board's from now on.

        Raises:
            StartupError: It is no board, or one of another version of Sojourn.
        """
        try:
            os.set_inheritable(fd, False)
            size = os.fstat(fd).st_size
            head = memoryview(os.pread(fd, _HEADER * _WORD, 0))
        except OSError as error:
            raise StartupError(f"the board of the workers can't be read: {error.strerror}") from error
        words = head.cast("q") if len(head) == _HEADER * _WORD else None
        if words is None or words[_AT_MAGIC] != _MAGIC:
            raise StartupError(f"file descriptor {fd} is no board of workers")
        right_size = _first_address(words[_AT_ROWS]) + words[_AT_ROWS] * words[_AT_ADDRESSES] * _ADDRESS
        if words[_AT_VERSION] != _VERSION or size != right_size:
            raise StartupError(
                f"the board of the workers has layout {words[_AT_VERSION]}, this version of Sojourn reads {_VERSION}: "
                "restart instead of upgrading"
            )
        return cls(fd)

    @property
    def epoch(self) -> int:
        """Changes with each row that is claimed or freed."""
        return self._ints[_AT_EPOCH]

    @property
    def secret(self) -> bytes:
        """Key of the hashes of addresses; another one for each board."""
        return self._memory[_AT_SECRET * _WORD : (_AT_SECRET + 2) * _WORD]

    def claim(self) -> Row:
        """Give a worker that is about to be started a row. For the supervisor.

        Raises:
            StartupError: All are in use.
        """
        for row in self._rows:
            if row.state is State.EMPTY:
                self._clear(row)
                row.state = State.STARTING
                self._ints[_AT_EPOCH] += 1
                return row
        raise StartupError(f"no more than {len(self._rows)} worker processes can run at the same time")

    def free(self, row: Row) -> None:
        """Take back the row of a process that has ended, with all it counted. For the supervisor."""
        self._clear(row)
        self._ints[_AT_EPOCH] += 1

    def row(self, index: int) -> Row:
        """The row at a place, in use or not."""
        return self._rows[index]

    def addresses(self, row: Row) -> memoryview:
        """The memory of a row's table of addresses."""
        start, size = self._table(row)
        return memoryview(self._memory)[start : start + size]

    def close(self) -> None:
        """Close the descriptor; the memory stays mapped while a row of it is held."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Row]:
        """The rows in use."""
        return iter([row for row in self._rows if row.state is not State.EMPTY])

    def _clear(self, row: Row) -> None:
        base = (_HEADER + row.index * _ROW) * _WORD
        self._memory[base : base + _ROW * _WORD] = bytes(_ROW * _WORD)
        start, size = self._table(row)
        # Gives the pages back; they read as zeros.
        self._memory.madvise(mmap.MADV_REMOVE, start, size)

    def _table(self, row: Row) -> tuple[int, int]:
        """Where a row's addresses begin, and how many bytes they take."""
        size = self._ints[_AT_ADDRESSES] * _ADDRESS
        return _first_address(len(self._rows)) + row.index * size, size


def _first_address(rows: int) -> int:
    """Where the tables begin: on a page of their own, so that they can be given back by the page."""
    return -(-(_HEADER + rows * _ROW) * _WORD // _PAGE) * _PAGE
