"""Responses: status, headers and the framing of the body, as bytes.

A response head is checked as a whole: names must be tokens, and no value may hold CR, LF or NUL, so an application that
copies input into a header can't split a response (RFC 9112 section 11.1).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from sojourn.errors import ApplicationError

__all__ = [
    "CONTINUE",
    "LAST_CHUNK",
    "ResponseHead",
    "ResponseRenderer",
    "chunk",
    "interim",
    "last_chunk",
    "status_line",
]

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
LAST_CHUNK: Final = b"0\r\n\r\n"

_TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_BAD_VALUE: Final = re.compile(rb"[\r\n\0]")

_STATUS_LINES: Final = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode("ascii")
    for status in HTTPStatus
    if status.value >= 200
}

_ORDINARY, _CONTENT_LENGTH, _TRANSFER_ENCODING, _CONNECTION, _DATE = range(5)
_SPECIAL: Final = {
    b"content-length": _CONTENT_LENGTH,
    b"transfer-encoding": _TRANSFER_ENCODING,
    b"connection": _CONNECTION,
    b"date": _DATE,
}
_LEARNT_NAMES = 512


@dataclass(slots=True)
class ResponseHead:
    """What an application's ``http.response.start`` comes to. Shared by requests, so never changed.

    Attributes:
        data: Status line and the application's headers, each with its CRLF; the empty line is still to come.
        content_length: Declared length in bytes; None when the application gave none.
        close: Whether the application asked for ``Connection: close``.
        date: Whether it brought its own Date.
        special: Whether any of this, or the status, makes the framing unusual.
        event_stream: Whether it is a stream of server-sent events.
    """

    data: bytes
    content_length: int | None
    close: bool
    date: bool
    special: bool
    event_stream: bool = False


def status_line(status: int) -> bytes:
    """The status line with its CRLF.

    Raises:
        ApplicationError: The status is not a final one of three digits (RFC 9110 section 15).
    """
    line = _STATUS_LINES.get(status)
    if line is None:
        if type(status) is not int or not 200 <= status <= 999:
            raise ApplicationError(f"http.response.start: status {status!r} is not from 200 to 999")
        line = b"HTTP/1.1 %d \r\n" % status
    return line


#: Heads that hold nothing but these are remembered: values that come again and again, and are nobody's secret.
_COMMON: Final = frozenset(
    b"content-type content-length content-encoding cache-control vary allow server x-content-type-options "
    b"x-frame-options strict-transport-security access-control-allow-origin access-control-allow-methods "
    b"access-control-allow-headers access-control-allow-credentials access-control-max-age".split()
)
_REMEMBERED_HEADS = 512
#: Without a body, or perhaps about a missed deadline: an answer of these is looked at twice.
_SPECIAL_STATUSES: Final = (204, 304, 500)


class ResponseRenderer:
    """Puts response heads into bytes. One per worker: it remembers good names, and whole heads that come again."""

    __slots__ = ("_heads", "_names")

    def __init__(self) -> None:
        self._names = dict(_SPECIAL)
        self._heads: dict[tuple[int, tuple[tuple[bytes, bytes], ...]], ResponseHead] = {}

    def render(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> ResponseHead:
        """Check the application's response head and put it into bytes.

        ``Transfer-Encoding`` is left out, as ASGI asks: the framing is the server's. So is ``Connection``, except that
        ``close`` is obeyed, and Content-Length with 204 (RFC 9110 section 8.6).

        Raises:
            ApplicationError: A status, name or value that HTTP does not allow, or two lengths that differ.
        """
        try:
            fields = tuple(headers)
        except TypeError as error:
            raise ApplicationError(f"http.response.start: headers must be pairs of bytes: {error}") from None
        try:
            return self._heads[status, fields]
        except (KeyError, TypeError):  # new, or with lists in it
            head = self._render(status, fields)
        if len(head.data) <= 1024 and all(type(field) is tuple and field[0] in _COMMON for field in fields):
            if len(self._heads) >= _REMEMBERED_HEADS:
                self._heads.clear()
            self._heads[status, fields] = head
        return head

    def _render(self, status: int, headers: tuple[tuple[bytes, bytes], ...]) -> ResponseHead:
        content_length: int | None = None
        close = date = False
        names = self._names
        lines = [_STATUS_LINES.get(status) or status_line(status)]
        try:
            for name, value in headers:
                meaning = names.get(name)
                if meaning is None:
                    meaning = self._learn(name)
                if meaning:
                    if meaning == _CONTENT_LENGTH:
                        if not value.isdigit() or (content_length is not None and int(value) != content_length):
                            raise ApplicationError(f"Content-Length {value!r} is not one number")
                        if content_length is not None or status == 204:
                            continue
                        content_length = int(value)
                    elif meaning == _TRANSFER_ENCODING:
                        continue
                    elif meaning == _CONNECTION:
                        close = close or b"close" in value.lower()
                        continue
                    else:
                        date = True
                lines.append(b"%b: %b\r\n" % (name, value))
        except (TypeError, ValueError, AttributeError) as error:
            raise ApplicationError(f"http.response.start: headers must be pairs of bytes: {error}") from None
        data = b"".join(lines)
        # One look at the whole instead of one at each value: every CR and LF must be one of ours.
        count = len(lines)
        if data.count(b"\n") != count or data.count(b"\r") != count or b"\0" in data:
            raise ApplicationError("a header value holds CR, LF or NUL (RFC 9110 section 5.5)")
        event_stream = b"text/event-stream" in data
        return ResponseHead(
            data, content_length, close, date, close or date or status in _SPECIAL_STATUSES, event_stream
        )

    def _learn(self, name: bytes) -> int:
        meaning = _meaning(name)
        if len(self._names) < _LEARNT_NAMES and len(name) <= 64:
            self._names[name] = meaning
        return meaning


def _meaning(name: bytes) -> int:
    """What a header name means; refuses what is no name."""
    if not isinstance(name, bytes):
        raise ApplicationError(f"header name {name!r} is {type(name).__name__}, not bytes")
    if _TOKEN.fullmatch(name) is None:
        raise ApplicationError(f"header name {name!r} is not a token (RFC 9110 section 5.1)")
    return _SPECIAL.get(name.lower(), _ORDINARY)


def _line(name: bytes, value: bytes) -> bytes:
    if not isinstance(value, bytes):
        raise ApplicationError(f"value {value!r} of header {name!r} is {type(value).__name__}, not bytes")
    if _BAD_VALUE.search(value):
        raise ApplicationError("a header value holds CR, LF or NUL (RFC 9110 section 5.5)")
    return b"%b: %b\r\n" % (name, value)


def interim(status: int, headers: Iterable[Iterable[bytes]]) -> bytes:
    """A 1xx response, complete (RFC 9110 section 15.2).

    Raises:
        ApplicationError: A name or value that HTTP does not allow.
    """
    lines = [b"HTTP/1.1 %d %b\r\n" % (status, HTTPStatus(status).phrase.encode("ascii"))]
    for name, value in headers:
        _meaning(name)
        lines.append(_line(name, value))
    lines.append(b"\r\n")
    return b"".join(lines)


def chunk(data: bytes) -> bytes:
    """One chunk (RFC 9112 section 7.1); b"" for no data, because an empty chunk is the last."""
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


def last_chunk(trailers: Iterable[Iterable[bytes]]) -> bytes:
    """The end of a chunked body with its trailer section (RFC 9112 section 7.1.2).

    Raises:
        ApplicationError: A name or value that HTTP does not allow.
    """
    lines = [b"0\r\n"]
    for name, value in trailers:
        if _meaning(name):
            raise ApplicationError(f"{name.decode('ascii')} may not be a trailer (RFC 9110 section 6.5.1)")
        lines.append(_line(name, value))
    lines.append(b"\r\n")
    return b"".join(lines)
