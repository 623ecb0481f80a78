"""Threads of this process: how much processor time each has used."""

from __future__ import annotations

import sys
import threading
import time
from typing import Final

__all__ = ["processor_of", "processor_times", "waits_so_far"]

#: Threads that are asked; a program with more has other worries.
_MOST: Final = 64


def processor_of(native_id: int) -> float | None:
    """Seconds of processor time of a thread; None when it has ended, or where the kernel does not tell.

    Args:
        native_id: Its number in the kernel.

    Source: include/linux/posix-timers_types.h, MAKE_THREAD_CPUCLOCK. pthread_getcpuclockid(3) does the same sum, and
        reads freed memory when the thread has ended; the kernel just says no.
    """
    if sys.platform != "linux":
        return None
    try:
        return time.clock_gettime((~native_id << 3) | 6)
    except OSError:
        return None


def processor_times(known: dict[int, threading.Thread] | None = None) -> dict[int, float]:
    """Seconds of processor time by ``Thread.ident``.

    Args:
        known: The threads; None asks :mod:`threading`, which takes a lock, so not in a signal handler.
    """
    threads = threading.enumerate() if known is None else list(known.values())
    times = {}
    for thread in threads[:_MOST]:
        ident, native = thread.ident, thread.native_id
        if ident is not None and native is not None and (used := processor_of(native)) is not None:
            times[ident] = used
    return times


def waits_so_far() -> int | None:
    """How often the calling thread has given the processor away; None where the kernel does not tell.

    Source: getrusage(2), RUSAGE_THREAD, ru_nvcsw.
    """
    if sys.platform != "linux":
        return None
    import resource

    return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
