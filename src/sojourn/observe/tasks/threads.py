"""The threads of the process as a profile."""

from __future__ import annotations

import asyncio
import sys
import threading
from types import FrameType

from sojourn.observe.profiles.model import Frame, Kind, Profile, Sample
from sojourn.observe.profiles.text import one_line

__all__ = ["threads_profile"]

#: Frames of one stack; deeper ones are cut at the outer end.
_DEPTH = 256


def threads_profile(loop: asyncio.AbstractEventLoop, moment: float) -> Profile:
    """Where each thread is now. One that runs outside of Python shows where it left it.

    Args:
        loop: Whose executor is asked how much waits for its threads.
        moment: Now, in seconds since the epoch.
    """
    known = {thread.ident: thread for thread in threading.enumerate()}
    samples = []
    for number, frame in sys._current_frames().items():
        thread = known.get(number)
        name = thread.name if thread is not None else "unknown to Python"
        daemon = "yes" if thread is not None and thread.daemon else "no"
        samples.append(Sample(_stack(frame), (1,), (("thread", one_line(name)), ("daemon", daemon))))
    waiting = _waiting(loop)
    return Profile(
        name="thread",
        kinds=(Kind("thread", "count"),),
        samples=samples,
        moment=moment,
        comments=[
            f"{len(samples)} threads of Python",
            "the executor of the event loop can't be asked"
            if waiting is None
            else f"{waiting} calls wait for a thread of the event loop's executor",
        ],
    )


def _stack(frame: FrameType | None) -> tuple[Frame, ...]:
    stack: list[Frame] = []
    while frame is not None and len(stack) < _DEPTH:
        code = frame.f_code
        stack.append(
            Frame(one_line(code.co_qualname), one_line(code.co_filename), frame.f_lineno or code.co_firstlineno)
        )
        frame = frame.f_back
    return tuple(stack)


def _waiting(loop: asyncio.AbstractEventLoop) -> int | None:
    """Calls that wait for a thread of the loop's executor; None when it can't be asked, as uvloop's."""
    executor = getattr(loop, "_default_executor", None)
    queue = getattr(executor, "_work_queue", None)
    return queue.qsize() if queue is not None else None
