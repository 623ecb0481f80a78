"""Each router as its own project makes one: how it finds a route, and the whole application."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from typing import Any, NamedTuple

import falcon.asgi
import fastapi
from litestar import Litestar
from litestar import route as litestar_route
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Match, Route

import sojourn
from bench.routing.tables import Request, Row
from sojourn.routing.router import Router

__all__ = ["MAKERS", "Peer", "versions"]


class Peer(NamedTuple):
    """A router with its routes.

    Attributes:
        app: The whole ASGI application.
        find: Finds the route of a request and does nothing else; None where the project offers no such call.
    """

    app: Any
    find: Callable[[Request], Any] | None


def _scope(request: Request) -> dict[str, Any]:
    return {"type": "http", "method": request.method, "path": request.path, "root_path": ""}


def _linear(routes: list[Any]) -> Callable[[Request], Any]:
    """The loop of Starlette's router, without what it does with the route."""

    def find(request: Request) -> Any:
        scope = _scope(request)
        for route in routes:
            match, _ = route.matches(scope)
            if match is Match.FULL:
                return route
        return None

    return find


def _proposed(router: Any) -> Callable[[Request], Any]:
    """The same loop on what the tree proposes."""
    under = router.middleware_stack
    under._look()
    proposals = under._proposals

    def find(request: Request) -> Any:
        scope = _scope(request)
        for route in proposals.of(request.path):
            match, _ = route.matches(scope)
            if match is Match.FULL:
                return route
        return None

    return find


def own(table: list[Row]) -> Peer:
    """`sojourn.Router`."""

    async def handler(request: Any) -> str:
        return "hello"

    router = Router()
    for row in table:
        router.add(row.pattern, handler, methods=[row.method])
    return Peer(router, lambda request: router.find(request.method, request.path))


def plain_starlette(table: list[Row]) -> Peer:
    """Starlette."""

    async def handler(request: Any) -> PlainTextResponse:
        return PlainTextResponse("hello")

    app = Starlette(routes=[Route(row.pattern, handler, methods=[row.method]) for row in table])
    return Peer(app, _linear(app.routes))


def fast_starlette(table: list[Row]) -> Peer:
    """Starlette with `sojourn.fast_routes`."""
    app = sojourn.fast_routes(plain_starlette(table).app)
    return Peer(app, _proposed(app.router))


def plain_fastapi(table: list[Row]) -> Peer:
    """FastAPI; endpoints take no parameter, so that its own work for them is not measured."""

    async def handler() -> PlainTextResponse:
        return PlainTextResponse("hello")

    app = fastapi.FastAPI(openapi_url=None)
    for row in table:
        app.add_api_route(row.pattern, handler, methods=[row.method], response_model=None)
    return Peer(app, _linear(app.routes))


def fast_fastapi(table: list[Row]) -> Peer:
    """FastAPI with `sojourn.fast_routes`."""
    app = sojourn.fast_routes(plain_fastapi(table).app)
    return Peer(app, _proposed(app.router))


def its_litestar(table: list[Row]) -> Peer:
    """Litestar; its cache of the last 1,024 paths is on, as it ships."""

    def make(row: Row) -> Any:
        async def handler() -> str:
            return "hello"

        pattern = row.pattern.replace("{part}", "{part:str}")
        decorated = litestar_route(pattern, http_method=[row.method], status_code=200, media_type="text/plain")
        return decorated(handler)

    app = Litestar(route_handlers=[make(row) for row in table], openapi_config=None)
    router = app.asgi_router
    return Peer(app, lambda request: router.handle_routing(path=request.path, method=request.method))


def its_falcon(table: list[Row]) -> Peer:
    """Falcon; its router is compiled before it is measured."""

    class Resource:
        async def on_get(self, req: Any, resp: Any, **params: Any) -> None:
            resp.text = "hello"

        on_post = on_get

    app, resource = falcon.asgi.App(), Resource()
    for row in table:
        app.add_route(row.pattern, resource)
    app._router.find("/")
    return Peer(app, lambda request: app._router.find(request.path))


MAKERS: dict[str, Callable[[list[Row]], Peer]] = {
    "Sojourn": own,
    "Starlette": plain_starlette,
    "Starlette, fast_routes": fast_starlette,
    "FastAPI": plain_fastapi,
    "FastAPI, fast_routes": fast_fastapi,
    "Litestar": its_litestar,
    "Falcon": its_falcon,
}


def versions() -> str:
    """What was measured."""
    names = ("sojourn", "starlette", "fastapi", "litestar", "falcon")
    return ", ".join(f"{name} {version(name)}" for name in names)
