"""Texts that come again and again, made once: a path, a browser's name, the end that nearly all requests have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

__all__ = ["Memo"]

K = TypeVar("K")

#: Texts that are kept, and characters of the longest: together a few hundred kilobytes.
_KEPT: Final = 1024
_LONGEST: Final = 400


class Memo(dict[K, str]):
    """Texts by what they were made of. A client that sends ever new ones costs their making, and no memory.

    Args:
        make: Makes the text of a key; it is at least as long as the key, or too long to be kept.
    """

    def __init__(self, make: Callable[[K], str]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, key: K) -> str:
        text = self._make(key)
        if len(text) <= _LONGEST:
            if len(self) >= _KEPT:
                self.clear()
            self[key] = text
        return text
