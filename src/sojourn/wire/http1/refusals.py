"""Why a request head is refused, as the answer it gets."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, Protocol

import httptools

from sojourn.errors import ProtocolError

__all__ = ["RequestLimits", "bad_line", "head_error", "head_too_large", "target_too_long"]

_TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


class RequestLimits(Protocol):
    """What of ``sojourn.config.Limits`` concerns the reading of a request."""

    @property
    def header_bytes(self) -> int: ...
    @property
    def headers(self) -> int: ...
    @property
    def target(self) -> int: ...


def bad_line(words: Sequence[bytes]) -> ProtocolError:
    """Why this is no request line, given what stands between its spaces."""
    if len(words) != 3:
        return ProtocolError(400, "invalid_request_line", "not METHOD SP TARGET SP VERSION")
    version = words[2]
    if version[:5] == b"HTTP/" and len(version) == 8 and version[5:6].isdigit() and version[7:].isdigit():
        return ProtocolError(505, "unsupported_version", "only HTTP/1.0 and HTTP/1.1 are spoken here")
    return ProtocolError(400, "invalid_request_line", "not an HTTP version")


def head_error(error: httptools.HttpParserError, lines: list[bytes]) -> ProtocolError:
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


def target_too_long(limits: RequestLimits) -> ProtocolError:
    """The request target is over ``limits.target``."""
    return ProtocolError(414, "uri_too_long", f"request target longer than {limits.target} bytes")


def head_too_large(data: bytes | bytearray, limits: RequestLimits) -> ProtocolError:
    """The head is over ``limits.header_bytes``: by its target, or by its headers."""
    line_end = data.find(b"\r\n")
    if line_end < 0 or line_end > limits.target + 32:
        return target_too_long(limits)
    return ProtocolError(431, "header_too_large", f"head larger than {limits.header_bytes} bytes")
