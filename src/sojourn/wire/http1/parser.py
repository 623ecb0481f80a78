"""One request at a time: a complete head, and the body behind it.

llhttp (through httptools) judges the bytes; this module adds what a server must refuse beyond it: request lines that
are only nearly right, a Host that is missing, doubled or no host, transfer codings other than chunked, chunked in
HTTP/1.0. A request whose framing could be read in two ways never reaches the application (RFC 9112 sections 3.2, 5, 6).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import httptools

from sojourn.errors import ProtocolError
from sojourn.typing import Headers
from sojourn.wire.http1.fields import FieldTable, Kind
from sojourn.wire.http1.refusals import RequestLimits, bad_line, head_error, target_too_long

__all__ = ["ParserPool", "RequestParser"]

_POOLED = 64
#: Methods of which llhttp has nothing to say: what it accepts without a second meaning.
_PLAIN: Final = frozenset([b"GET", b"HEAD", b"DELETE", b"OPTIONS", b"POST", b"PUT", b"PATCH"])


class RequestParser:
    """One message at a time: the attributes are those of the head parsed last.

    Attributes:
        method: As bytes, such as ``b"GET"``.
        target: Request target, as received.
        text: The same as text, ASCII without control characters; "" when it does not begin with a slash.
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
        deadline: Whether the client says how long it will wait.
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
        "deadline",
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
        "text",
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
            raise bad_line(words)
        self.method, self.target, version = words
        if version == b"HTTP/1.1":
            self.http10 = False
            keep_alive = True
        elif version == b"HTTP/1.0":
            self.http10 = True
            keep_alive = False
        else:
            raise bad_line(words)
        if len(words[1]) > limits.target:
            raise target_too_long(limits)
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
            raise head_error(error, lines) from None
        # llhttp lets no byte through that is not ASCII.
        self.text = words[1].decode("ascii") if words[1][0] == 47 else ""  # 47 is "/"
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
        if len(words) != 3 or words[2] != b"HTTP/1.1" or words[0] not in _PLAIN:
            return False
        method, target, _ = words
        if not target or target[0] != 47 or not target.isascii() or not (text := target.decode()).isprintable():
            return False
        self.method = method
        self.target = target
        self.text = text
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
        self.forwarded = self.deadline = False
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
            case Kind.DEADLINE:
                self.deadline = True
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
