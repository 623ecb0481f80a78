"""The name under which applications ask for the tree; Starlette is imported only when it is called."""

from __future__ import annotations

from typing import TypeVar

from sojourn.errors import RouteError

__all__ = ["fast_routes"]

A = TypeVar("A")


def fast_routes(app: A) -> A:
    """Make lookup in a Starlette or FastAPI application independent of the number of its routes.

    Routes, dependency injection, OpenAPI, mounts, ``url_for``, redirects and the order of definition stay as they are,
    and routes that are added later count. Call it once, anywhere; routers that are mounted or included are covered too.
    A route that overrides ``matches``, or whose regular expression was replaced, is asked at every request, as before.

    Args:
        app: A Starlette or FastAPI application, or a router of theirs. It is changed in place.

    Returns:
        The same application.

    Raises:
        RouteError: It is no such application, or its router's own ``app`` is overridden.

    Example:
        >>> from starlette.applications import Starlette
        >>> app = fast_routes(Starlette(routes=[]))
    """
    try:
        from sojourn.routing.starlette import speed_up
    except ImportError as error:
        raise RouteError(f"fast_routes needs starlette 0.41 or later: {error}") from error
    speed_up(app)
    return app
