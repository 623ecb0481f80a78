"""Per-route settings: the few keys a request may have of its own."""

from __future__ import annotations

from typing import Any, Final

from sojourn.clock import NEVER
from sojourn.config import Config, Route
from sojourn.errors import ConfigError

__all__ = ["Overrides", "RouteTable"]

_REMEMBERED: Final = 1024


class Overrides:
    """What differs from the configuration for a request. An absent key means: as configured.

    Args:
        timeouts: Keys of ``sojourn.config.Timeouts`` in seconds; None takes a limit away.
        limits: Keys of ``sojourn.config.Limits``.
        websocket: Keys of ``sojourn.config.WebSocket``.
    """

    __slots__ = ("limits", "timeouts", "websocket")

    def __init__(
        self,
        timeouts: dict[str, float | None] | None = None,
        limits: dict[str, int | None] | None = None,
        websocket: dict[str, Any] | None = None,
    ) -> None:
        self.timeouts = timeouts or {}
        self.limits = limits or {}
        self.websocket = websocket or {}


def _plain(group: dict[str, Any]) -> dict[str, Any]:
    return {key: None if value == "none" else value for key, value in group.items()}


class RouteTable:
    """The ``[[routes]]`` of the configuration, looked up by path. The first that matches counts.

    Args:
        config: The configuration; an unknown key in a route is refused.

    Raises:
        ConfigError: A route names a key that its group does not have.
    """

    __slots__ = ("_known", "_routes")

    def __init__(self, config: Config) -> None:
        self._routes: list[tuple[Route, Overrides]] = []
        for number, route in enumerate(config.routes):
            for name, group in (
                ("timeouts", config.timeouts),
                ("limits", config.limits),
                ("websocket", config.websocket),
            ):
                for key in getattr(route, name):
                    if key not in group.__struct_fields__:
                        raise ConfigError(f"there is no such key in {name}", key=f"routes[{number}].{name}.{key}")
            self._routes.append(
                (route, Overrides(_plain(route.timeouts), _plain(route.limits), _plain(route.websocket)))
            )
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


def moment(now: float, timeout: float | None) -> float:
    """A deadline ``timeout`` seconds ahead; NEVER for None."""
    return NEVER if timeout is None else now + timeout
