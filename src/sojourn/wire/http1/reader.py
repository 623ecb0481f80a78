"""Requests of one connection: bytes in, heads and bodies out, one after the other.

A head is parsed in one go when its last byte is there; until then it waits as bytes, so an idle connection owns no
parser: parsers live in a :class:`~sojourn.wire.http1.parser.ParserPool` and are borrowed for the length of one message.
"""

from __future__ import annotations

import re
from typing import Final, Protocol

from sojourn.errors import ProtocolError
from sojourn.typing import Headers
from sojourn.wire.http1.parser import ParserPool, RequestParser
from sojourn.wire.http1.refusals import RequestLimits, bad_line, head_too_large, target_too_long

__all__ = ["RequestReader", "RequestSink"]

#: Longest header lines, in bytes, that are kept to be compared with those of the next request.
_REPEATED = 1024
#: Places where a chunked body may end are looked at one by one up to this many times a read; see ``_feed_chunked``.
_SPLITS = 1024
#: What a byte of a chunked body may bring with it in chunk sizes and extensions; see ``_feed_chunked``.
_FRAMING_PER_BYTE = 16
#: What a request line begins with (RFC 9110 sections 5.6.2 and 9.1).
_METHOD: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]").match


class RequestSink(Protocol):
    """Who is told what was read."""

    def request_received(self, head: RequestParser) -> None:
        """A head is complete. Its attributes are valid until ``request_ended`` returns."""

    def body_received(self, data: bytes) -> None:
        """A piece of the body, never empty."""

    def request_ended(self) -> None:
        """The body, and trailers if any, are complete. Called for each request, also without body."""


class RequestReader:
    """The reading side of one HTTP/1.1 connection.

    It reads one request at a time: what follows stays unread, as bytes, until :meth:`next` is called. So a client that
    pipelines costs at most one read of memory, and requests are answered in order by construction.

    Args:
        sink: Who is told.
        pool: Where parsers come from.
        limits: Sizes.
    """

    __slots__ = (
        "_block",
        "_host",
        "_known",
        "_limits",
        "_longest",
        "_parser",
        "_pool",
        "_remaining",
        "_seam",
        "_sink",
        "busy",
        "exhausted",
        "rest",
    )

    def __init__(self, sink: RequestSink, pool: ParserPool, limits: RequestLimits) -> None:
        self._sink = sink
        self._pool = pool
        self._limits = limits
        self._parser: RequestParser | None = None  # while inside a message
        #: Bytes not read yet: an unfinished head or, while ``busy``, what follows the request in hand.
        self.rest: bytes | bytearray = b""
        # The header lines of the request before with the empty line, as bytes; None before the first request.
        self._block: bytes | None = None
        # What they say; None when they can't be used again.
        self._known: Headers | None = None
        self._host: bytes | None = None
        self._longest = 0  # how long a request line in front of them may be
        # Bytes of a Content-Length body still to come; of a chunked one, what its framing may still take.
        self._remaining = 0
        self._seam = b""  # the last bytes read of a chunked body
        #: Whether a request was delivered and ``next`` was not called since.
        self.busy = False
        #: Whether nothing more can be read here: the connection must close after the answer.
        self.exhausted = False

    @property
    def in_head(self) -> bool:
        """Whether a request head has begun and is not complete. Empty lines in front of it are no beginning."""
        return not self.busy and bool(self.rest.lstrip(b"\r\n"))

    @property
    def in_body(self) -> bool:
        """Whether a request body is not complete."""
        return self._parser is not None

    def feed(self, data: bytes) -> None:
        """Take bytes from the peer and tell the sink what they were.

        Raises:
            ProtocolError: The bytes are not acceptable. Nothing may be fed afterwards.
        """
        if self._parser is not None:
            self._feed_body(data)
        elif self.busy:
            self.rest = self.rest + data if self.rest else data
        elif not self.rest:
            self._read_head(data)
        else:
            # A head in pieces. A bytearray takes a byte at a time without copying all that is there.
            rest = self.rest
            if not isinstance(rest, bytearray):
                self.rest = rest = bytearray(rest)
            rest += data
            if rest.find(b"\r\n\r\n", max(0, len(rest) - len(data) - 3)) >= 0:
                self.rest = b""
                self._read_head(bytes(rest))
            else:
                self._check_partial(rest, _empty_lines(rest))

    def next(self) -> None:
        """The request in hand has been answered: read the one that follows, if its bytes are here.

        Raises:
            ProtocolError: As in :meth:`feed`.
        """
        self.busy = False
        rest = self.rest
        if rest:
            self.rest = b""
            self._read_head(bytes(rest))

    def forget_sink(self) -> None:
        """Nothing is read any more. Sink and reader hold each other: without this only the collector frees them."""
        del self._sink

    def _read_head(self, data: bytes) -> None:
        # On a keep-alive connection a client changes the request line from one request to the next, and seldom another:
        # lines that are letter by letter those llhttp has accepted before are not looked at again. They end in an empty
        # line and have none before, so the head ends where they do.
        line, _, block = data.partition(b"\r\n")
        known = self._known
        if known is not None and block == self._block and len(line) <= self._longest:
            idle = self._pool.idle
            parser = idle.pop() if idle else self._pool.make()
            if parser.recall(line, known, self._host):
                self.busy = True
                sink = self._sink
                sink.request_received(parser)
                sink.request_ended()
                idle.append(parser)
                return
            idle.append(parser)
        self._read_new_head(data)

    def _read_new_head(self, data: bytes) -> None:
        end = data.find(b"\r\n\r\n") + 4
        if end == 3 or data[0] <= 13:  # incomplete, or behind an empty line
            begin = _empty_lines(data)
            if begin and data.find(b"\r\n\r\n", begin) >= 0:
                self._read_head(data[begin:])
            else:
                self.rest = data
                self._check_partial(data, begin)
            return
        limits = self._limits
        if end > limits.header_bytes:
            raise head_too_large(data, limits)
        if end != len(data):
            self.rest = data[end:]
            self._read_head(data[:end])
            return
        idle = self._pool.idle
        parser = idle.pop() if idle else self._pool.make()
        parser.parse_head(data, limits)
        if self._block is None:  # the first request: nothing is kept for a connection that has only one
            self._block = b""
        elif not (parser.special or parser.http10) and end - (line_end := data.find(b"\r\n")) <= _REPEATED:
            self._block = data[line_end + 2 :]
            self._longest = min(limits.target, limits.header_bytes - (end - line_end))
            self._known = parser.headers[:]
            self._host = parser.host
        else:
            self._known = None
        self.busy = True
        sink = self._sink
        if parser.ended:
            sink.request_received(parser)
            sink.request_ended()
            idle.append(parser)
            return
        self._parser = parser
        rest, self.rest = bytes(self.rest), b""
        if parser.chunked:
            self._remaining = limits.header_bytes
            self._seam = b""
        else:
            self._remaining = parser.content_length or 0
        sink.request_received(parser)
        if rest:
            self._feed_body(rest)

    def _feed_body(self, data: bytes) -> None:
        parser = self._parser
        assert parser is not None
        if parser.chunked:
            self._feed_chunked(parser, data)
            return
        if len(data) > self._remaining:
            self.rest = data[self._remaining :]
            data = data[: self._remaining]
        self._remaining -= len(data)
        self._deliver(parser, data)
        if parser.ended:
            self._end(parser)

    def _feed_chunked(self, parser: RequestParser, data: bytes) -> None:
        # httptools does not say where a message ended inside the bytes it was given. A chunked body can only end in
        # CRLF CRLF, so the bytes are given to it up to each such place. A body that is full of them is given whole
        # after a while: llhttp then stops at its end, and what followed in the same read is not served.
        seam = self._seam  # the CRLF CRLF may have begun in an earlier read
        start = size = 0
        if (at := (seam + data[:3]).find(b"\r\n\r\n")) >= 0:
            start = at + 4 - len(seam)
            size = self._deliver(parser, data[:start])
        splits = 0
        while start < len(data) and not parser.ended:
            end = data.find(b"\r\n\r\n", start) + 4
            if end == 3:
                end = len(data)
            elif splits == _SPLITS:
                end = len(data)
                parser.stop_at_end = True
            size += self._deliver(parser, data[start:end])
            start = end
            splits += 1
        # Chunk extensions and trailers are read and forgotten. They may not be endless, and no byte of a body needs a
        # kilobyte of them.
        self._remaining += (_FRAMING_PER_BYTE + 1) * size - start
        if self._remaining < 0:
            raise ProtocolError(400, "invalid_request_body", "chunk extensions or trailers are too large")
        if parser.ended:
            self.rest = data[start:]
            self.exhausted = parser.stop_at_end
            self._end(parser)
        else:
            parser.stop_at_end = False
            self._seam = data[-3:] if len(data) > 2 else (seam + data)[-3:]

    def _deliver(self, parser: RequestParser, data: bytes) -> int:
        body = parser.feed_body(data)
        if body:
            self._sink.body_received(body)
        return len(body)

    def _end(self, parser: RequestParser) -> None:
        """The body is complete. Comes last: the sink may go on with the next request at once."""
        self._parser = None
        self._sink.request_ended()
        if not parser.stop_at_end:
            self._pool.give(parser)

    def _check_partial(self, data: bytes | bytearray, begin: int) -> None:
        """Refuse early what can't become a head, so that nobody waits for the deadline to learn it.

        Args:
            data: What is here of it.
            begin: Where it begins, behind empty lines.
        """
        limits = self._limits
        if begin:
            data = data[begin:]
        if not data:
            return
        if not _METHOD(data):
            raise ProtocolError(400, "invalid_request_line", "does not begin with a method")
        if len(data) > limits.header_bytes:
            raise head_too_large(data, limits)
        line_end = data.find(b"\n")
        if line_end < 0:
            if len(data) > limits.target + 32:
                raise target_too_long(limits)
            return
        if data[line_end - 1] != 13:
            raise ProtocolError(400, "invalid_request_line", "bare LF")
        words = bytes(data[: line_end - 1]).split(b" ")
        if len(words) != 3 or (words[2] != b"HTTP/1.1" and words[2] != b"HTTP/1.0"):
            raise bad_line(words)
        if len(words[1]) > limits.target:
            raise target_too_long(limits)
        if data.count(b"\n") != data.count(b"\r\n"):
            raise ProtocolError(400, "invalid_request_headers", "bare LF")


def _empty_lines(data: bytes | bytearray) -> int:
    """How many bytes the empty lines in front of a request line take; a few are ignored (RFC 9112 section 2.2)."""
    if data[0] > 13:
        return 0
    length = len(data) - len(data.lstrip(b"\r\n"))
    if length > 8 or data[:length] != b"\r\n\r\n\r\n\r\n"[:length] or (length % 2 and length < len(data)):
        raise ProtocolError(400, "invalid_request_line", "empty lines instead of a request line")
    return length
