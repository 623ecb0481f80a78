"""Numbers and places as people read them. What is meant for programs stays exact."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Any, Final

from sojourn.observe.log.text import message

__all__ = ["duration", "number", "parts", "place", "plain", "shortened", "size", "stack"]

#: Where Python keeps its own modules and installed packages.
_LIBRARY: Final = re.compile(r"^/\S*/lib/python3[^/\s]*/((site|dist)-packages/)?")
#: Where this package is, when it was not installed but runs from its source.
_OWN: Final = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
_SIZES: Final = ("B", "KiB", "MiB", "GiB", "TiB")


def duration(seconds: float | None) -> str:
    """``340 us``, ``12 ms``, ``3.4 s``, ``75 s``, ``12 min``, ``3.5 h``, ``9 d``; ``-`` for None."""
    if seconds is None:
        return "-"
    if seconds < 0:
        return f"-{duration(-seconds)}"
    if seconds < 0.0005:
        return f"{seconds * 1e6:.0f} us" if seconds else "0 s"
    if seconds < 0.9995:
        return f"{seconds * 1e3:.0f} ms"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 119.5:
        return f"{seconds:.0f} s"
    if seconds < 7170:
        return f"{seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.0f} d"


def size(count: float | None) -> str:
    """``0 B``, ``812 B``, ``1.2 KiB``, ``37 MiB``; ``-`` for None."""
    if count is None:
        return "-"
    value, unit = float(count), 0
    while abs(value) >= 1023.5 and unit < len(_SIZES) - 1:
        value, unit = value / 1024, unit + 1
    return f"{value:.0f} {_SIZES[unit]}" if not unit or abs(value) >= 9.95 else f"{value:.1f} {_SIZES[unit]}"


def number(count: float | None) -> str:
    """``7``, ``12,345``, ``0.25``; ``-`` for None."""
    if count is None:
        return "-"
    return f"{count:,.0f}" if float(count).is_integer() or abs(count) >= 100 else f"{count:,.3g}"


def plain(value: object) -> str:
    """Anything as one line; what a stranger sent can't drive the terminal. "" for None."""
    return "" if value is None else message(str(value))


def place(text: str, here: str | None = None) -> str:
    """``file:line in function``; the file as one would name it from the working folder, or as it is imported.

    Args:
        text: The place; one without a path stays as it is.
        here: The folder; None takes the working folder.
    """
    for folder in (here or os.getcwd(), _OWN):
        text = text.removeprefix(os.path.join(folder, ""))
    return plain(_LIBRARY.sub("", text))


def stack(frames: Sequence[Any]) -> list[str]:
    """Frames as lines, in their order. A frame comes as ``[function, file, line]`` or as an object with these names."""
    return [place(_frame(frame)) for frame in frames]


def _frame(frame: Any) -> str:
    function, file, line = parts(frame)
    return f"{file}:{line} in {function}"


def parts(frame: Any) -> tuple[str, str, int]:
    """Function, file and line of a frame, in whichever of its forms."""
    if isinstance(frame, dict):
        return str(frame.get("function", "?")), str(frame.get("file", "?")), int(frame.get("line", 0))
    if isinstance(frame, str):
        return frame, "?", 0
    function, file, line = frame
    return str(function), str(file), int(line)


def shortened(text: str, width: int, *, start: bool = False) -> str:
    """At most ``width`` characters; dots stand for what is missing at the end, or at the start."""
    if len(text) <= width:
        return text
    if width <= 1:
        return text[:width]
    return f"…{text[len(text) - width + 1 :]}" if start else f"{text[: width - 1]}…"
