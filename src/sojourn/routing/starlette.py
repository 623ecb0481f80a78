"""The tree under Starlette and FastAPI: the framework asks the routes that could match, not all of them.

Everything else stays the framework's: its loop over routes is run unchanged on a view of the router that has only the
proposed routes. Order of definition, partial matches, redirects, dependency injection and error handlers are its own.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, Final

from starlette._utils import get_route_path
from starlette.routing import BaseRoute, Host, Mount, Route, Router, WebSocketRoute

from sojourn.errors import RouteError
from sojourn.routing.noticed import Changes, Noticed
from sojourn.routing.proposals import ALWAYS, Outline, Proposals, outline
from sojourn.typing import Receive, Scope, Send

__all__ = ["speed_up"]

#: Middlewares around one router; a longer chain is taken for a loop.
_CHAIN: Final = 100


def speed_up(app: object) -> None:
    """What :func:`sojourn.fast_routes` does."""
    router = getattr(app, "router", app)
    if not isinstance(router, Router):
        raise RouteError(f"fast_routes is for Starlette and FastAPI, and {type(app).__name__} is neither")
    under = _install(router, Changes())
    if under is None:
        raise RouteError(f"the loop over routes of {type(router).__name__} is its own, and is left as it is")
    under.changes.number += 1  # asked again: look again


def _install(router: Router, changes: Changes) -> _Under | None:
    """Put a tree under a router, once; None when its loop is not the framework's."""
    loop = router.app
    if getattr(loop, "__self__", None) is not router or getattr(loop, "__func__", None) not in _loops():
        return None
    if "routes" not in vars(router):  # a property of a subclass
        return None
    holder: Any = router
    name = "middleware_stack"
    for _ in range(_CHAIN):
        inner = getattr(holder, name, None)
        if isinstance(inner, _Under):
            return inner
        if inner == loop:
            under = _Under(router, changes)
            setattr(holder, name, under)
            return under
        holder, name = inner, "app"  # a middleware of the router
    return None


def _loops() -> list[Any]:
    """The functions that loop over routes as their framework wrote them."""
    fastapi = sys.modules.get("fastapi.routing")
    return [Router.app, *([fastapi.APIRouter.app] if fastapi is not None else [])]


class _View:
    """A router that has some of its routes only; everything else is the router's."""

    __slots__ = ("_router", "routes")

    def __init__(self, router: Router, routes: Sequence[BaseRoute]) -> None:
        self._router = router
        self.routes = routes

    def __getattr__(self, name: str) -> Any:
        return getattr(self._router, name)


class _Under:
    """A router's loop over its routes, on those that are proposed.

    Args:
        router: Whose.
        changes: Counts changes of all lists of routes of the application.
    """

    __slots__ = ("_loop", "_made_at", "_proposals", "_routes", "_size", "changes", "router")

    def __init__(self, router: Router, changes: Changes) -> None:
        self.router = router
        self.changes = changes
        loop: Any = router.app
        self._loop: Callable[..., Awaitable[None]] = loop.__func__
        self._proposals: Proposals[BaseRoute] = Proposals(())
        self._routes: list[BaseRoute] = _noticed(router.routes, changes)
        router.routes = self._routes
        self._size = 0
        self._made_at = -1

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """What the router's ``app`` does (ASGI)."""
        if scope["type"] not in ("http", "websocket") or scope.get("root_path", "").endswith("/"):
            return self._loop(self.router, scope, receive, send)
        scope.setdefault("router", self.router)  # else the view would be put there
        routes = self.router.routes
        if routes is not self._routes or len(routes) != self._size or self.changes.number != self._made_at:
            self._look()
        return self._loop(_View(self.router, self._proposals.of(get_route_path(scope))), scope, receive, send)

    def _look(self) -> None:
        """Read the routes again."""
        number = self.changes.number
        self._routes = self.router.routes = _noticed(self.router.routes, self.changes)
        self._size = len(self._routes)
        self._proposals = Proposals((route, list(_outlines(route, self.changes))) for route in self._routes)
        self._made_at = number


def _noticed(routes: list[BaseRoute], changes: Changes) -> Noticed[BaseRoute]:
    if not isinstance(routes, Noticed):
        return Noticed(routes, [changes])
    if changes not in routes.watchers:
        routes.watchers.append(changes)
    return routes


class _Included:
    """The search of FastAPI for a route in a router that is included in another, on those that are proposed.

    Args:
        included: FastAPI's ``_IncludedRouter``.
        changes: Counts changes of all lists of routes of the application.
    """

    __slots__ = ("_changes", "_included", "_made_at", "_proposals")

    def __init__(self, included: Any, changes: Changes) -> None:
        self._included = included
        self._changes = changes
        self._proposals: Proposals[Any] = Proposals(())
        self._made_at = -1

    def __call__(self, scope: Scope) -> Any:
        """What its ``_match`` does."""
        search = type(self._included)._match
        if scope.get("root_path", "").endswith("/"):
            return search(self._included, scope)
        if self._changes.number != self._made_at:
            number = self._changes.number
            candidates = self._included.effective_candidates()
            self._proposals = Proposals((each, list(_outlines(each, self._changes))) for each in candidates)
            self._made_at = number
        return search(_Candidates(self._proposals.of(get_route_path(scope))), scope)


class _Candidates:
    """All that the search wants of an ``_IncludedRouter``."""

    __slots__ = ("_found",)

    def __init__(self, found: list[Any]) -> None:
        self._found = found

    def effective_candidates(self) -> list[Any]:
        """What may match, in order."""
        return self._found


def _outlines(route: Any, changes: Changes) -> Iterator[Outline]:
    """What is certain of the paths of a route; what is below it gets a tree of its own."""
    if _is_included(route):
        routes = route.original_router.routes
        route.original_router.routes = _noticed(routes, changes)
        if not isinstance(route.__dict__.get("_match"), _Included):
            route._match = _Included(route, changes)
        try:
            candidates = route.effective_candidates()
        except (ValueError, AssertionError):  # a pattern that does not go with its prefix: FastAPI says so when asked
            yield ALWAYS
            return
        for candidate in candidates:
            yield from _outlines(candidate, changes)
        return
    effective = _effective(route)
    if isinstance(effective, Mount | Host):
        below = getattr(effective, "_base_app", effective.app)
        router = getattr(below, "router", below)
        if isinstance(router, Router):
            _install(router, changes)
    yield _outline(route, effective)


def _is_included(route: Any) -> bool:
    """Whether it is FastAPI's router in a router, as this module knows it."""
    fastapi = sys.modules.get("fastapi.routing")
    kind = getattr(fastapi, "_IncludedRouter", None)
    return (
        kind is not None
        and type(route) is kind
        and all(hasattr(kind, name) for name in ("_match", "effective_candidates", "matches"))
    )


def _effective(route: Any) -> Any:
    """The route with the prefix of where it is included: FastAPI's context for it, when it is one."""
    if isinstance(route, BaseRoute) or not hasattr(route, "original_route"):
        return route
    return route.starlette_route if route.starlette_route is not None else route


def _outline(route: Any, effective: Any) -> Outline:
    fastapi = sys.modules.get("fastapi.routing")
    known = [Route.matches, WebSocketRoute.matches, Mount.matches]
    if fastapi is not None:
        known += [fastapi.APIRoute.matches, fastapi.APIWebSocketRoute.matches]
    for each in (getattr(route, "original_route", route), effective):
        own = getattr(type(each), "matches", None)
        context = effective is route and each is effective and not isinstance(each, BaseRoute)
        if "matches" in getattr(each, "__dict__", {}) or (own not in known and not context):
            return ALWAYS
    path = effective.path + "/{path:path}" if isinstance(effective, Mount) else effective.path
    types = {name: convertor.regex for name, convertor in effective.param_convertors.items()}
    return outline(path, effective.path_regex, types)
