"""A position in the stream of a hub, as its clients see it."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

__all__ = ["Place"]

_TEXT: Final = re.compile(r"([0-9A-Za-z_-]{1,32})\.([0-9]{1,18})")


class Place(NamedTuple):
    """All publications up to and including ``seq`` are behind it.

    Attributes:
        epoch: Which life of the server's store; numbers of two epochs say nothing about each other.
        seq: Number of a publication, counted over all channels.

    Example:
        >>> Place.parse("k3f9.1041")
        Place(epoch='k3f9', seq=1041)
    """

    epoch: str
    seq: int

    def __str__(self) -> str:
        return f"{self.epoch}.{self.seq}"

    @classmethod
    def parse(cls, text: str) -> Place | None:
        """Read a cursor; None when it is none."""
        found = _TEXT.fullmatch(text)
        return None if found is None else cls(found[1], int(found[2]))

    def reaches(self, other: Place | None) -> bool:
        """Whether everything that is behind another place is behind this one, as far as numbers can say."""
        return other is not None and self.epoch == other.epoch and self.seq >= other.seq
