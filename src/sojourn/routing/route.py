"""One route: a pattern, who answers, and how a handler becomes an ASGI application."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final, TypeAlias

from sojourn.errors import ProtocolError, RouteError
from sojourn.routing.pattern import Parameter, Pattern
from sojourn.routing.request import Request
from sojourn.routing.response import refused, respond
from sojourn.routing.tree import WEBSOCKET
from sojourn.routing.websocket import WebSocket
from sojourn.typing import ASGIApp, Receive, Scope, Send

__all__ = ["Handler", "Route", "SocketHandler", "answering", "conversing", "method_names"]

#: Answers a request: a :class:`Response`, or what one is made of.
Handler: TypeAlias = Callable[[Request], Awaitable[Any]]
SocketHandler: TypeAlias = Callable[[WebSocket], Awaitable[None]]

_TOKEN: Final = frozenset("!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ")


class Route:
    """A route, as it stands in ``scope["route"]``.

    Attributes:
        pattern: What paths it answers.
        path: The pattern as text.
        path_format: The pattern without types, with the mounts above it: the label of metrics and traces.
        methods: The methods it answers; None for every method of HTTP (and WebSockets, where it is a mount).
        name: What it is called in ``url_for``; "" for nothing.
        endpoint: The handler, or the application.
        app: The endpoint as an ASGI application.
        mount: Whether it hands all that is below it to an application.
        lifespan: Whether that application gets the lifespan too.
    """

    __slots__ = (
        "_below",
        "app",
        "endpoint",
        "explicit",
        "lifespan",
        "methods",
        "mount",
        "name",
        "names",
        "path",
        "path_format",
        "pattern",
    )

    def __init__(self, pattern: Pattern, endpoint: Any, app: ASGIApp, methods: frozenset[str] | None) -> None:
        self.pattern = pattern
        self.path = pattern.text
        self.path_format = pattern.label
        self.names = pattern.names
        self.methods = methods
        self.endpoint = endpoint
        self.app = app
        self.name = ""
        #: Whether the name was given, not taken from the endpoint.
        self.explicit = False
        self.mount = False
        self.lifespan = False
        self._below: dict[str, Route] = {}

    def copy(self, pattern: Pattern) -> Route:
        """The same route with another pattern."""
        made = Route(pattern, self.endpoint, self.app, self.methods)
        made.name, made.explicit, made.mount, made.lifespan = self.name, self.explicit, self.mount, self.lifespan
        return made

    def below(self, prefix: str) -> Route:
        """The same route with the patterns of the mounts above it in its label; made once for each of them."""
        made = self._below.get(prefix)
        if made is None:
            made = self._below[prefix] = self.copy(self.pattern)
            made.path_format = prefix + self.path_format
        return made

    @property
    def mounted_at(self) -> str:
        """The label of a mount without the rest."""
        assert isinstance(self.pattern.segments[-1], Parameter)
        return self.path_format.rpartition("/")[0]

    def __repr__(self) -> str:
        shown = "mount" if self.mount else " ".join(sorted(self.methods or ("any",)))
        called = f" named {self.name!r}" if self.name else ""
        return f"<{shown} {self.path or '/'}{called}: {_origin(self.endpoint)}>"


def method_names(methods: Iterable[str]) -> frozenset[str]:
    """Methods in capitals.

    Raises:
        RouteError: One is no token, or there is none.
    """
    if isinstance(methods, str):
        raise RouteError(f"methods are a list, such as ['GET'], not {methods!r}")
    found = frozenset(method.upper() for method in methods)
    wrong = [method for method in found if not method or not set(method) <= _TOKEN]
    if wrong or not found:
        raise RouteError(f"not methods of HTTP: {wrong or 'none at all'}")
    return found


def answering(handler: Handler) -> ASGIApp:
    """An application that answers as a handler says.

    Raises:
        RouteError: The handler is no async function.
    """
    _check(handler, "request")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            response = respond(await handler(Request(scope, receive)))
        except ProtocolError as error:  # the request is not what the handler can read
            response = refused(error)
        await response.send(scope, send)

    return app


def conversing(handler: SocketHandler) -> ASGIApp:
    """An application that speaks as a handler of WebSockets does, and closes when it returns.

    Raises:
        RouteError: The handler is no async function.
    """
    _check(handler, "socket")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        socket = WebSocket(scope, receive, send)
        await handler(socket)
        await socket.close()

    return app


def _check(handler: Any, argument: str) -> None:
    call = handler if inspect.isroutine(handler) else getattr(handler, "__call__", handler)  # noqa: B004 its method
    if not inspect.iscoroutinefunction(inspect.unwrap(getattr(call, "func", call))):
        raise RouteError(f"a handler is `async def handler({argument})`, and {_origin(handler)} is not")


def _origin(endpoint: Any) -> str:
    """Where an endpoint is defined, for a person."""
    name = getattr(endpoint, "__qualname__", type(endpoint).__qualname__)
    code = getattr(endpoint, "__code__", None)
    return f"{name} ({code.co_filename}:{code.co_firstlineno})" if code is not None else name


#: Methods under which WebSockets are kept.
SOCKET: Final = frozenset({WEBSOCKET})
