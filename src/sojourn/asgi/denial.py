"""Handshakes that are answered with an ordinary response: by the application, or by the server."""

from __future__ import annotations

from collections.abc import Iterable

from sojourn.asgi.problem import problem
from sojourn.errors import ApplicationError
from sojourn.wire.http1.response import ResponseRenderer, chunk

__all__ = ["Denial", "refusal"]


class Denial:
    """The application's response instead of a 101 (ASGI, ``websocket.http.response``); the connection closes after it.

    Args:
        renderer: Puts the head into bytes.
        status: Any final status.
        headers: The application's headers.

    Raises:
        ApplicationError: A status or header that HTTP does not allow.
    """

    __slots__ = ("_chunked", "_head", "_remaining", "begun", "status")

    def __init__(self, renderer: ResponseRenderer, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        self._head = renderer.render(status, headers)
        self.status = status
        #: Whether the head has been handed out; until then another answer can still be given.
        self.begun = False
        self._chunked = False
        # Bytes that a declared length still asks for; None when none is declared, or there is no body to count.
        self._remaining = None if self._bodiless else self._head.content_length

    @property
    def _bodiless(self) -> bool:
        return self.status in (204, 304)  # RFC 9110 sections 15.3.5 and 15.4.5

    def body(self, data: bytes, more: bool, standard: tuple[bytes, bytes]) -> bytes:
        """Bytes for a ``websocket.http.response.body`` message, with the head before the first.

        Args:
            data: The piece.
            more: Whether others follow.
            standard: The Date line and the Server line, each with its CRLF or empty.

        Raises:
            ApplicationError: More or fewer bytes than Content-Length said.
        """
        if self._remaining is not None:
            left = self._remaining - len(data)
            if left < 0 or (left and not more):
                raise ApplicationError("the body of the denial does not have the length that Content-Length said")
            self._remaining = left
        parts: list[bytes] = []
        if not self.begun:
            self.begun = True
            date, server = standard
            parts += [self._head.data, b"" if self._head.date else date, server, b"connection: close\r\n"]
            if self._head.content_length is None and not self._bodiless:
                self._chunked = more
                parts.append(b"transfer-encoding: chunked\r\n" if more else b"content-length: %d\r\n" % len(data))
            parts.append(b"\r\n")
        if self._chunked:
            parts.append(chunk(data))
            if not more:
                parts.append(b"0\r\n\r\n")
        elif not self._bodiless:
            parts.append(data)
        return b"".join(parts)


def refusal(
    renderer: ResponseRenderer,
    status: int,
    reason: str,
    detail: str,
    headers: Iterable[tuple[bytes, bytes]],
    standard: tuple[bytes, bytes],
) -> bytes:
    """The server's answer to a handshake it does not let through: a problem document.

    Args:
        renderer: Puts the head into bytes.
        status: The HTTP status.
        reason: The stable word of the ending.
        detail: One sentence for a person.
        headers: What the status asks for, such as Sec-WebSocket-Version with 426.
        standard: The Date line and the Server line, each with its CRLF or empty.
    """
    fields, body = problem(status, reason, detail, headers)
    # A 426 says what to upgrade to (RFC 9110 section 15.5.22), and that is a connection option too (section 7.8).
    connection = b"connection: Upgrade, close\r\n\r\n" if status == 426 else b"connection: close\r\n\r\n"
    return b"".join((renderer.render(status, fields).data, *standard, connection, body))
