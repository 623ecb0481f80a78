"""How a part of a worker answers questions, and refuses what it can't be asked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any, TypeVar

import msgspec

from sojourn.errors import ErrandError

__all__ = ["Answer", "Answers", "read", "refuse_unknown"]

T = TypeVar("T")

#: Answers one kind of question; the arguments are plain values.
Answer = Callable[[Mapping[str, Any]], Awaitable[object]]
#: All that a part answers, by name.
Answers = Mapping[str, Answer]


def refuse_unknown(arguments: Mapping[str, Any], filters: Collection[str]) -> None:
    """Do nothing when all arguments are filters that there are.

    Raises:
        ErrandError: One is not.
    """
    unknown = sorted(set(arguments) - set(filters))
    if unknown:
        detail = f"there is no filter {unknown[0]!r}; there are {', '.join(sorted(filters))}"
        raise ErrandError(400, "unknown_argument", detail)


def read(kind: type[T], arguments: Mapping[str, Any]) -> T:
    """Arguments as a struct.

    Raises:
        ErrandError: One is missing, unknown, or of another type.
    """
    try:
        return msgspec.convert(dict(arguments), kind)
    except msgspec.ValidationError as error:
        raise ErrandError(400, "bad_argument", str(error)) from error
