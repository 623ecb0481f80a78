"""What a parameter of a path may be, and how its text becomes a value and a value its text.

Every parser is linear in the length of its text, and numbers have a length limit: ``int`` needs quadratic time.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Final, Protocol

__all__ = ["BUILT_IN", "REST", "Converter"]

#: The type that takes what is left of the path.
REST: Final = "path"
#: Digits of a number in a path; a longer one matches no route.
_DIGITS: Final = 64
_FLOAT: Final = re.compile(r"[0-9]+(?:\.[0-9]+)?", re.ASCII)
_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(?:-?[0-9a-fA-F]{4}){3}-?[0-9a-fA-F]{12}", re.ASCII)


class Converter(Protocol):
    """A type of parameter, for ``Router(converters={"name": ...})``.

    Both methods raise ValueError for what is none of theirs; from ``parse`` that means that the route does not match.

    Attributes:
        rank: Which is asked first where several types stand at the same place; smaller is earlier. Own types lie
            between ``float`` (30) and ``str`` (90).
    """

    rank: int

    def parse(self, text: str) -> Any:
        """The value of a decoded segment, which is never empty and has no slash."""

    def format(self, value: Any) -> str:
        """The text of a value, not percent-encoded."""


class _Text:
    rank = 90

    def parse(self, text: str) -> str:
        return text

    def format(self, value: Any) -> str:
        text = str(value)
        if "/" in text:
            raise ValueError("a segment can't contain a slash; the type `path` can")
        if text in (".", ".."):
            raise ValueError(f"clients take a segment {text!r} away")
        return text


class _Rest:
    rank = 100

    def parse(self, text: str) -> str:
        return text

    def format(self, value: Any) -> str:
        return str(value)


class _Int:
    rank = 10

    def parse(self, text: str) -> int:
        if len(text) > _DIGITS or not (text.isascii() and text.isdigit()):
            raise ValueError(text)
        return int(text)

    def format(self, value: Any) -> str:
        if isinstance(value, bool) or int(value) != value or value < 0:
            raise ValueError(f"not a whole number from 0: {value!r}")
        return _short(str(int(value)))


class _Uuid:
    rank = 20

    def parse(self, text: str) -> uuid.UUID:
        if _UUID.fullmatch(text) is None:
            raise ValueError(text)
        return uuid.UUID(text)

    def format(self, value: Any) -> str:
        return str(value if isinstance(value, uuid.UUID) else uuid.UUID(value))


class _Float:
    rank = 30

    def parse(self, text: str) -> float:
        if len(text) > _DIGITS or _FLOAT.fullmatch(text) is None:
            raise ValueError(text)
        return float(text)

    def format(self, value: Any) -> str:
        text = format(Decimal(repr(float(value))), "f")  # all digits, no exponent
        if _FLOAT.fullmatch(text) is None:
            raise ValueError(f"not a number from 0: {value!r}")
        return _short(text)


def _short(text: str) -> str:
    if len(text) > _DIGITS:
        raise ValueError(f"a number in a path has at most {_DIGITS} digits")
    return text


BUILT_IN: Final[Mapping[str, Converter]] = MappingProxyType(
    {"str": _Text(), "int": _Int(), "float": _Float(), "uuid": _Uuid(), REST: _Rest()}
)
