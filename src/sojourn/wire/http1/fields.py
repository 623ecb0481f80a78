"""Header lines: what each means for the framing of a request, decided once per distinct line.

Clients repeat themselves: ``Host``, ``User-Agent`` or ``Accept`` arrive in the same bytes thousands of times. A
:class:`FieldTable` keeps the verdict on a line (its name in lower case, its value, what it means for framing), so that
the second time costs one dictionary lookup. It is bounded, and keeps only lines of names that hold no secrets.

The lines come from a head that llhttp has accepted: names are tokens, values have no control bytes, nothing is folded.
"""

from __future__ import annotations

import re
from enum import IntEnum
from typing import Final

__all__ = ["Field", "FieldTable", "Kind", "valid_host"]


class Kind(IntEnum):
    """What a header line means for the framing of a request. ORDINARY is 0, so that the test for it is a truth test."""

    ORDINARY = 0
    HOST = 1
    BAD_HOST = 2
    CONTENT_LENGTH = 3
    CHUNKED = 4
    OTHER_CODING = 5
    CONTINUE = 6
    OTHER_EXPECTATION = 7
    CONNECTION = 8
    UPGRADE = 9
    TE_TRAILERS = 10
    FORWARDED = 11
    KEEP_ALIVE = 12
    DEADLINE = 13


#: ((name, value), kind)
Field = tuple[tuple[bytes, bytes], Kind]

_KEPT_LINES = 1024
_KEPT_LENGTH = 256
#: Names whose lines are kept: what clients repeat. No other, because a table shared by all connections must hold no
#: secret (and who knows which name hides one), nor values that are new each time.
_KEPT: Final = frozenset(
    name.encode()
    for name in (
        "accept accept-charset accept-encoding accept-language cache-control connection content-type dnt expect host "
        "origin pragma priority sec-ch-ua sec-ch-ua-mobile sec-ch-ua-platform sec-fetch-dest sec-fetch-mode "
        "sec-fetch-site sec-fetch-user sec-gpc sec-websocket-extensions sec-websocket-version te transfer-encoding "
        "upgrade upgrade-insecure-requests user-agent x-forwarded-host x-forwarded-port x-forwarded-proto "
        "x-requested-with"
    ).split()
)

# uri-host [ ":" port ] (RFC 9112 section 3.2, RFC 3986 section 3.2.2). An empty host is allowed by the grammar only for
# schemes that define one; http does not (RFC 9110 section 4.2.1).
_HOST: Final = re.compile(
    rb"(?:\[(?:[0-9A-Fa-f:.]+|[vV][0-9A-Fa-f]+\.[\w.~!$&'()*+,;=:-]+)\]"
    rb"|(?:[\w.~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})+)(?::[0-9]{0,5})?",
    re.ASCII,
)


def valid_host(value: bytes) -> bool:
    """Whether this is one host with an optional port, and nothing else (RFC 9112 section 3.2)."""
    return len(value) <= 262 and _HOST.fullmatch(value) is not None


def _kind(name: bytes, value: bytes) -> Kind:
    match name:
        case b"host":
            return Kind.HOST if valid_host(value) else Kind.BAD_HOST
        case b"content-length":
            return Kind.CONTENT_LENGTH
        case b"transfer-encoding":
            return Kind.CHUNKED if value.lower() == b"chunked" else Kind.OTHER_CODING
        case b"expect":
            return Kind.CONTINUE if value.lower() == b"100-continue" else Kind.OTHER_EXPECTATION
        case b"connection":
            return Kind.KEEP_ALIVE if value.lower() == b"keep-alive" else Kind.CONNECTION
        case b"upgrade":
            return Kind.UPGRADE
        case b"te":
            tokens = (token.partition(b";")[0].strip(b" \t") for token in value.lower().split(b","))
            return Kind.TE_TRAILERS if b"trailers" in tokens else Kind.ORDINARY
        case b"forwarded" | b"x-forwarded-for" | b"x-forwarded-proto" | b"x-forwarded-host" | b"x-forwarded-port":
            return Kind.FORWARDED
        case b"request-timeout-ms" | b"grpc-timeout" | b"x-envoy-expected-rq-timeout-ms":
            return Kind.DEADLINE
    return Kind.ORDINARY


class FieldTable:
    """The verdicts on header lines, shared by all connections of a worker."""

    __slots__ = ("lines",)

    def __init__(self) -> None:
        #: The kept verdicts, by line without its CRLF. Read directly by the hot path; ``judge`` fills it.
        self.lines: dict[bytes, Field] = {}

    def judge(self, line: bytes) -> Field:
        """Split a header line and say what it means.

        Args:
            line: One line without CRLF, already accepted by llhttp.

        Returns:
            The name in lower case and the value without surrounding white space, and the kind.
        """
        name, _, value = line.partition(b":")
        name = name.lower()
        value = value.strip(b" \t")
        field = ((name, value), _kind(name, value))
        if len(line) <= _KEPT_LENGTH and name in _KEPT:
            lines = self.lines
            if len(lines) >= _KEPT_LINES:
                lines.clear()
            lines[line] = field
        return field
