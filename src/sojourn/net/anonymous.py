"""Files without a name: memory that a descriptor stands for."""

from __future__ import annotations

import os
import tempfile

__all__ = ["anonymous_file"]


def anonymous_file(name: str) -> int:
    """A file without a place in a folder; children do not inherit it.

    Args:
        name: Shown by the system beside the descriptor.
    """
    if hasattr(os, "memfd_create"):
        return os.memfd_create(name, os.MFD_CLOEXEC)
    with tempfile.TemporaryFile(prefix=name) as file:  # other systems than Linux
        return os.dup(file.fileno())
