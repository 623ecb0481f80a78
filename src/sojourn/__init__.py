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
    from sojourn.clients.hub.client import HubClient
    from sojourn.config import Config
    from sojourn.ending import REASONS, Ending
    from sojourn.errors import (
        AccessDenied,
        ApplicationError,
        AuthenticationError,
        BindError,
        BulkheadFull,
        CircuitOpen,
        ClientDisconnected,
        ConfigError,
        DeadlineExceeded,
        EngineUnavailable,
        GuardRefused,
        HubFull,
        HubGone,
        HubRefused,
        JournalUnavailable,
        OffloadFull,
        PoolWaitExceeded,
        RateLimited,
        RateLimitsUnavailable,
        SecurityContextError,
        SessionStoreUnavailable,
        SojournError,
        StartupError,
        TaskArguments,
        TaskConflict,
        TaskFailed,
        TaskNotFound,
        WorkerDied,
        WorkersFull,
    )
    from sojourn.guards.auth.certificate import ClientCertificate
    from sojourn.guards.auth.jwt import JwtVerifier
    from sojourn.guards.auth.middleware import Authenticate
    from sojourn.guards.auth.sessions import AuthSessions
    from sojourn.guards.breaker import CircuitBreaker
    from sojourn.guards.bulkhead import Bulkhead
    from sojourn.guards.layers.guard import LayerWarning, guard_layers
    from sojourn.guards.layers.replay import read_body, replayable
    from sojourn.guards.rates.limiter import RateLimiter
    from sojourn.guards.rates.memory import MemoryRates
    from sojourn.guards.rates.middleware import RateLimit
    from sojourn.guards.rates.quota import Quota
    from sojourn.guards.rates.redis import RedisRates
    from sojourn.guards.retry import Retry
    from sojourn.guards.workers import Workers
    from sojourn.hub.hub import Hub
    from sojourn.hub.identity import Identity
    from sojourn.hub.local.engine import LocalEngine
    from sojourn.hub.memory import MemoryEngine
    from sojourn.hub.redis.engine import RedisEngine
    from sojourn.hub.rules import Channel, History, HubDrain, HubLimits, HubPing, Outbox, Presence
    from sojourn.observe.leaks.adapters import watch
    from sojourn.observe.leaks.leases import lease
    from sojourn.observe.log.ids import structlog_ids
    from sojourn.policy.breaker import BreakerThresholds
    from sojourn.policy.retry import Backoff, RetryBudget
    from sojourn.routing.fast import fast_routes
    from sojourn.routing.request import Request
    from sojourn.routing.response import Response
    from sojourn.routing.router import Router
    from sojourn.routing.websocket import WebSocket
    from sojourn.scopes.aborts import aborting
    from sojourn.scopes.adoption import adopt
    from sojourn.scopes.afterwards import after_response
    from sojourn.scopes.budget import budget
    from sojourn.scopes.context import SecurityContext, acting_as, require, security, stream_as
    from sojourn.scopes.deadline import Deadline, deadline, remaining, timeout_at
    from sojourn.scopes.offload import Offload, offload
    from sojourn.scopes.shielded import shielded
    from sojourn.scopes.snapshot import snapshot
    from sojourn.scopes.spawn import spawn
    from sojourn.server.report import Report
    from sojourn.server.server import Server, run, serve
    from sojourn.sessions.cookie import SessionCookie
    from sojourn.sessions.cookies import CookieSessions
    from sojourn.sessions.memory import MemorySessions
    from sojourn.sessions.middleware import Sessions
    from sojourn.sessions.redis import RedisSessions
    from sojourn.sessions.session import Session
    from sojourn.sessions.sqlite import SqliteSessions
    from sojourn.sessions.user import session_user
    from sojourn.tasks.current import CurrentTask, current_task
    from sojourn.tasks.postgres.journal import PostgresJournal
    from sojourn.tasks.redis.journal import RedisJournal
    from sojourn.tasks.sqlite.journal import SqliteJournal
    from sojourn.tasks.started import Started
    from sojourn.tasks.tasks import Tasks
    from sojourn.tasks.webhooks import Webhooks, verify_webhook
    from sojourn.wire.sse import ServerSentEvent

__all__ = [
    "REASONS",
    "AccessDenied",
    "ApplicationError",
    "AuthSessions",
    "Authenticate",
    "AuthenticationError",
    "Backoff",
    "BindError",
    "BreakerThresholds",
    "Bulkhead",
    "BulkheadFull",
    "Channel",
    "CircuitBreaker",
    "CircuitOpen",
    "ClientCertificate",
    "ClientDisconnected",
    "Config",
    "ConfigError",
    "CookieSessions",
    "CurrentTask",
    "Deadline",
    "DeadlineExceeded",
    "Ending",
    "EngineUnavailable",
    "GuardRefused",
    "History",
    "Hub",
    "HubClient",
    "HubDrain",
    "HubFull",
    "HubGone",
    "HubLimits",
    "HubPing",
    "HubRefused",
    "Identity",
    "JournalUnavailable",
    "JwtVerifier",
    "LayerWarning",
    "LocalEngine",
    "MemoryEngine",
    "MemoryRates",
    "MemorySessions",
    "Offload",
    "OffloadFull",
    "Outbox",
    "PoolWaitExceeded",
    "PostgresJournal",
    "Presence",
    "Quota",
    "RateLimit",
    "RateLimited",
    "RateLimiter",
    "RateLimitsUnavailable",
    "RedisEngine",
    "RedisJournal",
    "RedisRates",
    "RedisSessions",
    "Report",
    "Request",
    "RequestControl",
    "Response",
    "Retry",
    "RetryBudget",
    "Router",
    "SecurityContext",
    "SecurityContextError",
    "Server",
    "ServerControl",
    "ServerSentEvent",
    "Session",
    "SessionCookie",
    "SessionStoreUnavailable",
    "Sessions",
    "SojournError",
    "SqliteJournal",
    "SqliteSessions",
    "Started",
    "StartupError",
    "TaskArguments",
    "TaskConflict",
    "TaskFailed",
    "TaskNotFound",
    "Tasks",
    "WebSocket",
    "Webhooks",
    "WorkerDied",
    "Workers",
    "WorkersFull",
    "aborting",
    "acting_as",
    "adopt",
    "after_response",
    "budget",
    "current_request",
    "current_server",
    "current_task",
    "deadline",
    "draining",
    "event_stream",
    "fast_routes",
    "guard_layers",
    "lease",
    "limits",
    "offload",
    "read_body",
    "remaining",
    "replayable",
    "require",
    "run",
    "security",
    "serve",
    "session_user",
    "shielded",
    "snapshot",
    "spawn",
    "stream_as",
    "structlog_ids",
    "timeout_at",
    "timeouts",
    "verify_webhook",
    "watch",
]

__version__ = "0.1.0"

_HOMES = {
    "REASONS": "sojourn.ending",
    "Ending": "sojourn.ending",
    "ApplicationError": "sojourn.errors",
    "AuthenticationError": "sojourn.errors",
    "BindError": "sojourn.errors",
    "BulkheadFull": "sojourn.errors",
    "CircuitOpen": "sojourn.errors",
    "ClientDisconnected": "sojourn.errors",
    "ConfigError": "sojourn.errors",
    "DeadlineExceeded": "sojourn.errors",
    "GuardRefused": "sojourn.errors",
    "RateLimited": "sojourn.errors",
    "RateLimitsUnavailable": "sojourn.errors",
    "SojournError": "sojourn.errors",
    "StartupError": "sojourn.errors",
    "WorkersFull": "sojourn.errors",
    "PoolWaitExceeded": "sojourn.errors",
    "SecurityContextError": "sojourn.errors",
    "SessionStoreUnavailable": "sojourn.errors",
    "AccessDenied": "sojourn.errors",
    "OffloadFull": "sojourn.errors",
    "WorkerDied": "sojourn.errors",
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
    "fast_routes": "sojourn.routing.fast",
    "Request": "sojourn.routing.request",
    "Response": "sojourn.routing.response",
    "Router": "sojourn.routing.router",
    "WebSocket": "sojourn.routing.websocket",
    "aborting": "sojourn.scopes.aborts",
    "adopt": "sojourn.scopes.adoption",
    "budget": "sojourn.scopes.budget",
    "Deadline": "sojourn.scopes.deadline",
    "deadline": "sojourn.scopes.deadline",
    "remaining": "sojourn.scopes.deadline",
    "timeout_at": "sojourn.scopes.deadline",
    "shielded": "sojourn.scopes.shielded",
    "SecurityContext": "sojourn.scopes.context",
    "acting_as": "sojourn.scopes.context",
    "security": "sojourn.scopes.context",
    "require": "sojourn.scopes.context",
    "stream_as": "sojourn.scopes.context",
    "snapshot": "sojourn.scopes.snapshot",
    "spawn": "sojourn.scopes.spawn",
    "after_response": "sojourn.scopes.afterwards",
    "offload": "sojourn.scopes.offload",
    "Offload": "sojourn.scopes.offload",
    "AuthSessions": "sojourn.guards.auth.sessions",
    "Authenticate": "sojourn.guards.auth.middleware",
    "ClientCertificate": "sojourn.guards.auth.certificate",
    "JwtVerifier": "sojourn.guards.auth.jwt",
    "LayerWarning": "sojourn.guards.layers.guard",
    "guard_layers": "sojourn.guards.layers.guard",
    "read_body": "sojourn.guards.layers.replay",
    "replayable": "sojourn.guards.layers.replay",
    "MemoryRates": "sojourn.guards.rates.memory",
    "Quota": "sojourn.guards.rates.quota",
    "RateLimit": "sojourn.guards.rates.middleware",
    "RateLimiter": "sojourn.guards.rates.limiter",
    "RedisRates": "sojourn.guards.rates.redis",
    "Report": "sojourn.server.report",
    "Server": "sojourn.server.server",
    "run": "sojourn.server.server",
    "serve": "sojourn.server.server",
    "CookieSessions": "sojourn.sessions.cookies",
    "MemorySessions": "sojourn.sessions.memory",
    "RedisSessions": "sojourn.sessions.redis",
    "Session": "sojourn.sessions.session",
    "SessionCookie": "sojourn.sessions.cookie",
    "Sessions": "sojourn.sessions.middleware",
    "SqliteJournal": "sojourn.tasks.sqlite.journal",
    "SqliteSessions": "sojourn.sessions.sqlite",
    "session_user": "sojourn.sessions.user",
    "CircuitBreaker": "sojourn.guards.breaker",
    "Bulkhead": "sojourn.guards.bulkhead",
    "Retry": "sojourn.guards.retry",
    "Workers": "sojourn.guards.workers",
    "BreakerThresholds": "sojourn.policy.breaker",
    "Backoff": "sojourn.policy.retry",
    "RetryBudget": "sojourn.policy.retry",
    "Hub": "sojourn.hub.hub",
    "Channel": "sojourn.hub.rules",
    "History": "sojourn.hub.rules",
    "Outbox": "sojourn.hub.rules",
    "Presence": "sojourn.hub.rules",
    "HubDrain": "sojourn.hub.rules",
    "HubLimits": "sojourn.hub.rules",
    "HubPing": "sojourn.hub.rules",
    "Identity": "sojourn.hub.identity",
    "EngineUnavailable": "sojourn.errors",
    "HubClient": "sojourn.clients.hub.client",
    "HubFull": "sojourn.errors",
    "HubGone": "sojourn.errors",
    "HubRefused": "sojourn.errors",
    "LocalEngine": "sojourn.hub.local.engine",
    "MemoryEngine": "sojourn.hub.memory",
    "RedisEngine": "sojourn.hub.redis.engine",
    "PostgresJournal": "sojourn.tasks.postgres.journal",
    "RedisJournal": "sojourn.tasks.redis.journal",
    "Webhooks": "sojourn.tasks.webhooks",
    "verify_webhook": "sojourn.tasks.webhooks",
    "Tasks": "sojourn.tasks.tasks",
    "current_task": "sojourn.tasks.current",
    "CurrentTask": "sojourn.tasks.current",
    "Started": "sojourn.tasks.started",
    "JournalUnavailable": "sojourn.errors",
    "TaskArguments": "sojourn.errors",
    "TaskConflict": "sojourn.errors",
    "TaskFailed": "sojourn.errors",
    "TaskNotFound": "sojourn.errors",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'sojourn' has no attribute {name!r}")
    return getattr(importlib.import_module(home), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
