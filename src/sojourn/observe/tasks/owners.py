"""Whose a task is: a request's, a connection's, the server's or the application's."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from typing import Any, Final, Literal, NamedTuple

from sojourn.asgi.control import RequestControl
from sojourn.asgi.cycle import HttpCycle
from sojourn.asgi.scope import route_of
from sojourn.asgi.websocket import WebSocketHandler
from sojourn.net.connection import Connection
from sojourn.observe.tasks.factory import origin_of
from sojourn.observe.tasks.machinery import Part
from sojourn.scopes.adoption import adopter_of
from sojourn.scopes.work import OwnedTask

__all__ = ["KINDS", "Kind", "Owner", "began", "ended", "kind_of", "owner_of", "path_of", "request_of", "runs_beside"]

#: How names of the server's own tasks begin that run a durable task (`tasks/running`).
_RUN: Final = "task "

Kind = Literal["request", "connection", "server", "application"]
KINDS: tuple[Kind, ...] = ("request", "connection", "server", "application")


class Owner(NamedTuple):
    """Whose a task is.

    Attributes:
        kind: ``request`` (HTTP), ``connection`` (a WebSocket, or one that is being set up), ``server`` or
            ``application`` (made outside of any request, or adopted).
        text: For reports, such as ``connection 12 GET /slow``.
        request: The request or WebSocket; None when it belongs to none.
        connection: Number of the connection; None when it belongs to none.
        route: The pattern the application's router matched; "" when it does not say, or the request has ended.
    """

    kind: Kind
    text: str
    request: RequestControl | None = None
    connection: int | None = None
    route: str = ""


def ended(request: RequestControl) -> bool:
    """Whether a request or WebSocket that has begun is over: its application has returned."""
    task = getattr(request, "task", None)
    return task is None or task.done()


def began(request: RequestControl) -> float | None:
    """When a request or WebSocket began, on the monotonic clock; None when it does not say."""
    if isinstance(request, HttpCycle):
        return request._started
    return request._began if isinstance(request, WebSocketHandler) else None


def path_of(request: RequestControl) -> str:
    """Method and path; after the end of the request only the path, without the query: the rest is gone."""
    scope = getattr(request, "scope", None)
    if scope:
        return f"{scope.get('method', 'WEBSOCKET')} {scope['path']}"
    target: bytes = getattr(request, "target", b"")
    path = target.partition(b"?")[0].decode("latin-1")
    return f"WEBSOCKET {path}" if isinstance(request, WebSocketHandler) else path


def request_of(task: asyncio.Task[Any]) -> RequestControl | Connection | None:
    """The request in which a task was made, or whose application it runs; a connection when it sets one up."""
    origin = origin_of(task)
    if origin is not None:
        return origin.request
    # The tasks of requests are made without a note, because that would cost every request. But they run a method of
    # the request's, and the collector knows the variables of a coroutine that waits.
    coroutine = task.get_coro()
    found = next((held for held in gc.get_referents(coroutine) if isinstance(held, RequestControl | Connection)), None)
    return found if isinstance(found, RequestControl | Connection) else None


def runs_beside(task: asyncio.Task[Any]) -> asyncio.Task[Any] | None:
    """The task that one made by ``attend`` runs beside; None for any other."""
    return getattr(task, "host", None) if isinstance(task, OwnedTask) else None


def kind_of(task: asyncio.Task[Any], part: Callable[[str], Part]) -> Kind:
    """What kind of owner a task has; cheaper than all that is known of it.

    Args:
        task: The task.
        part: Says what a source file is part of.
    """
    noted = getattr(task, "sojourn_origin", None)
    if noted is not None:
        request = noted[2]
        if request is None or adopter_of(task):
            return "application"
        return "request" if type(request) is HttpCycle else "connection"
    if isinstance(task, OwnedTask):
        if (host := runs_beside(task)) is not None:
            return kind_of(host, part)
        return "application" if _durable(task) else "server"
    return _unnoted(task, part)


def owner_of(task: asyncio.Task[Any], part: Callable[[str], Part]) -> Owner:
    """Whose a task is. The arguments are those of :func:`kind_of`."""
    adopter = adopter_of(task)
    if adopter:
        return Owner("application", adopter)
    host = runs_beside(task)
    if host is not None:
        return owner_of(host, part)
    if isinstance(task, OwnedTask):
        durable = _durable(task)
        return Owner("application", durable) if durable else Owner("server", "the server")
    kind = kind_of(task, part)
    if kind == "application":
        return Owner(kind, "the application")
    belongs = request_of(task)
    if isinstance(belongs, Connection):
        return Owner(kind, f"connection {belongs.id}", None, belongs.id)
    if belongs is None:
        return Owner(kind, "a connection that is set up")
    number = belongs.connection_id
    scope = getattr(belongs, "scope", None)
    return Owner(kind, f"connection {number} {path_of(belongs)}", belongs, number, route_of(scope) if scope else "")


def _durable(task: OwnedTask[Any]) -> str:
    """``task export 4fN...`` of the run of a durable task, by its name: made by the server, and the application's."""
    name = task.get_name()
    return name if name.startswith(_RUN) else ""


def _unnoted(task: asyncio.Task[Any], part: Callable[[str], Part]) -> Kind:
    """Of a task that comes neither from the factory nor from the server's own."""
    code = getattr(task.get_coro(), "cr_code", None)
    if code is None or part(code.co_filename) != Part.MACHINERY:
        return "application"
    if code is HttpCycle.run.__code__:
        return "request"
    return "connection" if task.get_name() == "request" else "application"
