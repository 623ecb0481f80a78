"""Where a thread stands, taken in microseconds and put into words later."""

from __future__ import annotations

import gc
import os
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import CodeType, FrameType
from typing import Final, NamedTuple

from sojourn.observe.profiles.model import Frame
from sojourn.observe.tasks.machinery import Part, part_of

__all__ = ["DEPTH", "Spot", "depth_of", "frames", "guilty", "in_words", "spots", "text", "without_callbacks"]

#: Frames taken; those further out are left away.
DEPTH: Final = 200
_LIBRARY: Final = str(Path(os.__file__).parent) + os.sep
_PACKAGES: Final = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")


class Spot(NamedTuple):
    """A place in running code. It holds no frame, so that nothing lives on for it."""

    code: CodeType
    line: int
    module: str


def depth_of(frame: FrameType | None) -> int:
    """How many calls deep a frame is, itself included."""
    depth = 0
    while frame is not None:
        depth += 1
        frame = frame.f_back
    return depth


def without_callbacks(stack: tuple[Spot, ...]) -> tuple[Spot, ...]:
    """Without what the collector calls of ours, innermost: whoever set it off is below."""
    callbacks = {getattr(callback, "__code__", None) for callback in gc.callbacks}
    while stack and stack[0].code in callbacks and part_of(stack[0].code.co_filename) is not Part.APPLICATION:
        stack = stack[1:]
    return stack


def spots(frame: FrameType | None, base: int = 0) -> tuple[Spot, ...]:
    """The stack of a thread, innermost first.

    Args:
        frame: Its innermost frame. The thread must not run meanwhile, so the caller keeps the interpreter.
        base: So many of the outermost frames are of no interest: those that run the event loop.
    """
    inside = depth_of(frame) - base
    found: list[Spot] = []
    while frame is not None and inside > 0 and len(found) < DEPTH:
        found.append(Spot(frame.f_code, frame.f_lineno or 0, frame.f_globals.get("__name__", "")))
        frame = frame.f_back
        inside -= 1
    return tuple(found)


def guilty(stack: Sequence[Spot]) -> int | None:
    """Index of the innermost place of the application or a library; None when there is none.

    The standard library counts only where nothing else does: it is called by someone, and that one is wanted.
    """
    second = None
    # The collector calls them; whoever set it off is below.
    callbacks = {getattr(callback, "__code__", None) for callback in gc.callbacks}
    for index, spot in enumerate(stack):
        file = spot.code.co_filename
        if file.startswith("<frozen") or part_of(file) is not Part.APPLICATION or spot.code in callbacks:
            continue
        if not file.startswith(_LIBRARY) or any(packages in file for packages in _PACKAGES):
            return index
        if second is None and spot.module not in ("selectors", "threading"):
            second = index
    return second


def in_words(spot: Spot) -> str:
    """``module.function file:line``."""
    return f"{spot.module}.{spot.code.co_qualname} {spot.code.co_filename}:{spot.line}"


def frames(stack: Sequence[Spot]) -> tuple[Frame, ...]:
    """As a profile has it, innermost first."""
    return tuple(Frame(spot.code.co_qualname, spot.code.co_filename, spot.line) for spot in stack)


def text(stack: Sequence[Spot]) -> str:
    """As Python prints it, innermost call last. Reads source files."""
    listed = [traceback.FrameSummary(spot.code.co_filename, spot.line, spot.code.co_name) for spot in reversed(stack)]
    return "".join(traceback.format_list(listed))
