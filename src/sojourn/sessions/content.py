"""What a session holds, as a JSON object: its bytes, and one made of two that were changed at the same time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

__all__ = ["EMPTY", "decoded", "encoded", "merged", "user_of"]

EMPTY: Final = b"{}"
_MISSING: Final = object()


def encoded(content: Mapping[str, Any]) -> bytes:
    """The bytes of it.

    Raises:
        TypeError: JSON can't express it.
    """
    return msgspec.json.encode(dict(content))


def decoded(data: bytes) -> dict[str, Any]:
    """What they say. Whoever can write to the store may put anything there; what is no object is an empty one."""
    try:
        found = msgspec.json.decode(data)
    except msgspec.DecodeError:
        return {}
    return found if isinstance(found, dict) else {}


def merged(base: Mapping[str, Any], mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    """One of two that were made from the same base, key by key: what only one has changed is as that one has it.

    Args:
        base: What both began with.
        mine: Wins where both have changed the same key.
        theirs: What is stored.

    Example:
        >>> merged({"a": 1, "b": 1}, {"a": 2, "b": 1}, {"a": 1, "b": 3, "c": 4})
        {'a': 2, 'b': 3, 'c': 4}
    """
    result = dict(theirs)
    for key in base.keys() | mine.keys():
        value = mine.get(key, _MISSING)
        if value == base.get(key, _MISSING):
            continue
        if value is _MISSING:
            result.pop(key, None)
        else:
            result[key] = value
    return result


def user_of(value: object) -> str:
    """Who is meant by what an application keeps as its user; "" for nobody.

    A text or a number is the user; of an object, such as the claims of OpenID Connect, its ``sub`` is.
    """
    if isinstance(value, Mapping):
        value = value.get("sub")
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else ""
