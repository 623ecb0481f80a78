"""What a handler sees of a request. Thin: the scope and ``receive`` are there for all that is not here."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, Final, TypeVar, overload
from urllib.parse import parse_qs, quote

import msgspec

from sojourn.errors import ClientDisconnected, ProtocolError, RouteError
from sojourn.typing import Receive, Scope

__all__ = ["Connection", "Request"]

T = TypeVar("T")

#: Bytes of a body that :meth:`Request.body` keeps in memory.
_BODY: Final = 8 * 1024 * 1024
#: Fields of a query; more are refused (ValueError of ``parse_qs``).
_FIELDS: Final = 1000


class Connection:
    """What requests and WebSockets have in common: their scope, read when it is asked for."""

    __slots__ = ("_query", "_receive", "scope")

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.scope = scope
        self._receive = receive
        self._query: dict[str, list[str]] | None = None

    @property
    def path(self) -> str:
        """The decoded path, with what the application is mounted at."""
        return str(self.scope["path"])

    @property
    def path_params(self) -> dict[str, Any]:
        """The values of the pattern's parameters."""
        found: dict[str, Any] = self.scope.get("path_params", {})
        return found

    @property
    def query(self) -> dict[str, str]:
        """The fields of the query; of a name that comes twice the last value."""
        return {name: values[-1] for name, values in self.query_lists.items()}

    @property
    def query_lists(self) -> dict[str, list[str]]:
        """The fields of the query with all their values.

        Raises:
            ProtocolError: It has more than 1,000 fields (answered with 400).
        """
        if self._query is None:
            text = self.scope.get("query_string", b"").decode("latin-1")
            try:
                self._query = parse_qs(text, keep_blank_values=True, max_num_fields=_FIELDS)
            except ValueError as error:
                raise ProtocolError(400, "invalid_request_line", f"the query can't be read: {error}") from None
        return self._query

    def header(self, name: str, default: str | None = None) -> str | None:
        """The first header of a name, in any case; `default` when there is none."""
        wanted = name.lower().encode("latin-1")
        for found, value in self.scope["headers"]:
            if found == wanted:
                return str(value, "latin-1")
        return default

    def url_for(self, name: str, /, **values: Any) -> str:
        """The path of a route, with what the application is mounted at in front of it.

        Args:
            name: A name of the router that this request came through; ``mount:name`` for one below a mount.
            values: The values of its parameters.

        Raises:
            RouteError: No route has this name, or the values are not those it needs.
        """
        router = self.scope.get("sojourn.router")
        if router is None:
            raise RouteError("this request came through no sojourn.Router")
        # What a mount has matched is in root_path only for the router below it.
        return quote(str(self.scope.get("root_path", ""))) + str(router.url_for(name, **values))


class Request(Connection):
    """A request, as handlers of :class:`Router` get it.

    Args:
        scope: Its ASGI scope.
        receive: Where its body comes from.

    Example:
        >>> request = Request({"type": "http", "method": "GET", "path": "/", "query_string": b"page=2"}, receive=None)
        >>> request.query
        {'page': '2'}
    """

    __slots__ = ("_body",)

    def __init__(self, scope: Scope, receive: Receive) -> None:
        super().__init__(scope, receive)
        self._body: bytes | None = None

    @property
    def method(self) -> str:
        """The method, in capitals."""
        return str(self.scope["method"])

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """The body, piece by piece as it comes. It can be read once.

        Raises:
            ClientDisconnected: The client left before it was complete.

        Cancel: safe.
        """
        more = True
        while more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnected("client_closed_request")
            more = message.get("more_body", False)
            if message.get("body"):
                yield message["body"]

    async def body(self, limit: int = _BODY) -> bytes:
        """The whole body; the same bytes each time it is asked for.

        Args:
            limit: Bytes it may have (8 MiB).

        Raises:
            ProtocolError: It has more (answered with 413).
            ClientDisconnected: The client left before it was complete.

        Cancel: safe, but what was read before is lost.
        """
        if self._body is None:
            pieces, size = [], 0
            async for piece in self.stream():
                size += len(piece)
                if size > limit:
                    raise ProtocolError(413, "body_too_large", f"the body has more than {limit} bytes")
                pieces.append(piece)
            self._body = b"".join(pieces)
        return self._body

    async def text(self, limit: int = _BODY) -> str:
        """The whole body as UTF-8.

        Raises:
            ProtocolError: It is not UTF-8 (answered with 400), or too long (413).
        """
        try:
            return (await self.body(limit)).decode()
        except UnicodeDecodeError as error:
            raise ProtocolError(400, "invalid_request_body", f"the body is not UTF-8 at byte {error.start}") from None

    @overload
    async def json(self) -> Any: ...
    @overload
    async def json(self, kind: type[T]) -> T: ...
    async def json(self, kind: Any = Any) -> Any:
        """The whole body as JSON.

        Args:
            kind: What it must be: any type that msgspec can check, such as a ``msgspec.Struct``.

        Raises:
            ProtocolError: It is no JSON (answered with 400), or none of this kind (422), or too long (413).
        """
        body = await self.body()
        try:
            return msgspec.json.decode(body, type=kind)
        except msgspec.ValidationError as error:
            raise ProtocolError(422, "invalid_request_body", str(error)) from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ProtocolError(400, "invalid_request_body", f"the body is no JSON: {error}") from None
