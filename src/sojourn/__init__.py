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
    from sojourn.asgi.event_stream import event_stream
    from sojourn.asgi.server_control import ServerControl, current_server, draining
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
    from sojourn.observe.leaks.adapters import watch
    from sojourn.observe.leaks.leases import lease
    from sojourn.observe.log.ids import structlog_ids
    from sojourn.scopes.aborts import aborting
    from sojourn.scopes.adoption import adopt
    from sojourn.scopes.budget import budget
    from sojourn.scopes.deadline import Deadline, deadline, remaining, timeout_at
    from sojourn.scopes.shielded import shielded
    from sojourn.server.report import Report
    from sojourn.server.server import Server, run, serve
    from sojourn.wire.sse import ServerSentEvent

__all__ = [
    "REASONS",
    "ApplicationError",
    "BindError",
    "ClientDisconnected",
    "Config",
    "ConfigError",
    "Deadline",
    "DeadlineExceeded",
    "Ending",
    "Report",
    "RequestControl",
    "Server",
    "ServerControl",
    "ServerSentEvent",
    "SojournError",
    "StartupError",
    "aborting",
    "adopt",
    "budget",
    "current_request",
    "current_server",
    "deadline",
    "draining",
    "event_stream",
    "lease",
    "limits",
    "remaining",
    "run",
    "serve",
    "shielded",
    "structlog_ids",
    "timeout_at",
    "timeouts",
    "watch",
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
    "ServerControl": "sojourn.asgi.server_control",
    "ServerSentEvent": "sojourn.wire.sse",
    "current_request": "sojourn.asgi.context",
    "current_server": "sojourn.asgi.server_control",
    "draining": "sojourn.asgi.server_control",
    "event_stream": "sojourn.asgi.event_stream",
    "limits": "sojourn.asgi.context",
    "timeouts": "sojourn.asgi.context",
    "lease": "sojourn.observe.leaks.leases",
    "watch": "sojourn.observe.leaks.adapters",
    "structlog_ids": "sojourn.observe.log.ids",
    "aborting": "sojourn.scopes.aborts",
    "adopt": "sojourn.scopes.adoption",
    "budget": "sojourn.scopes.budget",
    "Deadline": "sojourn.scopes.deadline",
    "deadline": "sojourn.scopes.deadline",
    "remaining": "sojourn.scopes.deadline",
    "timeout_at": "sojourn.scopes.deadline",
    "shielded": "sojourn.scopes.shielded",
    "Report": "sojourn.server.report",
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
