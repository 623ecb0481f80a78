"""Which files only run other people's code: a report names the first place outside of them."""

from __future__ import annotations

import asyncio
import os
from enum import IntEnum
from pathlib import Path
from typing import Final

__all__ = ["Part", "part_of"]

_ASYNCIO: Final = str(Path(asyncio.__file__).parent) + os.sep
_SOJOURN: Final = str(Path(__file__).parents[2]) + os.sep
#: Installed packages, wherever they are installed.
_PACKAGES: Final = tuple(f"{os.sep}{name}{os.sep}" for name in ("anyio", "uvloop"))
#: Below them is only who runs the event loop.
_LOOP: Final = tuple(_ASYNCIO + name for name in ("events.py", "runners.py"))


class Part(IntEnum):
    """What a source file is part of. Zero is what the hot path tests for."""

    APPLICATION = 0  # or a library
    MACHINERY = 1
    LOOP = 2


def part_of(file: str) -> Part:
    """What a source file, named by its path, is part of."""
    if file.startswith(_LOOP):
        return Part.LOOP
    if file.startswith((_ASYNCIO, _SOJOURN)) or any(package in file for package in _PACKAGES):
        return Part.MACHINERY
    return Part.APPLICATION
