"""How often a message may be repeated: the first of its kind at once, then a few a minute, and what was left out."""

from __future__ import annotations

from typing import Final

__all__ = ["Allowance"]

_MINUTE: Final = 60.0
#: Signatures that are remembered; what comes after that many counts as a repetition.
_REMEMBERED: Final = 256


class Allowance:
    """Decides which messages of one kind are told.

    Args:
        repeated: How many repetitions are told in a minute, of all signatures together.
    """

    __slots__ = ("_began", "_known", "_left_out", "_repeated", "_told")

    def __init__(self, repeated: int = 5) -> None:
        self._repeated = repeated
        self._known: set[object] = set()
        self._began = float("-inf")
        self._told = 0
        self._left_out = 0

    def ask(self, signature: object, now: float) -> int | None:
        """Whether a message is told.

        Args:
            signature: What makes it the same as another.
            now: The moment, in seconds.

        Returns:
            How many were left out since the last one that was told; None when this one is to be left out as well.
        """
        if signature not in self._known and len(self._known) < _REMEMBERED:
            self._known.add(signature)
            return self.left_out()
        if now - self._began >= _MINUTE:
            self._began = now
            self._told = 0
        if self._told >= self._repeated:
            self._left_out += 1
            return None
        self._told += 1
        return self.left_out()

    def left_out(self) -> int:
        """How many were left out and are told now."""
        count, self._left_out = self._left_out, 0
        return count
