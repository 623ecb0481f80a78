"""Who is connected how often, in memory that others read while it is written.

One writer, any number of readers, no lock. An address is known by a hash of eight bytes, keyed so that nobody can
choose addresses that meet. The hash names a bucket, and an address stands in its own bucket or nowhere: nothing is ever
moved, so a reader misses nobody who stays, and taking one out leaves no trace that would make later searches longer.

    buckets of 32 hashes, 8 bytes each | their counts, 4 bytes each

With half of all cells taken, about one new address in 3,600 finds its bucket full, with three quarters one in fourteen.
It is not recorded then, and the writer is told.
"""

from __future__ import annotations

from typing import Final

__all__ = ["AddressTable"]

#: Cells of a bucket. More make a full bucket rarer and a search longer; 32 hashes are four cache lines.
BUCKET: Final = 32
_HASH: Final = 8
_NONE: Final = bytes(_HASH)


class AddressTable:
    """A table in someone's memory; zeros are an empty one.

    Args:
        memory: Twelve bytes for each cell, a multiple of 32 of them.
    """

    __slots__ = ("_buckets", "_counts", "_hashes")

    def __init__(self, memory: memoryview) -> None:
        cells, rest = divmod(len(memory), _HASH + 4)
        if cells < BUCKET or cells % BUCKET or rest:
            raise ValueError(f"no table of addresses fits in {len(memory)} bytes")
        self._buckets = cells // BUCKET
        self._hashes = memory[: cells * _HASH]
        self._counts: memoryview[int] = memory[cells * _HASH :].cast("I")

    def count(self, hashed: bytes) -> int:
        """How often an address is connected."""
        cell = self._find(hashed, hashed)
        if cell < 0:
            return 0
        count = self._counts[cell]
        # Its writer may have given the cell to another address between the two looks.
        return count if self._hashes[cell * _HASH : (cell + 1) * _HASH] == hashed else 0

    def enter(self, hashed: bytes, count: int) -> int | None:
        """Record an address that is not in the table. For the writer.

        Args:
            hashed: Eight bytes, not all of them zero.
            count: How often it is connected.

        Returns:
            Its cell; None when its bucket is full and it is not recorded.
        """
        cell = self._find(hashed, _NONE)
        if cell < 0:
            return None
        self._counts[cell] = count  # first, so that no reader takes the old number for the address's
        self._hashes[cell * _HASH : (cell + 1) * _HASH] = hashed
        return cell

    def change(self, cell: int, count: int) -> None:
        """Record that the address in a cell is connected so often; zero takes it out. For the writer."""
        if count == 0:
            self._hashes[cell * _HASH : (cell + 1) * _HASH] = _NONE
        self._counts[cell] = count

    def _find(self, hashed: bytes, wanted: bytes) -> int:
        """The first cell of the address's bucket that holds the wanted hash; below zero when none does."""
        first = int.from_bytes(hashed, "little") % self._buckets * BUCKET
        bucket = self._hashes[first * _HASH : (first + BUCKET) * _HASH].tobytes()
        at = bucket.find(wanted)
        while at > 0 and at % _HASH:
            at = bucket.find(wanted, at + 1)
        return first + at // _HASH if at >= 0 else -1
