"""Requests: bytes in, heads and bodies out.

llhttp (through httptools) judges the bytes; this module adds what a server must refuse beyond it: request lines that
are only nearly right, a Host that is missing, doubled or no host, transfer codings other than chunked, chunked in
HTTP/1.0, and everything over its limit. A request whose framing could be read in two ways never reaches the application
(RFC 9112 sections 2.2, 3.2, 5, 6.1, 6.3).

A head is parsed in one go when its last byte is there; until then it waits as bytes, so an idle connection owns no
parser: parsers live in a :class:`ParserPool` and are borrowed for the length of one message.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import httptools

from sojourn.errors import ProtocolError
from sojourn.typing import Headers
from sojourn.wire.http1.fields import FieldTable, Kind

__all__ = ["ParserPool", "RequestLimits", "RequestParser", "RequestReader", "RequestSink"]

_POOLED = 64
#: Longest header lines, in bytes, that are kept to be compared with those of the next request.
_REPEATED = 1024
#: Methods and targets of which llhttp has nothing to say: what it accepts without a second meaning.
_PLAIN: Final = frozenset([b"GET", b"HEAD", b"DELETE", b"OPTIONS", b"POST", b"PUT", b"PATCH"])
_TARGET: Final = re.compile(rb"/[!-~]*").fullmatch
#: Places where a chunked body may end are looked at one by one up to this many times a read; see ``_feed_chunked``.
_SPLITS = 1024
#: What a byte of a chunked body may bring with it in chunk sizes and extensions; see ``_feed_chunked``.
_FRAMING_PER_BYTE = 16
_TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


class RequestLimits(Protocol):
    """What of ``sojourn.config.Limits`` concerns the reading of a request."""

    @property
    def header_bytes(self) -> int: ...
    @property
    def headers(self) -> int: ...
    @property
    def target(self) -> int: ...


class RequestSink(Protocol):
    """Who is told what was read."""

    def request_received(self, head: RequestParser) -> None:
        """A head is complete. Its attributes are valid until ``request_ended`` returns."""

    def body_received(self, data: bytes) -> None:
        """A piece of the body, never empty."""

    def request_ended(self) -> None:
        """The body, and trailers if any, are complete. Called for each request, also without body."""


class RequestParser:
    """One message at a time: the attributes are those of the head parsed last.

    Attributes:
        method: As bytes, such as ``b"GET"``.
        target: Request target, as received.
        http10: Whether it is HTTP/1.0.
        headers: Names in lower case and values, in the order they came.
        content_length: Declared length in bytes; None without Content-Length.
        chunked: Whether the body is chunked.
        keep_alive: Whether the client lets the connection go on (RFC 9112 section 9.3).
        upgrade: Whether it asks for an upgrade (Connection lists ``upgrade`` and there is an Upgrade header), and has
            no body that would be in its way.
        expect_continue: Whether it waits for 100 (Continue).
        te_trailers: Whether it accepts trailers.
        forwarded: Whether a proxy says something about the client.
        special: Whether a header other than Host means something for the framing or the connection.
        host: Value of Host; None in HTTP/1.0 without one.
        ended: Whether the whole message has been read.
    """

    __slots__ = (
        "_chunks",
        "_close",
        "_fields",
        "_parser",
        "chunked",
        "content_length",
        "ended",
        "expect_continue",
        "forwarded",
        "headers",
        "host",
        "http10",
        "keep_alive",
        "method",
        "on_body",
        "special",
        "stop_at_end",
        "target",
        "te_trailers",
        "upgrade",
    )

    def __init__(self, fields: FieldTable) -> None:
        self._fields = fields
        self.host: bytes | None = None
        self.content_length: int | None
        self._chunks: list[bytes] = []
        #: Called by llhttp with each piece of the body.
        self.on_body: Callable[[bytes], None] = self._chunks.append
        self.headers: Headers = []
        self._forget_special()
        self.ended = False
        #: Whether llhttp is to stop at the end of the message, because what follows in the same bytes is another's.
        self.stop_at_end = False
        self._parser = self._new_parser()

    def _new_parser(self) -> httptools.HttpRequestParser:
        parser = httptools.HttpRequestParser(self)
        # Whether a connection goes on is decided here, not in llhttp: without this it would refuse the next message of
        # another connection after one that said close, or swallow it.
        parser.set_dangerous_leniencies(lenient_keep_alive=True)
        return parser

    def on_message_complete(self) -> None:
        """Called by llhttp at the end of a message."""
        self.ended = True
        if self.stop_at_end:
            raise _Stop

    def parse_head(self, data: bytes, limits: RequestLimits) -> None:
        """Read a complete head, from the request line to the empty line.

        Args:
            data: The head and nothing after it.
            limits: Sizes.

        Raises:
            ProtocolError: It is not acceptable; the parser must be thrown away.
        """
        lines = data.split(b"\r\n")
        words = lines[0].split(b" ")
        # llhttp takes several spaces, RTSP/1.0 and HTTP/0.9: more than one meaning, so the line is looked at here.
        if len(words) != 3:
            raise _bad_line(words)
        self.method, self.target, version = words
        if version == b"HTTP/1.1":
            self.http10 = False
            keep_alive = True
        elif version == b"HTTP/1.0":
            self.http10 = True
            keep_alive = False
        else:
            raise _bad_line(words)
        if len(words[1]) > limits.target:
            raise _target_too_long(limits)
        if b"\n" in lines[0]:  # llhttp would take it for the end of an HTTP/0.9 line, and what follows for a header
            raise ProtocolError(400, "invalid_request_line", "bare LF")
        self.ended = False
        self.host = None
        if self.special:
            self._forget_special()
        upgraded = False
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            upgraded = True
        except httptools.HttpParserError as error:
            raise _head_error(error, lines) from None
        table = self._fields.lines
        headers: Headers = []
        for line in lines[1:-2]:
            pair, kind = table.get(line) or self._fields.judge(line)
            headers.append(pair)
            if kind:
                if kind == 1:  # Kind.HOST, spelled out because this runs for every request
                    if self.host is not None:
                        raise ProtocolError(400, "invalid_request_headers", "more than one Host")
                    self.host = pair[1]
                elif kind != 12 or self.http10:  # Kind.KEEP_ALIVE says nothing new in HTTP/1.1
                    keep_alive = self._special(pair[1], kind, keep_alive)
        self.headers = headers
        self.keep_alive = keep_alive
        if len(headers) > limits.headers:
            raise ProtocolError(431, "header_too_large", f"more than {limits.headers} header lines")
        if self.host is None and not self.http10:
            raise ProtocolError(400, "invalid_request_headers", "no Host")
        if upgraded:
            self._upgraded(lines)

    def recall(self, line: bytes, headers: Headers, host: bytes | None) -> bool:
        """Read a head whose header lines are those of the request before, letter by letter: only its first line is new.

        Args:
            line: The request line, without CRLF.
            headers: What the lines say: nothing special for the framing.
            host: Their Host.

        Returns:
            Whether it could be read this way; if not, ``parse_head`` must read it.
        """
        words = line.split(b" ")
        if len(words) != 3 or words[2] != b"HTTP/1.1" or words[0] not in _PLAIN or not _TARGET(words[1]):
            return False
        self.method, self.target, _ = words
        self.headers = headers[:]  # the application may change its own
        self.host = host
        self.http10 = False
        self.keep_alive = self.ended = True
        if self.special:
            self._forget_special()
        return True

    def _forget_special(self) -> None:
        """Nothing unusual was said yet. Most requests say nothing unusual, and need no forgetting."""
        self.special = self._close = False
        self.upgrade = self.expect_continue = self.te_trailers = self.chunked = False
        self.forwarded = False
        self.content_length = None

    def _special(self, value: bytes, kind: Kind, keep_alive: bool) -> bool:
        """Take a line that means something for the framing; returns the new ``keep_alive``."""
        self.special = True
        match kind:
            case Kind.BAD_HOST:
                raise ProtocolError(400, "invalid_request_headers", "Host is not a host with an optional port")
            case Kind.CONTENT_LENGTH:
                self.content_length = int(value)  # llhttp has seen digits only, once, below 2**64
            case Kind.CHUNKED:
                if self.http10:
                    # A chunked body in HTTP/1.0 has faulty framing (RFC 9112 section 6.1).
                    raise ProtocolError(400, "invalid_request_headers", "Transfer-Encoding in HTTP/1.0")
                self.chunked = True
            case Kind.OTHER_CODING:
                if self.http10:
                    raise ProtocolError(400, "invalid_request_headers", "Transfer-Encoding in HTTP/1.0")
                raise ProtocolError(501, "unsupported_transfer_coding", "a transfer coding other than chunked")
            case Kind.CONTINUE:
                self.expect_continue = not self.http10  # RFC 9110 section 10.1.1
            case Kind.OTHER_EXPECTATION:
                raise ProtocolError(417, "expectation_failed", "an expectation other than 100-continue")
            case Kind.CONNECTION | Kind.KEEP_ALIVE:
                options = [option.strip(b" \t") for option in value.lower().split(b",")]
                self._close = self._close or b"close" in options
                return not self._close and (keep_alive or b"keep-alive" in options)
            case Kind.TE_TRAILERS:
                self.te_trailers = True
            case Kind.FORWARDED:
                self.forwarded = True
        return keep_alive

    def _upgraded(self, lines: list[bytes]) -> None:
        if self.method == b"CONNECT":
            raise ProtocolError(501, "unsupported_method", "CONNECT is not done here")
        self.special = True
        if self.content_length or self.chunked:
            # llhttp skips the body of a request that asks for an upgrade, but a server that does not upgrade must read
            # it (RFC 9110 section 7.8). The head is parsed again without the wish.
            self.ended = False
            kept = [line for line in lines[1:-2] if line[:8].lower() != b"upgrade:"]
            self._parser = self._new_parser()
            self._parser.feed_data(b"\r\n".join([lines[0], *kept, b"", b""]))
        else:
            self.upgrade = self.ended = True

    def feed_body(self, data: bytes) -> bytes:
        """Read on in the body of the message.

        Args:
            data: Bytes that belong to this message, and to no other.

        Returns:
            The body in it, decoded; b"" when it was framing only.

        Raises:
            ProtocolError: The framing is broken; the parser must be thrown away.
        """
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            if not (self.stop_at_end and self.ended):
                raise ProtocolError(400, "invalid_request_body", str(error)) from None
        chunks = self._chunks
        if not chunks:
            return b""
        body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        chunks.clear()
        return body


class _Stop(Exception):
    """Ends llhttp's reading at the end of a message."""


def _bad_line(words: Sequence[bytes]) -> ProtocolError:
    """Why this is no request line, given what stands between its spaces."""
    if len(words) != 3:
        return ProtocolError(400, "invalid_request_line", "not METHOD SP TARGET SP VERSION")
    version = words[2]
    if version[:5] == b"HTTP/" and len(version) == 8 and version[5:6].isdigit() and version[7:].isdigit():
        return ProtocolError(505, "unsupported_version", "only HTTP/1.0 and HTTP/1.1 are spoken here")
    return ProtocolError(400, "invalid_request_line", "not an HTTP version")


def _head_error(error: httptools.HttpParserError, lines: list[bytes]) -> ProtocolError:
    """Whose line llhttp refused, as an answer."""
    detail = str(error)
    if isinstance(error, httptools.HttpParserInvalidMethodError) or "Invalid method" in detail:
        if _TOKEN.fullmatch(lines[0].partition(b" ")[0]):
            return ProtocolError(501, "unsupported_method", "a method unknown here")
        return ProtocolError(400, "invalid_request_line", detail)
    if isinstance(error, httptools.HttpParserInvalidURLError):
        return ProtocolError(400, "invalid_request_line", detail)
    if "version" in detail or "HTTP/" in detail or "method" in detail.lower():
        return ProtocolError(400, "invalid_request_line", detail)
    if "Transfer-Encoding" in detail and "Content-Length" not in detail and not lines[0].endswith(b"HTTP/1.0"):
        codings = b",".join(line.partition(b":")[2] for line in lines if line[:18].lower() == b"transfer-encoding:")
        if b"chunked" not in [coding.strip(b" \t").lower() for coding in codings.split(b",")]:
            return ProtocolError(501, "unsupported_transfer_coding", "a transfer coding other than chunked")
    return ProtocolError(400, "invalid_request_headers", detail)


class ParserPool:
    """Parsers at rest, shared by the connections of a worker. Readers pop and append; ``make`` is for an empty pool."""

    __slots__ = ("fields", "idle")

    def __init__(self) -> None:
        self.fields: Final = FieldTable()
        self.idle: list[RequestParser] = []

    def make(self) -> RequestParser:
        """A new parser."""
        return RequestParser(self.fields)

    def give(self, parser: RequestParser) -> None:
        """Take a parser back after a body; a burst of uploads does not leave its parsers here for ever."""
        if len(self.idle) < _POOLED:
            self.idle.append(parser)


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
        # The header lines of the request before, as bytes and as what they say; b"" when they can't be used again.
        self._block: bytes | None = None
        self._known: Headers | None = None
        self._host: bytes | None = None
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
            raise _too_large(data, limits)
        idle = self._pool.idle
        parser = idle.pop() if idle else self._pool.make()
        rest = b""
        if end != len(data):
            rest = data[end:]
            data = data[:end]
        # On a keep-alive connection a client changes the request line from one request to the next, and seldom another:
        # lines that are letter by letter those llhttp has accepted before are not looked at again.
        line_end = data.find(b"\r\n")
        block = data[line_end:]
        known = self._known
        if (
            block != self._block
            or known is None
            or line_end > limits.target
            or not parser.recall(data[:line_end], known, self._host)
        ):
            parser.parse_head(data, limits)
            if self._block is None:  # the first request: nothing is kept for a connection that has only one
                self._block = b""
            elif not (parser.special or parser.http10 or len(block) > _REPEATED):
                self._block = block
                self._known = parser.headers[:]
                self._host = parser.host
            else:
                self._block = b""
        self.busy = True
        sink = self._sink
        if parser.ended:
            self.rest = rest
            sink.request_received(parser)
            sink.request_ended()
            idle.append(parser)
            return
        self._parser = parser
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
        if not _TOKEN.match(data):
            raise ProtocolError(400, "invalid_request_line", "does not begin with a method")
        if len(data) > limits.header_bytes:
            raise _too_large(data, limits)
        line_end = data.find(b"\n")
        if line_end < 0:
            if len(data) > limits.target + 32:
                raise _target_too_long(limits)
            return
        if data[line_end - 1] != 13:
            raise ProtocolError(400, "invalid_request_line", "bare LF")
        words = bytes(data[: line_end - 1]).split(b" ")
        if len(words) != 3 or (words[2] != b"HTTP/1.1" and words[2] != b"HTTP/1.0"):
            raise _bad_line(words)
        if len(words[1]) > limits.target:
            raise _target_too_long(limits)
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


def _target_too_long(limits: RequestLimits) -> ProtocolError:
    return ProtocolError(414, "uri_too_long", f"request target longer than {limits.target} bytes")


def _too_large(data: bytes | bytearray, limits: RequestLimits) -> ProtocolError:
    line_end = data.find(b"\r\n")
    if line_end < 0 or line_end > limits.target + 32:
        return _target_too_long(limits)
    return ProtocolError(431, "header_too_large", f"head larger than {limits.header_bytes} bytes")
