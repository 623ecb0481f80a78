"""Per-route settings: the few keys a request may have of its own."""

from __future__ import annotations

from typing import Any, Final

from sojourn.config import Config, Route
from sojourn.errors import ConfigError
from sojourn.policy.priority import Priority

__all__ = ["PER_REQUEST", "Overrides", "RouteTable"]

_REMEMBERED: Final = 1024

#: The keys that are looked up for each request. All others are needed before the path is known, or belong to the
#: connection or the worker.
PER_REQUEST: Final = {
    "timeouts": frozenset({"body", "body_idle", "handler", "response_start", "stream_idle", "write_idle"}),
    "limits": frozenset({"body", "body_min_rate", "write_min_rate"}),
    "websocket": frozenset(
        {
            "close",
            "compression",
            "idle",
            "inflate_ratio",
            "message",
            "open",
            "ping_interval",
            "ping_misses",
            "ping_timeout",
            "write",
        }
    ),
}


class Overrides:
    """What differs from the configuration for a request. An absent key means: as configured.

    Args:
        timeouts: Keys of ``sojourn.config.Timeouts`` in seconds; None takes a limit away.
        limits: Keys of ``sojourn.config.Limits``.
        websocket: Keys of ``sojourn.config.WebSocket``.
        priority: Its class under overload.
    """

    __slots__ = ("limits", "priority", "timeouts", "websocket")

    def __init__(
        self,
        timeouts: dict[str, float | None] | None = None,
        limits: dict[str, int | None] | None = None,
        websocket: dict[str, Any] | None = None,
        priority: Priority = Priority.NORMAL,
    ) -> None:
        self.timeouts = timeouts or {}
        self.limits = limits or {}
        self.websocket = websocket or {}
        self.priority = priority


def _plain(group: dict[str, Any]) -> dict[str, Any]:
    return {key: None if value == "none" else value for key, value in group.items()}


class RouteTable:
    """The ``[[routes]]`` of the configuration, looked up by path. The first that matches counts.

    Args:
        config: The configuration.

    Raises:
        ConfigError: A route sets a key that does not exist or can't differ per route, or a timeout that is not above 0.
    """

    __slots__ = ("_known", "_routes")

    def __init__(self, config: Config) -> None:
        self._routes: list[tuple[Route, Overrides]] = []
        for number, route in enumerate(config.routes):
            for group, allowed in PER_REQUEST.items():
                for key, value in getattr(route, group).items():
                    if key not in allowed:
                        known = key in getattr(config, group).__struct_fields__
                        problem = f"can't differ per route: set {group}.{key} for all" if known else "no such key"
                    elif group == "timeouts" and value != "none" and not value > 0:
                        problem = f"{value!r} is not above 0; write none for no limit"
                    else:
                        continue
                    raise ConfigError(problem, key=f"routes[{number}].{group}.{key}")
            priority = Priority[route.priority.upper()]
            groups = _plain(route.timeouts), _plain(route.limits), _plain(route.websocket)
            self._routes.append((route, Overrides(*groups, priority)))
        self._known: dict[tuple[str, str], Overrides | None] = {}

    def match(self, method: str, path: str) -> Overrides | None:
        """The overrides for a request; None when no route matches."""
        key = (method, path)
        try:
            return self._known[key]
        except KeyError:
            found = self._search(method, path)
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[key] = found
            return found

    def _search(self, method: str, path: str) -> Overrides | None:
        for route, overrides in self._routes:
            if route.methods and method not in route.methods:
                continue
            if path == route.path or (route.path.endswith("*") and path.startswith(route.path[:-1])):
                return overrides
        return None
