"""Where a task stands: the frames it waits through, and who waits for whom."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from types import CodeType, FrameType, FunctionType
from typing import Any, Final

from sojourn.observe.profiles.model import Frame
from sojourn.observe.profiles.text import one_line
from sojourn.observe.tasks.machinery import Part, part_of
from sojourn.scopes.places import line_of
from sojourn.scopes.work import frames_of

__all__ = ["Places", "awaited_by", "frames_of_task", "waiter_of"]

#: Places and files remembered; more are forgotten all at once.
_REMEMBERED: Final = 10_000
#: A gather of gathers is followed so far.
_DEPTH: Final = 4


class Places:
    """Names places in the code, each once: dumps of many tasks name the same few again and again."""

    def __init__(self) -> None:
        # With its code, so that no other can take over its id.
        self._frames: dict[tuple[int, int], tuple[Frame, CodeType]] = {}
        self._parts: dict[str, Part] = {}

    def of_frame(self, frame: FrameType) -> Frame:
        """The place where a frame stands."""
        code, instruction = frame.f_code, frame.f_lasti
        known = self._frames.get((id(code), instruction))
        return self._learn(code, instruction, frame.f_lineno) if known is None else known[0]

    def of_code(self, code: CodeType, instruction: int) -> Frame:
        """A place in a piece of code, as in ``frame.f_lasti``."""
        known = self._frames.get((id(code), instruction))
        return self._learn(code, instruction, line_of(code, instruction)) if known is None else known[0]

    def part(self, file: str) -> Part:
        """What a source file is part of."""
        part = self._parts.get(file)
        if part is None:
            if len(self._parts) >= _REMEMBERED:
                self._parts.clear()
            part = self._parts[file] = part_of(file)
        return part

    def first_outside(self, stack: tuple[Frame, ...]) -> Frame | None:
        """The innermost place of the application or a library; the innermost of all where there is none."""
        for frame in stack:
            if self.part(frame.file) == Part.APPLICATION:
                return frame
        return stack[0] if stack else None

    def _learn(self, code: CodeType, instruction: int, line: int | None) -> Frame:
        if len(self._frames) >= _REMEMBERED:
            self._frames.clear()
        frame = Frame(one_line(code.co_qualname), one_line(code.co_filename), line or code.co_firstlineno)
        self._frames[id(code), instruction] = (frame, code)
        return frame


def frames_of_task(task: asyncio.Task[Any]) -> list[FrameType]:
    """The frames a task waits through, innermost first; none when it has ended."""
    frames, _ = frames_of(task.get_coro())
    frames.reverse()
    return frames


def waiter_of(task: asyncio.Task[Any]) -> Any:
    """The future a task waits for; None when it waits for none: it runs, is about to, or has ended."""
    return getattr(task, "_fut_waiter", None)


def awaited_by(task: asyncio.Task[Any]) -> asyncio.Task[Any] | None:
    """The task that waits for another one to end, by itself or with others (gather, wait, shield, TaskGroup).

    Returns:
        None when no task does, or nothing shows which.
    """
    return next(_waiting(task, _DEPTH), None)


def _waiting(future: Any, depth: int) -> Iterator[asyncio.Task[Any]]:
    """The tasks that go on when a future is done."""
    for callback, *_ in getattr(future, "_callbacks", None) or ():
        owner = getattr(callback, "__self__", None)
        if isinstance(owner, asyncio.Task):
            if owner is not future:
                yield owner  # it awaits the future: this is what wakes it
        elif owner is not None and owner is not future:
            parent = getattr(owner, "_parent_task", None)  # asyncio.TaskGroup
            if isinstance(parent, asyncio.Task):
                yield parent
        elif depth:
            for held in _held(callback):
                if isinstance(held, asyncio.Task):
                    continue  # it may be anything: only what it awaits says who waits
                if asyncio.isfuture(held):
                    if held is not future:
                        yield from _waiting(held, depth - 1)
                elif type(held).__module__.startswith("anyio."):
                    host = getattr(getattr(held, "cancel_scope", None), "_host_task", None)
                    if isinstance(host, asyncio.Task) and host is not future:
                        yield host


def _held(callback: Any) -> Iterator[Any]:
    """What a function holds: in its closure, or as arguments given beforehand."""
    if isinstance(callback, FunctionType):
        for cell in callback.__closure__ or ():
            try:
                yield cell.cell_contents
            except ValueError:
                pass  # not assigned yet
    else:
        yield from getattr(callback, "args", ())
