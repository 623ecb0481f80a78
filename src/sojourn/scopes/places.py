"""Where in the source something stands."""

from __future__ import annotations

from types import CodeType

__all__ = ["line_of", "place_of"]


def line_of(code: CodeType, instruction: int) -> int:
    """The line of a place in a code object, as in ``frame.f_lasti``; its first line when the place has none.

    Noting code and place costs next to nothing; a frame's own ``f_lineno`` walks over all lines before it.
    """
    for start, end, line in code.co_lines():
        if start <= instruction < end and line is not None:
            return line
    return code.co_firstlineno


def place_of(code: CodeType, instruction: int) -> str:
    """The same in words, such as ``app.py:12 in save``."""
    return f"{code.co_filename}:{line_of(code, instruction)} in {code.co_qualname}"
