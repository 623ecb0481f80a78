"""This process, as the kernel accounts for it."""

from __future__ import annotations

import resource
import sys
from pathlib import Path
from typing import Final

__all__ = ["processor_seconds", "resident_bytes"]

_STATM: Final = Path("/proc/self/statm")


def resident_bytes() -> int:
    """Resident memory. Source: proc(5), statm."""
    try:
        return int(_STATM.read_text().split()[1]) * resource.getpagesize()
    except OSError:  # no /proc: its highest so far
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def processor_seconds() -> float:
    """Processor time."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
