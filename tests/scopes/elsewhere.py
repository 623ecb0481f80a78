"""Functions that are called in other processes: light to import."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

from sojourn.errors import AccessDenied
from sojourn.scopes.context import SecurityContext, require, security
from sojourn.scopes.deadline import current_limit, remaining


def who() -> tuple[str, bool, int]:
    """Who acts, whether claims came along, and the process."""
    context = security()
    return context.principal, bool(context.claims), os.getpid()


def left() -> tuple[float | None, str]:
    """How long there is time, and by whose limit."""
    limit = current_limit()
    return remaining(), "" if limit is None else limit.name


def needs(role: str) -> SecurityContext:
    """Raises what can travel."""
    return require(role)


def denied() -> None:
    raise AccessDenied("alice", "it lacks editor")


def spin(started: str) -> None:
    """Compute for ever; the file says that it has begun, and where."""
    Path(started).write_text(str(os.getpid()), encoding="utf-8")
    while True:
        pass


def leave(code: int) -> None:
    os._exit(code)


def exit_politely() -> None:
    sys.exit(3)


def raise_local() -> None:
    class Local(Exception):
        """Can't be pickled."""

    raise Local("only here")


def unpicklable() -> object:
    return threading.Lock()


def nap(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()
