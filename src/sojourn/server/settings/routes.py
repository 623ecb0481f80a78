"""``[[routes]]``: other settings for some paths, checked like the keys of the groups they override."""

from __future__ import annotations

import re
from typing import Any, Final, Literal

from sojourn.asgi.overrides import PER_REQUEST
from sojourn.config import Route
from sojourn.errors import ConfigError
from sojourn.server.settings import values
from sojourn.server.settings.files import Source
from sojourn.server.settings.keys import closest, keys

__all__ = ["GROUPS", "overridable", "read"]

#: The groups a route may override.
GROUPS: Final = tuple(PER_REQUEST)

_NAMES: Final = ("path", "methods", "priority", *GROUPS)

_METHOD: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 section 5.6.2, token


def overridable(path: str) -> bool:
    """Whether a route may set this key."""
    group, _, name = path.partition(".")
    return name in PER_REQUEST.get(group, ())


def read(source: Source, problems: list[ConfigError]) -> tuple[tuple[Route, ...], list[str]]:
    """The routes of a file in their order, and the paths of the keys they set. What is wrong goes to ``problems``."""
    tables = source.data["routes"]
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        problems.append(
            ConfigError("is a list of tables: write [[routes]]", key="routes", origin=source.where("routes"))
        )
        return (), []
    found: list[Route] = []
    set_there: list[str] = []
    for index, table in enumerate(tables):
        reader = _Reader(source, f"routes[{index}]", problems)
        route = reader.route(table)
        if route is not None:
            found.append(route)
        set_there += reader.set_there
    return tuple(found), set_there


class _Reader:
    """Reads one table."""

    def __init__(self, source: Source, prefix: str, problems: list[ConfigError]) -> None:
        self._source = source
        self._prefix = prefix
        self._problems = problems
        self.set_there: list[str] = []

    def route(self, table: dict[str, Any]) -> Route | None:
        before = len(self._problems)
        for name in table:
            if name not in _NAMES:
                near = closest(name, _NAMES)
                self._refuse(name, f"no such key; did you mean {near}?" if near else f"write {', '.join(_NAMES)}")
        path = self._path(table.get("path"))
        methods = self._methods(table.get("methods", []))
        priority = self._priority(table.get("priority"))
        groups = {group: self._group(group, table.get(group, {})) for group in GROUPS}
        return Route(path=path, methods=methods, priority=priority, **groups) if len(self._problems) == before else None

    def _refuse(self, name: str, message: str) -> None:
        path = f"{self._prefix}.{name}" if name else self._prefix
        self._problems.append(ConfigError(message, key=path, origin=self._source.where(path)))

    def _path(self, raw: object) -> str:
        if raw is None:
            self._refuse("", 'has no path: write path = "/..."')
        elif not isinstance(raw, str) or not raw.startswith("/") or "*" in raw[:-1]:
            self._refuse("path", f"{raw!r} is not a path: it begins with / and may end with *")
        else:
            self.set_there.append(f"{self._prefix}.path")
            return raw
        return ""

    def _methods(self, raw: object) -> tuple[str, ...]:
        if isinstance(raw, list) and all(isinstance(method, str) and _METHOD.fullmatch(method) for method in raw):
            if raw:
                self.set_there.append(f"{self._prefix}.methods")
            return tuple(method.upper() for method in raw)
        self._refuse("methods", f'{raw!r} is not a list of methods, such as ["GET", "HEAD"]')
        return ()

    def _priority(self, raw: object) -> Literal["high", "normal", "low"]:
        match raw:
            case None:
                return "normal"
            case "high" | "normal" | "low":
                self.set_there.append(f"{self._prefix}.priority")
                return raw
        self._refuse("priority", f"{raw!r} is no priority: write high, normal or low")
        return "normal"

    def _group(self, group: str, table: object) -> dict[str, Any]:
        if not isinstance(table, dict):
            self._refuse(group, f"is a group of keys: write {group} = {{ ... }} or [routes.{group}]")
            return {}
        chosen: dict[str, Any] = {}
        for name, raw in table.items():
            path = f"{group}.{name}"
            if not overridable(path):
                self._refuse(path, self._why_not(group, path))
                continue
            try:
                value = values.read(keys()[path], raw)
            except ValueError as exc:
                self._refuse(path, str(exc))
            else:
                chosen[name] = "none" if value is None else value
                self.set_there.append(f"{self._prefix}.{path}")
        return chosen

    def _why_not(self, group: str, path: str) -> str:
        if path in keys():
            return f"can't differ per route: set {path} for all"
        near = closest(path.partition(".")[2], sorted(PER_REQUEST[group]))
        return f"no such key; did you mean {near}?" if near else "no such key"
