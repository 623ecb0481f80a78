"""The ``websocket.http.response`` extension: an application that answers a handshake with an ordinary response."""

from __future__ import annotations

from collections.abc import Iterable

from sojourn.errors import ApplicationError
from sojourn.wire.http1.response import ResponseRenderer, chunk

__all__ = ["Denial"]


class Denial:
    """An HTTP response instead of a 101; the connection closes after it.

    Args:
        renderer: Puts the head into bytes.
        status: Any final status.
        headers: The application's headers.

    Raises:
        ApplicationError: A status or header that HTTP does not allow.
    """

    __slots__ = ("_begun", "_chunked", "_head", "_remaining", "status")

    def __init__(self, renderer: ResponseRenderer, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        self._head = renderer.render(status, headers)
        self.status = status
        self._begun = False
        self._chunked = False
        self._remaining: int | None = None

    def body(self, data: bytes, more: bool, date: bytes) -> bytes:
        """Bytes for a ``websocket.http.response.body`` message, with the head before the first.

        Args:
            data: The piece.
            more: Whether others follow.
            date: The Date line with its CRLF.

        Raises:
            ApplicationError: More or fewer bytes than Content-Length said.
        """
        parts: list[bytes] = []
        if not self._begun:
            self._begun = True
            parts += [self._head.data, b"" if self._head.date else date, b"connection: close\r\n"]
            self._remaining = self._head.content_length
            if self._remaining is None:
                if more:
                    self._chunked = True
                    parts.append(b"transfer-encoding: chunked\r\n")
                elif self.status not in (204, 304):
                    parts.append(b"content-length: %d\r\n" % len(data))
            parts.append(b"\r\n")
        if self._remaining is not None:
            self._remaining -= len(data)
            if self._remaining < 0 or (self._remaining and not more):
                raise ApplicationError("the body of the denial does not have the length of its Content-Length")
        if self._chunked:
            parts.append(chunk(data))
            if not more:
                parts.append(b"0\r\n\r\n")
        elif self.status not in (204, 304):
            parts.append(data)
        return b"".join(parts)
