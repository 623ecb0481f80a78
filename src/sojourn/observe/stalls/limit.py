"""Stacks of all threads from the middle of a stall in which no Python code can run.

The timer is faulthandler's: a thread of C that needs no interpreter. There is one in a process, so only who owns the
process sets it. A worker's supervisor asks for the stacks of a hung worker too, by a signal and after
``worker.heartbeat`` (10 s), and kills it; this is for what goes on by itself before that, and for a server without
supervisor.
"""

from __future__ import annotations

import faulthandler
import os
from typing import Final

from sojourn.net.anonymous import anonymous_file

__all__ = ["HardLimit"]

#: Seconds between two settings of the timer: each makes a thread, 25 to 50 microseconds.
_AGAIN: Final = 1.0
#: Longest dump that is read, in bytes.
_LONGEST: Final = 64 * 1024


class HardLimit:
    """The timer.

    Args:
        seconds: From the last setting of the timer to the dump. The timer is set at most a second and a half before a
            stall begins, so it must be more than that.
        fd: Where to write, such as standard error, for a process that may never go on; it stays the caller's. None
            keeps the dump until it is read.
    """

    def __init__(self, seconds: float, fd: int | None = None) -> None:
        self._seconds = seconds
        self._armed = -_AGAIN
        self._kept = anonymous_file("sojourn-stall") if fd is None else None
        self._fd = self._kept if fd is None else fd

    def arm(self, now: float) -> None:
        """The event loop was alive at ``now``, in seconds: begin anew, once a second at most."""
        if now - self._armed >= _AGAIN and self._fd is not None:
            self._armed = now
            faulthandler.dump_traceback_later(self._seconds, file=self._fd)

    def read(self) -> str:
        """What was written since it was read last; "" when nothing was, or somebody else was to get it."""
        if self._kept is None:
            return ""
        text = os.pread(self._kept, _LONGEST, 0).decode("utf-8", "replace").strip()
        if text:
            os.ftruncate(self._kept, 0)
            os.lseek(self._kept, 0, os.SEEK_SET)
        return text

    def close(self) -> None:
        """Take the timer back. Calling it twice does nothing."""
        if self._fd is not None:
            faulthandler.cancel_dump_traceback_later()
            self._fd = None
        if self._kept is not None:
            os.close(self._kept)
            self._kept = None
