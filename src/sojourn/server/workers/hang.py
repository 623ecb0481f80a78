"""Whether an event loop is alive, judged from outside, and where a process stands when it is not.

A worker writes its beat into shared memory from its event loop. The supervisor only asks whether the value has changed,
in its own served time: when the whole machine stood still, nobody is to blame.
"""

from __future__ import annotations

import faulthandler
import os
import signal
from typing import IO, Final

from sojourn.net.anonymous import anonymous_file

__all__ = ["DUMP", "Beats", "Stacks", "dump_on_signal", "pulse"]

#: Seconds between two beats of a worker, and between two looks of the supervisor: an eighth of what counts as silence,
#: within these bounds.
_QUICKEST, _SLOWEST = 0.25, 1.0
#: Asks a worker for its stacks. A real-time signal, which applications leave alone.
DUMP: Final = signal.SIGRTMIN + 7 if hasattr(signal, "SIGRTMIN") else signal.SIGUSR1
#: Longest dump that is read, in bytes.
_LONGEST: Final = 256 * 1024


def pulse(heartbeat: float | None) -> float:
    """Seconds between two beats, and between two looks for them.

    Args:
        heartbeat: ``worker.heartbeat``; None when silence has no limit.
    """
    return _SLOWEST if heartbeat is None else min(_SLOWEST, max(_QUICKEST, heartbeat / 8.0))


class Beats:
    """The beat of one worker, as the supervisor sees it.

    Args:
        now: When it is looked at first.
    """

    __slots__ = ("_changed", "_last")

    def __init__(self, now: float) -> None:
        self._last: float | None = None
        self._changed = now

    def silent(self, now: float, beat: float) -> float:
        """Seconds since the value was seen to change.

        Args:
            now: Seconds of served time.
            beat: The value now.
        """
        if beat != self._last:
            self._last, self._changed = beat, now
        return now - self._changed


class Stacks:
    """A piece of memory into which a worker writes where all its threads are, without help of its interpreter.

    Args:
        fd: The descriptor; it belongs to this object.
    """

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        self.fd = fd

    @classmethod
    def create(cls) -> Stacks:
        """A new one."""
        return cls(anonymous_file("sojourn-stacks"))

    def ask(self, pid: int) -> None:
        """Ask a worker for its stacks; they are there some milliseconds later, if it can do anything at all."""
        os.ftruncate(self.fd, 0)
        os.lseek(self.fd, 0, os.SEEK_SET)  # the position is shared with the worker
        try:
            os.kill(pid, DUMP)
        except ProcessLookupError:
            pass  # it has ended just now

    def read(self) -> str:
        """What was written, the thread of the event loop first; "" when nothing was."""
        text = os.pread(self.fd, _LONGEST, 0).decode("utf-8", "replace").strip()
        # The kernel gives a signal to the main thread, where the event loop is; the dump marks who got it.
        return "\n\n".join(sorted(text.split("\n\n"), key=lambda thread: not thread.startswith("Current thread")))

    def close(self) -> None:
        """Give the memory back."""
        os.close(self.fd)


def dump_on_signal(fd: int) -> IO[bytes]:
    """In the worker: write the stacks of all threads to ``fd`` whenever they are asked for.

    Returns:
        The open file; it must be kept as long as stacks may be asked for.
    """
    file = os.fdopen(fd, "wb", buffering=0)
    faulthandler.register(DUMP, file, all_threads=True, chain=False)
    return file
