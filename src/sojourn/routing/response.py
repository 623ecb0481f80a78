"""An answer: status, headers and a body that is there, or comes piece by piece."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Mapping
from contextlib import aclosing
from http import HTTPStatus
from typing import Any, Final

import msgspec

from sojourn.errors import ProtocolError
from sojourn.typing import Headers, Scope, Send

__all__ = ["Response", "problem", "respond"]

_TEXT: Final = "text/plain; charset=utf-8"
_JSON: Final = "application/json"
_encode: Final = msgspec.json.Encoder().encode
#: Characters that end a header line, or must not be in one (RFC 9110 section 5.5).
_FORBIDDEN: Final = ("\r", "\n", "\0")


class Response:
    """An answer to a request.

    Args:
        body: Text, bytes, None for nothing, an async iterable of text or bytes (sent piece by piece), or anything else
            that JSON can express.
        status: The HTTP status.
        headers: Further headers. ``content-type`` follows from the body unless it is among them.

    Raises:
        ValueError: A header can't be sent.
        TypeError: The body is nothing that JSON can express.

    Example:
        >>> Response({"id": 7}, 201, {"location": "/users/7"}).headers[0]
        (b'location', b'/users/7')
    """

    __slots__ = ("body", "headers", "status")

    def __init__(
        self, body: Any = None, status: int = 200, headers: Mapping[str, str] | Iterable[tuple[str, str]] = ()
    ) -> None:
        self.status = status
        pairs = headers.items() if isinstance(headers, Mapping) else headers
        self.headers: Headers = [_header(name, value) for name, value in pairs]
        media = ""
        if isinstance(body, str):
            self.body: bytes | AsyncIterable[str | bytes] = body.encode()
            media = _TEXT
        elif isinstance(body, bytes | bytearray | memoryview):
            self.body = bytes(body)
            media = "application/octet-stream"
        elif body is None:
            self.body = b""
        elif isinstance(body, AsyncIterable):
            self.body = body
            media = "application/octet-stream"
        else:
            self.body = _encode(body)
            media = _JSON
        if media and not any(name == b"content-type" for name, _ in self.headers):
            self.headers.append((b"content-type", media.encode()))

    async def send(self, scope: Scope, send: Send) -> None:
        """Send it.

        Cancel: safe between two pieces; a body that is iterated is closed.
        """
        body, headers = self.body, self.headers
        if isinstance(body, bytes):
            if self.status >= 200 and self.status not in (204, 304):  # RFC 9110 section 8.6
                headers = [*headers, (b"content-length", b"%d" % len(body))]
            await send({"type": "http.response.start", "status": self.status, "headers": headers})
            await send({"type": "http.response.body", "body": b"" if scope.get("method") == "HEAD" else body})
            return
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        if scope.get("method") != "HEAD":
            await _pieces(body, send)
        await send({"type": "http.response.body", "body": b""})


async def _pieces(body: AsyncIterable[str | bytes], send: Send) -> None:
    pieces = aiter(body)
    if not hasattr(pieces, "aclose"):
        async for piece in pieces:
            await _piece(piece, send)
        return
    async with aclosing(pieces):  # type: ignore[type-var]
        async for piece in pieces:
            await _piece(piece, send)


async def _piece(piece: str | bytes, send: Send) -> None:
    data = piece.encode() if isinstance(piece, str) else piece
    await send({"type": "http.response.body", "body": data, "more_body": True})


def respond(result: Any) -> Response:
    """What a handler returned, as an answer: nothing is 204."""
    if isinstance(result, Response):
        return result
    return Response(status=204) if result is None else Response(result)


def problem(status: int, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    """A problem document (RFC 9457).

    Args:
        status: The HTTP status.
        detail: One sentence for a person.
        headers: Further headers, such as Allow.
    """
    title = HTTPStatus(status).phrase
    body = _encode({"type": "about:blank", "title": title, "status": status, "detail": detail})
    return Response(body, status, {"content-type": "application/problem+json", **(headers or {})})


def refused(error: ProtocolError) -> Response:
    """The answer to a request whose body is not acceptable."""
    return problem(error.status, error.detail)


def _header(name: str, value: str) -> tuple[bytes, bytes]:
    if any(sign in value or sign in name for sign in _FORBIDDEN):
        raise ValueError(f"a header can't have a line break or NUL: {name!r}: {value!r}")
    return name.lower().encode("latin-1"), value.encode("latin-1")
