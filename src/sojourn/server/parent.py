"""A server process that has a parent ends with it, whatever happens to either."""

from __future__ import annotations

import faulthandler
import os
import select
import signal
import sys
import threading
from collections.abc import Callable
from typing import Final

from sojourn.clock import Clock, SystemClock

__all__ = ["Fuse", "die_with_parent", "end_as_orphan"]

#: Seconds between two looks of an orphan at its own event loop, and, where there is no pidfd, at its parent.
_LOOK: Final = 1.0
#: Exit code of a server that had to be cut.
_CUT: Final = 5


def die_with_parent(parent: int) -> None:
    """Ask the kernel for SIGTERM when the parent process dies, so that even ``kill -9`` leaves no server behind.

    Args:
        parent: Process id of the parent.

    Source: prctl(2), PR_SET_PDEATHSIG; other systems than Linux have nothing like it.
    """
    if sys.platform == "linux":
        import ctypes  # only a child pays for it

        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, int(signal.SIGTERM))
    if os.getppid() != parent:  # it died before the kernel knew
        os.kill(os.getpid(), signal.SIGTERM)


def end_as_orphan(
    parent: int, beat: Callable[[], float], *, silence: float, limit: float, clock: Clock | None = None
) -> None:
    """See from a thread of its own that the process ends after its parent, even if its event loop hangs.

    When the parent has died, the event loop gets its chance: it drains as long as it is alive. When it gives no sign of
    life, or is still there after ``limit``, all stacks go to standard error and the process exits with 5.

    Args:
        parent: Process id of the parent.
        beat: What the event loop changes as long as it is alive.
        silence: Seconds without a change after which it counts as hung.
        limit: Seconds from the parent's death to the end; infinite for as long as it takes.
        clock: Measures them.
    """
    monotonic = (clock or SystemClock()).monotonic

    def watch() -> None:
        _wait_for_end(parent)
        died = changed = monotonic()
        last = beat()
        nap = threading.Event()
        while True:
            nap.wait(_LOOK)
            now = monotonic()
            if (value := beat()) != last:
                last, changed = value, now
            if now - changed > silence or now - died > limit:
                os.write(2, b"the supervisor is gone and this worker does not end; it is at\n")
                faulthandler.dump_traceback(2, all_threads=True)
                os._exit(_CUT)

    threading.Thread(target=watch, name="sojourn-orphan", daemon=True).start()


class Fuse:
    """Lets the kernel kill this process when its main thread computes for so long without a sign of life.

    For what no thread of Python can end, because it keeps the interpreter to itself, such as an expression that
    backtracks for ever: the supervisor sees it, but an orphan has none. Only processor time counts, so a process that
    is stopped, suspended or debugged is left alone.

    Source: timer_create(2), CLOCK_THREAD_CPUTIME_ID. Does nothing on other systems than Linux.
    """

    def __init__(self) -> None:
        self._set: Callable[[float], object] | None = None
        if sys.platform != "linux":
            return
        import ctypes  # a worker has it anyway

        libc = ctypes.CDLL(None)
        if not hasattr(libc, "timer_create"):  # glibc before 2.34 has it elsewhere
            return
        clock_thread_cputime = 3
        # struct sigevent: the value (8 bytes), the signal, SIGEV_SIGNAL (0), and room up to 64 bytes.
        event = (ctypes.c_int * 16)(0, 0, int(signal.SIGKILL), 0)
        timer = ctypes.c_void_p()
        if libc.timer_create(clock_thread_cputime, event, ctypes.byref(timer)) != 0:
            return
        # struct itimerspec: interval and value, each in seconds and nanoseconds.
        spec = (ctypes.c_long * 4)()

        def arm(seconds: float) -> None:
            spec[2], spec[3] = int(seconds), int(seconds % 1 * 1e9)
            libc.timer_settime(timer, 0, spec, None)

        self._set = arm

    def sign_of_life(self, seconds: float) -> None:
        """Give the thread so much processor time from now on; 0 takes the fuse out. Called by the main thread."""
        if self._set is not None:
            self._set(seconds)


def _wait_for_end(parent: int) -> None:
    """Return when the parent has died."""
    try:
        fd = os.pidfd_open(parent)
    except (AttributeError, OSError):  # no Linux, an old one, or gone already
        nap = threading.Event()
        while os.getppid() == parent:
            nap.wait(_LOOK)
        return
    try:
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        while os.getppid() == parent:  # also when the number has gone to somebody else meanwhile
            poll.poll()
    finally:
        os.close(fd)
