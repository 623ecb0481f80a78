"""Sojourn: an ASGI server and toolkit for services that hold connections for a long time.

Every wait has a deadline, every connection is accounted for, every shutdown drains, every leak is named.

Names are loaded when they are first used, so ``import sojourn`` in an application costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sojourn.asgi.context import current_request, limits, timeouts
    from sojourn.asgi.control import RequestControl
    from sojourn.config import Config
    from sojourn.ending import REASONS, Ending
    from sojourn.errors import (
        ApplicationError,
        BindError,
        ClientDisconnected,
        ConfigError,
        DeadlineExceeded,
        SojournError,
        StartupError,
    )
    from sojourn.server.lifecycle import Report
    from sojourn.server.server import Server, run, serve

__all__ = [
    "REASONS",
    "ApplicationError",
    "BindError",
    "ClientDisconnected",
    "Config",
    "ConfigError",
    "DeadlineExceeded",
    "Ending",
    "Report",
    "RequestControl",
    "Server",
    "SojournError",
    "StartupError",
    "current_request",
    "limits",
    "run",
    "serve",
    "timeouts",
]

__version__ = "0.1.0"

_HOMES = {
    "REASONS": "sojourn.ending",
    "Ending": "sojourn.ending",
    "ApplicationError": "sojourn.errors",
    "BindError": "sojourn.errors",
    "ClientDisconnected": "sojourn.errors",
    "ConfigError": "sojourn.errors",
    "DeadlineExceeded": "sojourn.errors",
    "SojournError": "sojourn.errors",
    "StartupError": "sojourn.errors",
    "Config": "sojourn.config",
    "RequestControl": "sojourn.asgi.control",
    "current_request": "sojourn.asgi.context",
    "limits": "sojourn.asgi.context",
    "timeouts": "sojourn.asgi.context",
    "Report": "sojourn.server.lifecycle",
    "Server": "sojourn.server.server",
    "run": "sojourn.server.server",
    "serve": "sojourn.server.server",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'sojourn' has no attribute {name!r}")
    return getattr(importlib.import_module(home), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
