"""A place in the stream of everything that an engine publishes: one scalar for all channels."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

__all__ = ["Cursor"]

_TEXT: Final = re.compile(r"([0-9A-Za-z_-]{1,32})\.([0-9]{1,18})")


class Cursor(NamedTuple):
    """A position: all publications up to and including ``seq`` are behind it.

    Attributes:
        epoch: Which life of the store; it changes when the store has forgotten, so that no number is read as another's.
        seq: Number of a publication, counted over all channels; 0 is before the first.

    Example:
        >>> str(Cursor("k3f9", 1041))
        'k3f9.1041'
        >>> Cursor.parse("k3f9.1041").seq
        1041
    """

    epoch: str
    seq: int

    def __str__(self) -> str:
        return f"{self.epoch}.{self.seq}"

    @classmethod
    def parse(cls, text: str) -> Cursor | None:
        """Read what the other side sent; None when it is no cursor: a hub can only answer that with a gap."""
        found = _TEXT.fullmatch(text)
        return None if found is None else cls(found[1], int(found[2]))

    def reaches(self, other: Cursor | None) -> bool:
        """Whether everything that is behind another place is behind this one, as far as numbers can say."""
        return other is not None and self.epoch == other.epoch and self.seq >= other.seq
