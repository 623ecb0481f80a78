"""From a name and values back to a path."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from sojourn.errors import RouteError
from sojourn.routing.converters import Converter
from sojourn.routing.pattern import Pattern
from sojourn.routing.route import Route

__all__ = ["Names"]


class Names:
    """The routes of a router by name.

    A name that was given belongs to one pattern. A name that was taken from a handler may be there more than once, and
    is then no name.
    """

    __slots__ = ("_routes",)

    def __init__(self) -> None:
        self._routes: dict[str, list[Route]] = {}

    def check(self, route: Route) -> None:
        """Raises RouteError when its name was given to another pattern."""
        if not route.explicit:
            return
        for other in self._routes.get(route.name, ()):
            if other.explicit and (other.path != route.path or route.mount):
                raise RouteError(f"two routes have the name {route.name!r}: {other} and {route}")

    def add(self, route: Route) -> None:
        """Remember a route by its name; one that was given goes before those that were not."""
        if route.name:
            known = self._routes.setdefault(route.name, [])
            if route.explicit and not all(other.explicit for other in known):
                known.clear()
            if not known or route.explicit or not known[0].explicit:
                known.append(route)

    def path(self, converters: Mapping[str, Converter], name: str, values: Mapping[str, Any]) -> str:
        """The path of a route, percent-encoded.

        Raises:
            RouteError: No route has this name, several have it, or the values are not those it needs.
        """
        found = self._routes.get(name)
        if found is None:
            mount, inner = self._mount(name)
            return _below(converters, mount, inner, values)
        if len({route.path for route in found}) > 1:
            shown = " and ".join(map(repr, found))
            raise RouteError(f"give them names, for {name!r} could be {shown}")
        return found[0].pattern.fill(converters, values)

    def _mount(self, name: str) -> tuple[Route, str]:
        """The mount that a name begins with, and the rest of the name."""
        words = name.split(":")
        for at in range(1, len(words)):
            for route in self._routes.get(":".join(words[:at]), ()):
                if route.mount:
                    return route, ":".join(words[at:])
        raise RouteError(f"no route has the name {name!r}")


def _below(converters: Mapping[str, Converter], mount: Route, name: str, values: Mapping[str, Any]) -> str:
    """The path of a name in the application that is mounted: of another Router, or of Starlette and its like."""
    segments = mount.pattern.segments[:-1]
    own = Pattern(mount.path, segments)
    prefix = own.fill(converters, {key: values[key] for key in own.names if key in values})
    rest = {key: value for key, value in values.items() if key not in own.names}
    app = mount.endpoint
    inside = getattr(app, "url_for", None)
    if inside is not None:
        return prefix + str(inside(name, **rest))
    foreign = getattr(app, "url_path_for", None)
    if foreign is None:
        raise RouteError(f"{mount} can't be asked for the path of {name!r}")
    try:
        return prefix + quote(str(foreign(name, **rest)), safe="/%!$&'()*+,;=:@")
    except Exception as error:  # whatever that framework raises is one mistake here: a name it does not have
        raise RouteError(f"{mount} has no path for {name!r}: {error}") from error
