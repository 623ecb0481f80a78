"""Values: what a key accepts, read the same way from a file, the environment and a flag; and how a value is shown.

Durations are seconds, or text with a unit (``500ms``, ``10s``, ``5m``, ``1h``); sizes are bytes, or text with a unit
(``64KiB``, ``1MB``, ``8 MiB``). No limit is the word ``none``; it must be written by hand.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from sojourn.server.settings.keys import Key, Kind

__all__ = ["bounds", "display", "duration", "read", "wanted"]

_NUMBER: Final = re.compile(r"([-+]?(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*([A-Za-z/]*)")

#: What one of each unit is in the key's own unit, as a fraction, so that 300ms is exactly 0.3.
_DURATIONS: Final = {
    "": (1, 1),
    "ms": (1, 1000),
    "s": (1, 1),
    "m": (60, 1),
    "min": (60, 1),
    "h": (3600, 1),
    "d": (86400, 1),
}
_SIZES: Final = {
    "": (1, 1),
    "b": (1, 1),
    "kb": (1000, 1),
    "mb": (1000**2, 1),
    "gb": (1000**3, 1),
    "kib": (1024, 1),
    "mib": (1024**2, 1),
    "gib": (1024**3, 1),
}
_PLAIN: Final = {"": (1, 1)}

#: Beyond this a float is no longer exact to one; no key needs it.
_HUGE: Final = 2**53

_PLAIN_WORDS: Final[dict[Kind, str]] = {
    "flag": "true or false",
    "list": "a list of texts, or one text with commas",
    "text": "a text",
    "whole": "a whole number",
    "number": "a number",
}

_YES: Final = frozenset({"true", "1", "yes", "on"})
_NO: Final = frozenset({"false", "0", "no", "off"})


def read(key: Key, raw: object) -> object:
    """The value of ``key`` that ``raw`` stands for.

    Args:
        key: The key.
        raw: A value from TOML, or the text of an environment variable or flag.

    Returns:
        A bool, int, float, str or tuple as the key's type asks; None where ``none`` was written and is allowed.

    Raises:
        ValueError: It stands for none; the message says what would be right and hides secrets.
    """
    if raw is None or (isinstance(raw, str) and raw.strip().lower() == "none" and _none_is_special(key)):
        if key.optional:
            return None
        raise ValueError(f"none is not allowed here: write {wanted(key)}")
    value = _READERS[key.kind](key, raw)
    if value is None or not _within(key, value):
        shown = "this" if key.secret else repr(raw)
        raise ValueError(f"{shown} is not {wanted(key)}")
    return value


def duration(text: str) -> float | None:
    """Seconds of a duration such as ``50ms``; None when it is none."""
    match = _NUMBER.fullmatch(text.strip())
    factor = _DURATIONS.get(match[2]) if match else None
    return float(match[1]) * factor[0] / factor[1] if match and factor else None


def wanted(key: Key) -> str:
    """What ``key`` accepts, in words that finish the sentence "write ..."."""
    match key.kind, key.unit:
        case "number", "s":
            words, example = "a duration", " (seconds, or a text such as 500ms, 10s, 5m, 1h)"
        case "whole", "s":
            words, example = "a duration in whole seconds", " (seconds, or a text such as 10s, 5m, 1h)"
        case "whole", "B":
            words, example = "a size", " (bytes, or a text such as 64KiB, 1MB)"
        case "whole", "B/s":
            words, example = "a rate", " (bytes per second, or a text such as 64KiB, 1MB)"
        case "choice", _:
            words, example = "one of " + ", ".join(key.choices), ""
        case _:
            words, example = _PLAIN_WORDS[key.kind], ""
    return f"{words}{bounds(key)}{example}{', or none' if key.optional else ''}"


def bounds(key: Key) -> str:
    """The bounds of ``key`` in words; "" when it has none."""
    if key.gt is not None:
        return f" above {key.gt:g}"
    return "" if key.ge is None else f" of at least {key.ge:g}"


def display(key: Key, value: object) -> str:
    """``value`` of ``key`` as people read it: ``10 s``, ``32 KiB``, ``none``; secrets are masked."""
    if value is None:
        return "none"
    if key.secret:
        return "***"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return ",".join(value) or "(empty)"
    if isinstance(value, str):
        return value or "(empty)"
    assert isinstance(value, int | float)
    if key.unit == "B":
        for size, unit in ((1024**3, "GiB"), (1024**2, "MiB"), (1024, "KiB")):
            if value >= size and value % size == 0:
                return f"{value // size} {unit}"
    number = f"{value:.12g}" if isinstance(value, float) else str(value)
    return f"{number} {key.unit}".rstrip()


def _none_is_special(key: Key) -> bool:
    return key.optional or not (key.kind == "text" or "none" in key.choices)


def _flag(_: Key, raw: object) -> bool | None:
    if isinstance(raw, str):
        word = raw.strip().lower()
        return True if word in _YES else False if word in _NO else None
    return raw if isinstance(raw, bool) else None


def _number(key: Key, raw: object) -> float | None:
    if isinstance(raw, bool) or not isinstance(raw, int | float | str):
        return None
    number: float
    if isinstance(raw, str):
        units = _DURATIONS if key.unit == "s" else _SIZES if key.unit in ("B", "B/s") else _PLAIN
        match = _NUMBER.fullmatch(raw.strip())
        factor = units.get(_unit(key, match[2])) if match else None
        if match is None or factor is None:
            return None
        digits = match[1]
        try:
            number = int(digits) if digits.lstrip("+-").replace("_", "").isdecimal() else float(digits)
        except ValueError:  # such as 1__0
            return None
        number = number * factor[0] / factor[1] if factor[1] != 1 else number * factor[0]
    else:
        number = raw
    return number if abs(number) < _HUGE else None  # false for inf and nan too


def _unit(key: Key, text: str) -> str:
    if key.unit == "s":
        return text  # "M" is no minute
    return (text.removesuffix("/s") if key.unit == "B/s" else text).lower()


def _float(key: Key, raw: object) -> float | None:
    number = _number(key, raw)
    return None if number is None else float(number)


def _whole(key: Key, raw: object) -> int | None:
    number = _number(key, raw)
    return int(number) if number is not None and number == int(number) else None


def _choice(key: Key, raw: object) -> str | None:
    if isinstance(raw, bool):  # on, off and friends are booleans for whoever writes TOML
        raw = "on" if raw else "off"
    word = raw.strip() if isinstance(raw, str) else f"{raw}" if isinstance(raw, float) else None
    return word if word in key.choices else None


def _list(_: Key, raw: object) -> tuple[str, ...] | None:
    if isinstance(raw, str):
        raw = raw.split(",")
    if not isinstance(raw, list | tuple) or not all(isinstance(item, str) for item in raw):
        return None
    return tuple(item.strip() for item in raw if item.strip())


def _text(key: Key, raw: object) -> str | None:
    return raw if isinstance(raw, str) and (raw or not key.optional) else None


def _within(key: Key, value: object) -> bool:
    if not isinstance(value, int | float):
        return True
    return (key.ge is None or value >= key.ge) and (key.gt is None or value > key.gt)


_READERS: Final[dict[Kind, Callable[[Key, object], object]]] = {
    "flag": _flag,
    "whole": _whole,
    "number": _float,
    "choice": _choice,
    "list": _list,
    "text": _text,
}
