"""What workers count, in memory that the supervisor maps as well: it reads what a worker that hangs has counted.

    header | block of row 0 | block of row 1 | ... | block of the ended
    block:   used | series | series | ...

A series is its name (family and label values) and its numbers, floats of eight bytes. Series are only ever appended, so
that a reader needs no lock: it reads what lies below ``used``, which is moved when a series is complete. A block has
one writer, its worker; that of the ended belongs to the supervisor, which adds up there what workers leave behind, so
that no counter ever goes down. A block takes memory only as far as it is used.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
import sys
from collections.abc import Iterator, Sequence
from typing import Final

from sojourn.errors import StartupError
from sojourn.observe.metrics.families import TABLE, Family, Kind, Rest

__all__ = ["Block", "Key", "MetricsMemory"]

#: Family and label values of a series.
Key = tuple[Family, tuple[str, ...]]

#: "SJNMETRC" in ASCII, and the version of the layout. What a series counts is written beside it, so another table of
#: families is no other layout.
_MAGIC: Final = 0x534A4E4D45545243
_VERSION: Final = 1
_WORD: Final = 8
#: The header has a page, so that blocks can be mapped one by one: magic, version, rows, size of a block.
_HEADER: Final = mmap.PAGESIZE
_HEADER_WORDS: Final = struct.Struct("=4Q")
#: Bytes of a block. Three families of a thousand series with long names fit.
_BLOCK: Final = 1024 * 1024
#: At its end: kept for series named ``other``, and behind them numbers that nobody reads.
_RESERVE: Final = 64 * 1024
_NOWHERE: Final = _BLOCK - 1024
#: Before each series: bytes of its name, and how many numbers follow.
_SERIES: Final = struct.Struct("=II")
#: Characters of a label value; a longer one is cut.
_LONGEST: Final = 160
_OTHER: Final = "other"


class Block:
    """What one process counts.

    Args:
        memory: Its memory; what is there already is counted on.
    """

    __slots__ = ("_counts", "_memory", "_places", "_read", "_words", "values")

    def __init__(self, memory: mmap.mmap) -> None:
        self._memory = memory
        self._words = memoryview(memory).cast("Q")
        #: The numbers, by their place. Hot paths add to them directly.
        self.values = memoryview(memory).cast("d")
        self._places: dict[Key, int] = {}
        self._counts: dict[str, int] = {}
        #: What was parsed of it so far: where it ends, and the series with their places.
        self._read: tuple[int, list[tuple[Key, int]]] = (_WORD, [])
        for key, place in self._series():
            self._places.setdefault(key, place)
            self._counts[key[0].name] = self._counts.get(key[0].name, 0) + 1

    def place(self, family: Family, labels: tuple[str, ...] = ()) -> int:
        """Where the first number of a series is, in :attr:`values`; the series is made if there is none.

        Args:
            family: Which.
            labels: A value for each of its labels. When the family has all the series it may have, those that are not
                empty become ``other``.
        """
        found = self._places.get((family, labels))
        if found is not None:
            return found
        if len(labels) != len(family.labels):
            raise ValueError(f"{family.name} has the labels {family.labels}, not {len(labels)}")
        labels = tuple(_clean(value) for value in labels)
        reserve = _RESERVE
        if self._counts.get(family.name, 0) >= family.most or self._room(family, labels) < reserve:
            labels, reserve = tuple(_OTHER if value else "" for value in labels), 0
        found = self._places.get((family, labels))
        if found is not None:
            return found
        if self._room(family, labels) < reserve:
            return _NOWHERE // _WORD
        return self._append(family, labels)

    def _room(self, family: Family, labels: tuple[str, ...]) -> int:
        """Bytes that are left when this series has come."""
        return _NOWHERE - int(self._words[0] or _WORD) - _size(len(_name(family, labels)), family.width)

    def _append(self, family: Family, labels: tuple[str, ...]) -> int:
        name = _name(family, labels)
        start = int(self._words[0] or _WORD)
        self._memory[start + _SERIES.size : start + _SERIES.size + len(name)] = name
        _SERIES.pack_into(self._memory, start, len(name), family.width)
        end = start + _size(len(name), family.width)
        self._words[0] = end  # only now: whoever reads meanwhile sees nothing that is half done
        self._counts[family.name] = self._counts.get(family.name, 0) + 1
        self._places[family, labels] = place = end // _WORD - family.width
        return place

    def read(self) -> Iterator[tuple[Key, Sequence[float]]]:
        """The series with their numbers, as they are now. For any process, at any time."""
        for key, place in self._series():
            yield key, self.values[place : place + key[0].width].tolist()

    def _series(self) -> list[tuple[Key, int]]:
        """The series with their places; those of families that this version does not know are left out."""
        end = min(int(self._words[0] or _WORD), _NOWHERE)
        at, found = self._read
        if end < at:  # it was cleared, and belongs to another process now
            at, found = _WORD, []
        if at < end:
            found = list(found)  # two threads may read at the same time: neither adds to what the other has
        while at + _SERIES.size <= end:
            length, width = _SERIES.unpack_from(self._memory, at)
            following = at + _size(length, width)
            if following > end:
                break
            words = bytes(self._memory[at + _SERIES.size : at + _SERIES.size + length]).decode(errors="replace")
            name, *labels = words.split("\0")
            family = TABLE.get(name)
            if family is not None and family.width == width and len(labels) == len(family.labels):
                found.append(((family, tuple(labels)), following // _WORD - width))
            at = following
        self._read = at, found
        return found

    def add(self, other: Block) -> None:
        """Take over what a process has counted that has ended."""
        for key, numbers in other.read():
            family = key[0]
            if family.kind is Kind.GAUGE and family.rest is Rest.DROP:
                continue
            place = self.place(*key)
            if family.rest is Rest.LAST:
                self.values[place] = numbers[0]
                continue
            for index, number in enumerate(numbers, place):
                self.values[index] += number

    def clear(self) -> None:
        """Forget everything, and give the memory back."""
        self._words[0] = 0
        self._places.clear()
        self._counts.clear()
        self._read = (_WORD, [])
        self._memory.madvise(mmap.MADV_REMOVE, 0, _BLOCK)


class MetricsMemory:
    """The blocks of all workers.

    Args:
        fd: Descriptor of the memory, which is the object's from now on; -1 for memory of this process alone.
        rows: How many workers may be there at the same time.
    """

    def __init__(self, fd: int, rows: int) -> None:
        self.fd = fd
        self.rows = rows
        self._blocks: dict[int, Block] = {}

    @classmethod
    def create(cls, rows: int) -> MetricsMemory:
        """Make memory for so many rows of the board.

        Raises:
            OSError: There is none.
        """
        fd = os.memfd_create("sojourn-metrics", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(fd, _HEADER + (rows + 1) * _BLOCK)
        # Nobody can make it shorter: touching what is gone would be a bus error in everyone.
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
        os.pwrite(fd, _HEADER_WORDS.pack(_MAGIC, _VERSION, rows, _BLOCK), 0)
        return cls(fd, rows)

    @classmethod
    def attach(cls, fd: int) -> MetricsMemory:
        """Use the memory behind an inherited descriptor.

        Raises:
            StartupError: It is none, or of a version of Sojourn with another layout.
        """
        try:
            os.set_inheritable(fd, False)
            size = os.fstat(fd).st_size
            head = os.pread(fd, _HEADER_WORDS.size, 0)
        except OSError as error:
            raise StartupError(f"the memory of the metrics can't be read: {error.strerror}") from error
        words = _HEADER_WORDS.unpack(head) if len(head) == _HEADER_WORDS.size else (0, 0, 0, 0)
        magic, version, rows, block = words
        if magic != _MAGIC:
            raise StartupError(f"file descriptor {fd} is no memory of metrics")
        if version != _VERSION or block != _BLOCK or size != _HEADER + (rows + 1) * _BLOCK:
            raise StartupError(
                f"the memory of the metrics has layout {version}, this version of Sojourn reads {_VERSION}"
            )
        return cls(fd, rows)

    @classmethod
    def alone(cls) -> MetricsMemory:
        """Memory of a process that serves without workers; it has one row."""
        return cls(-1, 1)

    def block(self, row: int) -> Block:
        """The block of a row of the board."""
        if not 0 <= row <= self.rows:
            raise IndexError(f"there is no row {row}")
        block = self._blocks.get(row)
        if block is None:
            if self.fd < 0:
                memory = mmap.mmap(-1, _BLOCK)
            else:
                memory = mmap.mmap(self.fd, _BLOCK, offset=_HEADER + row * _BLOCK)
            block = self._blocks[row] = Block(memory)
        return block

    @property
    def ended(self) -> Block:
        """What workers that have ended left behind, and what the supervisor counts itself."""
        return self.block(self.rows)

    def retire(self, row: int) -> None:
        """The worker of a row has ended: its counters are kept, and the row is free. For the supervisor."""
        block = self.block(row)
        self.ended.add(block)
        block.clear()

    def close(self) -> None:
        """Close the descriptor; blocks that are held stay mapped."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def _name(family: Family, labels: tuple[str, ...]) -> bytes:
    return "\0".join((family.name, *labels)).encode(sys.getdefaultencoding(), "replace")


def _size(name: int, width: int) -> int:
    """Bytes of a series: its name is padded to whole words."""
    return _SERIES.size + -(-name // _WORD) * _WORD + width * _WORD


def _clean(value: str) -> str:
    """A label value as it may be written: the same in every process that reads it."""
    return value[:_LONGEST].replace("\0", "").encode("utf-8", "replace").decode("utf-8")
