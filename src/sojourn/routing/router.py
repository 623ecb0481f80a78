"""The router: a plain ASGI application that finds who answers a path."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple, TypeVar

from sojourn.errors import RouteError
from sojourn.routing.converters import REST, Converter
from sojourn.routing.lifespan import Context, live
from sojourn.routing.misses import SLASHES, Misses, Slashes, toggled
from sojourn.routing.pattern import Parameter, Pattern
from sojourn.routing.route import SOCKET, Handler, Route, answering, conversing, method_names
from sojourn.routing.table import Table
from sojourn.routing.tree import WEBSOCKET
from sojourn.typing import ASGIApp, Receive, Scope, Send

__all__ = ["Found", "Router"]

H = TypeVar("H", bound=Callable[..., Any])
_REST: Final = Parameter("", REST, REST, "")


class Found(NamedTuple):
    """What a path leads to.

    Attributes:
        route: Who answers.
        params: The values of its parameters.
    """

    route: Route
    params: dict[str, Any]


class Router:
    """Finds who answers a path, in time that the number of routes does not change. A plain ASGI application.

    Text in a pattern comes before parameters, narrow parameters before wide ones, and those before what takes the rest
    of the path; the order of definition does not matter. GET answers HEAD, OPTIONS is answered by itself, another
    method with 405. Two routes for the same thing are refused when the second is defined.

    Args:
        slashes: What happens to a path that would match with a slash more or less at its end: ``redirect`` (307, the
            method and the body stay), ``permanent`` (308), ``ignore`` (it matches), ``strict`` (404).
        converters: Further types of parameters.
        not_found: An ASGI application that answers what matches nothing; None for a problem document with 404.
        lifespan: A function that takes the router and gives an async context manager, entered at startup; a mapping
            that it yields goes into the state of every request. None for nothing.

    Raises:
        RouteError: ``slashes`` is none of these words.

    Example:
        >>> router = Router()
        >>> @router.get("/users/{id:int}")
        ... async def user(request):
        ...     return {"id": request.path_params["id"]}
        >>> router.url_for("user", id=7), router.find("GET", "/users/7").params
        ('/users/7', {'id': 7})
    """

    def __init__(
        self,
        *,
        slashes: Slashes = "redirect",
        converters: Mapping[str, Converter] | None = None,
        not_found: ASGIApp | None = None,
        lifespan: Callable[[Any], Context] | None = None,
    ) -> None:
        if slashes not in SLASHES:
            raise RouteError(f"slashes is one of {', '.join(SLASHES)}, not {slashes!r}")
        self._table = Table(converters or {}, loose=slashes == "ignore")
        self._misses = Misses(slashes, not_found)
        self._loose = slashes == "ignore"
        self._lifespan = lifespan

    @property
    def routes(self) -> tuple[Route, ...]:
        """All routes, in the order they were defined."""
        return tuple(self._table.routes)

    # -- definition

    def add(
        self, pattern: str, handler: Handler, *, methods: Iterable[str] = ("GET",), name: str | None = None
    ) -> None:
        """Define a route.

        Args:
            pattern: Such as ``/users/{id:int}``; types are ``str`` (the default), ``int``, ``float``, ``uuid``,
                ``path`` (all that is left), and those of ``converters``.
            handler: ``async def handler(request)``; returns a Response, or text, bytes, None (204), or what JSON can
                express.
            methods: What it answers. GET answers HEAD too.
            name: For :meth:`url_for`; None takes the name of the function.

        Raises:
            RouteError: It can't match, or another route answers the same; or the router is part of another already.
        """
        route = Route(self._table.parse(pattern), handler, answering(handler), method_names(methods))
        self._table.define(route, name)

    def route(self, pattern: str, *, methods: Iterable[str] = ("GET",), name: str | None = None) -> Callable[[H], H]:
        """:meth:`add` as a decorator."""

        def define(handler: H) -> H:
            self.add(pattern, handler, methods=methods, name=name)
            return handler

        return define

    def get(self, pattern: str, *, name: str | None = None) -> Callable[[H], H]:
        """:meth:`route` for GET and HEAD."""
        return self.route(pattern, methods=("GET",), name=name)

    def post(self, pattern: str, *, name: str | None = None) -> Callable[[H], H]:
        """:meth:`route` for POST."""
        return self.route(pattern, methods=("POST",), name=name)

    def put(self, pattern: str, *, name: str | None = None) -> Callable[[H], H]:
        """:meth:`route` for PUT."""
        return self.route(pattern, methods=("PUT",), name=name)

    def patch(self, pattern: str, *, name: str | None = None) -> Callable[[H], H]:
        """:meth:`route` for PATCH."""
        return self.route(pattern, methods=("PATCH",), name=name)

    def delete(self, pattern: str, *, name: str | None = None) -> Callable[[H], H]:
        """:meth:`route` for DELETE."""
        return self.route(pattern, methods=("DELETE",), name=name)

    def websocket(self, pattern: str, *, name: str | None = None) -> Callable[[H], H]:
        """A decorator for ``async def handler(socket)``, which gets a :class:`sojourn.WebSocket`."""

        def define(handler: H) -> H:
            route = Route(self._table.parse(pattern), handler, conversing(handler), SOCKET)
            self._table.define(route, name)
            return handler

        return define

    def asgi(
        self, pattern: str, app: ASGIApp, *, methods: Iterable[str] | None = None, name: str | None = None
    ) -> None:
        """A route whose endpoint is an ASGI application: it gets the scope as it is, with ``path_params``.

        Args:
            pattern: As in :meth:`add`.
            app: Who answers.
            methods: What it answers; None for every method that no other route of this pattern has.
            name: For :meth:`url_for`; None takes the name of the function.
        """
        wanted = None if methods is None else method_names(methods)
        self._table.define(Route(self._table.parse(pattern), app, app, wanted), name)

    def mount(self, prefix: str, app: ASGIApp, *, name: str | None = None, lifespan: bool = False) -> None:
        """Hand everything below a prefix to an application: all methods, and WebSockets.

        The application sees the whole ``path`` and a longer ``root_path``, as ASGI says.

        Args:
            prefix: Such as ``/static`` or ``/tenants/{tenant}``; "" for all that no route answers.
            app: Who answers.
            name: For ``url_for("name", path="x.css")`` and ``url_for("name:route")``; None for none.
            lifespan: Whether it is started and stopped with this router.
        """
        above = self._table.parse(prefix.rstrip("/"))
        if REST in above.names:
            raise RouteError(f"{prefix}: what is below a mount is called {REST!r}")
        route = Route(Pattern(above.text, (*above.segments, _REST)), app, app, None)
        route.mount, route.lifespan = True, lifespan
        self._table.define(route, name or "")

    def include(self, router: Router, prefix: str = "", *, name: str = "") -> None:
        """Take over the routes of another router, which can't be changed from then on.

        Args:
            router: Whose routes. What it does with a slash too many is not taken over.
            prefix: What their patterns get in front.
            name: What their names get in front, with a colon; "" for nothing.

        Raises:
            RouteError: One of them can't be defined here; then none is.
        """
        if router._lifespan is not None or router._misses.not_found is not None:
            raise RouteError("a router with lifespan or not_found can be mounted, not included")
        self._table.include(router._table, prefix, name)

    # -- use

    def find(self, method: str, path: str) -> Found | None:
        """Who answers a request, by the tree alone: no redirect, no 405.

        Args:
            method: Such as ``GET``.
            path: The decoded path.

        Returns:
            None when nothing matches, or nothing for this method.
        """
        found = self._table.tree().find(method, path)
        return None if found is None else Found(found[0], dict(zip(found[0].names, found[1], strict=True)))

    def url_for(self, name: str, /, **values: Any) -> str:
        """The path of a route, percent-encoded; without what the application itself is mounted at.

        Args:
            name: The route's name; ``mount:name`` for one of a router (or Starlette application) that is mounted.
            values: The values of its parameters.

        Raises:
            RouteError: No route has this name, several do, or the values are not those it needs.
        """
        return self._table.path(name, values)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, a WebSocket or the lifespan (ASGI)."""
        kind = scope["type"]
        if kind == "http":
            method = scope["method"]
        elif kind == "websocket":
            method = WEBSOCKET
        elif kind == "lifespan":
            apps = [route.app for route in self._table.routes if route.lifespan]
            await live(None if self._lifespan is None else self._lifespan(self), apps, scope, (receive, send))
            return
        else:
            raise NotImplementedError(kind)
        root = scope.get("root_path", "")
        path = _below(scope["path"], root) if root else scope["path"]
        scope["sojourn.router"] = self
        tree = self._table.tree()
        found = tree.find(method, path)
        if found is None and self._loose:
            path = toggled(path)
            found = tree.find(method, path)
        if found is None:
            await self._misses.app(tree, method, path, scope)(scope, receive, send)
            return
        route, values = found
        _enter(scope, route, values, path)
        await route.app(scope, receive, send)


def _enter(scope: Scope, route: Route, values: list[Any], path: str) -> None:
    """Put into the scope what the endpoint needs, and who made it so: metrics and logs read ``route``."""
    above = scope.get("sojourn.mounted")
    if above:
        route = route.below(above)
    scope["endpoint"] = route.endpoint
    scope["route"] = route
    if route.mount:
        # The rest and the slash before it are what the application below sees as its path.
        scope["root_path"] = scope.get("root_path", "") + path[: len(path) - len(values.pop()) - 1]
        scope["sojourn.mounted"] = route.mounted_at
    params = scope.get("path_params")
    if params or values:
        scope["path_params"] = {**(params or {}), **dict(zip(route.names, values, strict=False))}
    else:
        scope["path_params"] = {}


def _below(path: str, root: str) -> str:
    """A path without the root_path in front of it, where it has it (ASGI, "HTTP connection scope")."""
    if path.startswith(root) and path[len(root) : len(root) + 1] in ("", "/"):
        return path[len(root) :]
    return path
