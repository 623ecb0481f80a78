"""Where something was taken or opened: noted in a microsecond, put into words when somebody asks."""

from __future__ import annotations

import sys
import sysconfig
from collections.abc import Iterable
from types import CodeType, FrameType
from typing import Any, Final

from sojourn.observe.profiles.model import Frame
from sojourn.observe.tasks.machinery import Part, part_of
from sojourn.scopes.places import line_of

__all__ = ["Noted", "application", "frames", "is_library", "module_of", "noted", "place", "text"]

#: Code objects with the place in each, innermost first.
Noted = tuple[tuple[CodeType, int], ...]

#: Frames of a stack that are kept. A framework's middleware is some thirty deep.
_DEPTH: Final = 64
_PACKAGES: Final = ("/site-packages/", "/dist-packages/")
_STDLIB: Final = tuple(f"{path}/" for path in {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")})


def noted(above: int = 1, depth: int = _DEPTH) -> Noted:
    """The stack of the caller, without a line worked out.

    Args:
        above: Frames to leave out: 1 begins with who calls this.
        depth: Frames to note at most.
    """
    frame: FrameType | None = sys._getframe(above)
    stack: list[tuple[CodeType, int]] = []
    while len(stack) < depth:
        if frame is None:
            frame = _switched_from(stack)
            if frame is None:
                break
        stack.append((frame.f_code, frame.f_lasti))
        frame = frame.f_back
    return tuple(stack)


def _switched_from(stack: list[tuple[CodeType, int]]) -> FrameType | None:
    """Where the stack goes on behind its end: SQLAlchemy's asyncio runs its pool in a greenlet; None elsewhere.

    A greenlet has a stack of its own, and that of the coroutine which waits for it belongs to its parent.
    """
    greenlet = sys.modules.get("greenlet")
    if greenlet is None:
        return None
    parent: Any = greenlet.getcurrent().parent
    frame: FrameType | None = parent.gr_frame if parent is not None else None
    if frame is None or any(code is frame.f_code for code, _ in stack):  # it has been walked through
        return None
    return frame


def frames(stack: Noted) -> list[Frame]:
    """The stack in words, innermost first, without what only runs other people's code."""
    found = []
    for code, instruction in stack:
        part = part_of(code.co_filename)
        if part is Part.LOOP:
            break
        if part is Part.APPLICATION:
            found.append(Frame(code.co_qualname, code.co_filename, line_of(code, instruction)))
    return found


def application(stack: Iterable[Frame]) -> Frame | None:
    """The innermost frame that is neither a library's nor Python's; the innermost of all where there is none."""
    first = None
    for frame in stack:
        if first is None:
            first = frame
        if not is_library(frame.file):
            return frame
    return first


def place(stack: Noted) -> str:
    """The innermost place of the application, as ``file:line in function``; "" for an empty stack."""
    frame = application(frames(stack))
    return str(frame) if frame is not None else ""


def text(stack: Iterable[Frame]) -> str:
    """Frames as lines, innermost call last."""
    return "\n".join(f"  {frame}" for frame in reversed(list(stack)))


def is_library(file: str) -> bool:
    """Whether a source file was installed, or is Python's own."""
    return any(package in file for package in _PACKAGES) or file.startswith((*_STDLIB, "<frozen"))


def module_of(file: str) -> str:
    """The dotted name of an installed source file, such as ``redis.asyncio.client``; "" for any other."""
    for package in _PACKAGES:
        _, found, rest = file.rpartition(package)
        if found:
            return rest.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    return ""
