"""Who goes first when not everybody can: three classes, each with a share that the others can't take.

A class that asks for no more than its share gets it. What a class does not use goes to the others, in the ratio of
their shares. So the high class keeps its rate whatever the low one does, and the low one is not starved.
"""

from __future__ import annotations

import re
from enum import IntEnum
from typing import Final

__all__ = ["SHARES", "Priority", "Turns", "priority_of"]


class Priority(IntEnum):
    """A class of requests; the smaller the number, the earlier it goes."""

    HIGH = 0
    NORMAL = 1
    LOW = 2


#: Parts of what can be served that each class is sure of: 16, 4 and 1 of 21.
SHARES: Final = (16, 4, 1)

_WORDS: Final = {b"high": Priority.HIGH, b"normal": Priority.NORMAL, b"low": Priority.LOW}
_URGENCY: Final = re.compile(rb"(?:^|,)\s*u=([0-7])\s*(?:[,;]|$)")


def priority_of(value: bytes) -> Priority | None:
    """The class that a header names.

    Args:
        value: ``high``, ``normal`` or ``low``; or as RFC 9218 has it, such as ``u=1, i``: an urgency of 0 to 2 is high,
            3 and 4 are normal (3 is what is meant without one), 5 to 7 low.

    Returns:
        None for what means nothing.

    Source: RFC 9218 section 4.1.
    """
    word = _WORDS.get(value.strip().lower())
    if word is not None:
        return word
    match = _URGENCY.search(value)
    if match is None:
        return None
    urgency = int(match[1])
    return Priority.HIGH if urgency <= 2 else Priority.NORMAL if urgency <= 4 else Priority.LOW


class Turns:
    """Whose turn it is, by stride scheduling: who is served moves on by the inverse of its share.

    Args:
        shares: Of each class, the first being that of the highest.
    """

    __slots__ = ("_clock", "_passes", "_strides")

    def __init__(self, shares: tuple[int, ...] = SHARES) -> None:
        self._strides = tuple(1.0 / share for share in shares)
        self._passes = [0.0] * len(shares)
        #: How far the class that was served last had come.
        self._clock = 0.0

    def came(self, rank: int) -> None:
        """Somebody of a class waits, of which nobody did before: time in which it asked for nothing is not made up."""
        self._passes[rank] = max(self._passes[rank], self._clock)

    def next(self, waiting: list[int]) -> int:
        """Which of these classes is served now; not empty. Of equals, the highest."""
        rank = min(waiting, key=lambda each: (self._passes[each], each))
        self._clock = self._passes[rank]
        self._passes[rank] += self._strides[rank]
        return rank
