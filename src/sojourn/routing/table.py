"""The routes of a router: what is defined, what does not go together, and the tree made of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final

from sojourn.errors import RouteError
from sojourn.routing.converters import BUILT_IN, Converter
from sojourn.routing.pattern import Pattern, Shape, parse
from sojourn.routing.reverse import Names
from sojourn.routing.route import Route
from sojourn.routing.tree import WEBSOCKET, Tree

__all__ = ["Table"]

#: In the place of a method: who takes every method that nobody else has.
_OTHER: Final = "(other)"


class Table:
    """All routes of a router.

    The tree is made when it is first needed after a change, and is never changed itself: a lookup that runs meanwhile
    has the old one.

    Args:
        converters: Types of parameters, beside the usual ones.
        loose: Whether a slash more or less at the end makes no difference.
    """

    __slots__ = ("_closed", "_converters", "_loose", "_names", "_taken", "_tree", "routes")

    def __init__(self, converters: Mapping[str, Converter], *, loose: bool) -> None:
        self.routes: list[Route] = []
        self._converters: Mapping[str, Converter] = MappingProxyType({**BUILT_IN, **converters})
        self._loose = loose
        self._names = Names()
        self._taken: dict[Shape, dict[str, Route]] = {}
        self._tree: Tree[Route] | None = None
        self._closed = False

    def parse(self, pattern: str) -> Pattern:
        """A pattern with the types of this table."""
        return parse(pattern, self._converters)

    def tree(self) -> Tree[Route]:
        """The tree of all routes that are defined now."""
        if self._tree is None:
            self._tree = Tree(self._entries(), self._converters)
        return self._tree

    def _entries(self) -> Iterator[tuple[Pattern, Iterable[str] | None, Route]]:
        for route in self.routes:
            yield route.pattern, route.methods, route
            if route.mount:
                yield route.pattern, (WEBSOCKET,), route

    def define(self, route: Route, name: str | None) -> None:
        """Add a route.

        Args:
            route: It.
            name: Its name; None for that of its endpoint.

        Raises:
            RouteError: It does not go together with another, or the table is part of another.
        """
        route.explicit = bool(name)
        route.name = getattr(route.endpoint, "__name__", "") if name is None else name
        if ":" in route.name:
            raise RouteError(f"a name has no colon, which stands between a mount and its routes: {route.name!r}")
        self._check(route)
        self._put(route)

    def include(self, other: Table, prefix: str, name: str) -> None:
        """Take over the routes of another table, all or none; that one is closed by it.

        Args:
            other: Whose routes.
            prefix: What stands in front of their patterns.
            name: What stands in front of their names, with a colon; "" for nothing.

        Raises:
            RouteError: One does not go together with a route here.
        """
        if other is self or other._closed:
            raise RouteError("a router is part of one other router, and not of itself")
        differing = [kind for kind, made in other._converters.items() if self._converters.get(kind, made) is not made]
        if differing:
            raise RouteError(f"both routers have a type called {differing[0]!r}, and not the same")
        above = self.parse(prefix.rstrip("/"))
        converters = MappingProxyType({**self._converters, **other._converters})
        routes = []
        for route in other.routes:
            whole = parse(above.text + route.pattern.text, converters)  # a name twice, or too deep
            rest = route.pattern.segments[len(whole.segments) - len(above.segments) :]  # of a mount
            made = route.copy(Pattern(whole.text, whole.segments + rest))
            made.name = f"{name}:{made.name}" if name and made.name else made.name
            self._check(made)
            routes.append(made)
        self._converters = converters
        for route in routes:
            self._put(route)
        other._closed = True

    def path(self, name: str, values: Mapping[str, Any]) -> str:
        """The path of a route by name; see :meth:`Router.url_for`."""
        return self._names.path(self._converters, name, values)

    def _check(self, route: Route) -> None:
        if self._closed:
            raise RouteError(f"this router is part of another one: define {route} there, or before")
        taken = self._taken.get(self._shape(route), {})
        for key, other in taken.items():
            if route.mount or other.mount or key in _keys(route):
                raise RouteError(f"two routes answer the same: {other} and {route}")
        self._names.check(route)

    def _put(self, route: Route) -> None:
        taken = self._taken.setdefault(self._shape(route), {})
        for key in _keys(route):
            taken[key] = route
        self._names.add(route)
        self.routes.append(route)
        self._tree = None

    def _shape(self, route: Route) -> Shape:
        shape = route.pattern.shape
        # "/a" and "/a/" are the same where a slash makes no difference; "/" alone stays.
        return shape[:-1] if self._loose and len(shape) > 1 and shape[-1] == "" else shape


def _keys(route: Route) -> Iterable[str]:
    return route.methods if route.methods is not None else (_OTHER,)
