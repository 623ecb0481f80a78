"""HTTP/1.1 as a client sees it: was this answer complete, cut short, or reset?"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

__all__ = ["Outcome", "Response", "parse_response"]


class Outcome(Enum):
    """What a client knows of an answer."""

    COMPLETE = "complete"  # its framing says so
    TRUNCATED = "truncated"  # FIN inside it
    RESET = "reset"  # RST before its end
    NOTHING = "nothing"  # FIN before its first byte
    UNFINISHED = "unfinished"  # more has to come


class Response(NamedTuple):
    """An answer, or what arrived of it.

    Attributes:
        outcome: Whether it is whole.
        status: 0 when no head arrived.
        reason: The reason phrase.
        headers: Names in lower case and values, in the order they came.
        body: Decoded when it came in chunks.
        trailers: Fields after a chunked body.
        interim: Status of the answers before it, such as 100 and 103.
    """

    outcome: Outcome
    status: int = 0
    reason: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    trailers: tuple[tuple[str, str], ...] = ()
    interim: tuple[int, ...] = ()

    def header(self, name: str) -> str | None:
        """Value of the first header of that name."""
        return next((value for key, value in self.headers if key == name.lower()), None)

    @property
    def complete(self) -> bool:
        """Whether its framing says that it is whole."""
        return self.outcome is Outcome.COMPLETE


def parse_response(data: bytes, *, method: str = "GET", ended: Outcome = Outcome.UNFINISHED) -> tuple[Response, bytes]:
    """Read one answer, as strictly as RFC 9112 section 6.3 frames it.

    Args:
        data: What has arrived.
        method: Of the request: an answer to HEAD has no body.
        ended: UNFINISHED while the connection lives; TRUNCATED after FIN; RESET after RST.

    Returns:
        The answer and the bytes that follow it.

    Raises:
        ValueError: It is not HTTP.

    Example:
        >>> answer, rest = parse_response(b"HTTP/1.1 200 OK\\r\\ncontent-length: 2\\r\\n\\r\\nhiHTTP")
        >>> answer.complete, answer.body, rest
        (True, b'hi', b'HTTP')
        >>> parse_response(b"HTTP/1.1 200 OK\\r\\ncontent-length: 3\\r\\n\\r\\nhi", ended=Outcome.TRUNCATED)[0].outcome
        <Outcome.TRUNCATED: 'truncated'>
    """
    interim: list[int] = []
    while True:
        head, separator, rest = data.partition(b"\r\n\r\n")
        if not separator:
            nothing = Outcome.NOTHING if ended is Outcome.TRUNCATED and not data else ended
            return Response(nothing, interim=tuple(interim)), data
        status, reason, headers = _head(head)
        if status >= 200 or status == 101:
            break
        interim.append(status)
        data = rest
    answer = Response(ended, status, reason, headers, interim=tuple(interim))
    if method == "HEAD" or status in (101, 204, 304):
        return answer._replace(outcome=Outcome.COMPLETE), rest
    if (answer.header("transfer-encoding") or "").lower() == "chunked":
        if answer.header("content-length") is not None:
            raise ValueError("both Transfer-Encoding and Content-Length")
        return _chunked(answer, rest)
    length = answer.header("content-length")
    if length is None:  # up to the end of the connection
        outcome = Outcome.COMPLETE if ended is Outcome.TRUNCATED else ended
        return answer._replace(outcome=outcome, body=rest), b""
    if len(rest) < int(length):
        return answer._replace(body=rest), b""
    return answer._replace(outcome=Outcome.COMPLETE, body=rest[: int(length)]), rest[int(length) :]


def _head(head: bytes) -> tuple[int, str, tuple[tuple[str, str], ...]]:
    line, *fields = head.decode("latin-1").split("\r\n")
    version, _, after = line.partition(" ")
    status, _, reason = after.partition(" ")
    if version != "HTTP/1.1" or len(status) != 3 or not status.isdigit():
        raise ValueError(f"not a status line: {line!r}")
    return int(status), reason, tuple(_field(field) for field in fields)


def _field(field: str) -> tuple[str, str]:
    name, colon, value = field.partition(":")
    if not colon or not name or name != name.strip():
        raise ValueError(f"not a header field: {field!r}")
    return name.lower(), value.strip(" \t")


def _chunked(answer: Response, data: bytes) -> tuple[Response, bytes]:
    body = bytearray()
    while True:
        line, separator, rest = data.partition(b"\r\n")
        if not separator:
            return answer._replace(body=bytes(body)), b""
        size = int(line.partition(b";")[0], 16)
        if size == 0:
            break
        if len(rest) < size + 2:
            return answer._replace(body=bytes(body + rest[:size])), b""
        if rest[size : size + 2] != b"\r\n":
            raise ValueError("a chunk without its CRLF")
        body += rest[:size]
        data = rest[size + 2 :]
    trailers: list[tuple[str, str]] = []
    while True:
        line, separator, rest = rest.partition(b"\r\n")
        if not separator:
            return answer._replace(body=bytes(body)), b""
        if not line:
            whole = answer._replace(outcome=Outcome.COMPLETE, body=bytes(body), trailers=tuple(trailers))
            return whole, rest
        trailers.append(_field(line.decode("latin-1")))
