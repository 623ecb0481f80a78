"""W3C Trace Context: who called, and whether the call is traced. Parsed without any tracing library.

Source: W3C Trace Context (Recommendation, 23 November 2021) sections 3.2 and 3.3; level 2 for the random flag.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

__all__ = ["TraceContext", "is_unsampled", "parse", "parse_headers", "parse_state", "trace_id_of"]

#: What is passed on of tracestate: this many characters (section 3.3.1.5 asks for at least 512), of this many entries.
_STATE: Final = 512
_ENTRIES: Final = 32
#: An entry longer than this is the first to go (section 3.3.1.5).
_LONG_ENTRY: Final = 128
#: A header that is longer is not looked at: nobody who keeps to the limits sends it.
_LONGEST: Final = 8192
#: Flags of versions 00 and level 2: sampled, and the trace id is random.
_SAMPLED: Final = 0x01
_KNOWN_FLAGS: Final = 0x03

_PARENT: Final = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL).fullmatch
_UNSAMPLED: Final = re.compile(rb"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f][02468ace]").fullmatch
_NO_TRACE: Final = b"0" * 32
_NO_SPAN: Final = b"0" * 16
_ENTRY: Final = re.compile(
    rb"([a-z][a-z0-9_*/-]{0,255}|[a-z0-9][a-z0-9_*/-]{0,240}@[a-z][a-z0-9_*/-]{0,13})"
    rb"=([ -+\--<>-~]{0,255}[!-+\--<>-~])"
).fullmatch


class TraceContext(NamedTuple):
    """The caller's place in a trace.

    Attributes:
        trace_id: 32 hex digits, not all zero.
        span_id: The caller's span, 16 hex digits, not all zero.
        flags: Trace flags; 1 is sampled.
        state: The tracestate that goes along, "" without one.
    """

    trace_id: str
    span_id: str
    flags: int = 0
    state: str = ""

    @property
    def sampled(self) -> bool:
        """Whether the caller records its span."""
        return bool(self.flags & _SAMPLED)

    @property
    def traceparent(self) -> bytes:
        """The value of the header, in version 00."""
        return f"00-{self.trace_id}-{self.span_id}-{self.flags & _KNOWN_FLAGS:02x}".encode("ascii")


def parse(traceparent: bytes, tracestate: Iterable[bytes] = ()) -> TraceContext | None:
    """The context of a request.

    Args:
        traceparent: Value of the header.
        tracestate: Values of its headers, in the order they came.

    Returns:
        None when traceparent is not valid; a tracestate that is not valid is left out.
    """
    found = _PARENT(traceparent) if len(traceparent) <= _LONGEST else None
    if found is None:
        return None
    version, trace, span, flags, rest = found.groups()
    # A later version may say more behind the flags, version 00 must not (section 3.2.2.3, and versioning in 3.2.4).
    if version == b"ff" or (version == b"00" and rest) or trace == _NO_TRACE or span == _NO_SPAN:
        return None
    return TraceContext(trace.decode(), span.decode(), int(flags, 16), parse_state(tracestate))


def parse_headers(headers: Sequence[tuple[bytes, bytes]]) -> TraceContext | None:
    """The context that the headers of a request carry; None without a valid one, or with two (section 3.2)."""
    parents = [value for name, value in headers if name == b"traceparent"]
    if len(parents) != 1:
        return None
    return parse(parents[0], [value for name, value in headers if name == b"tracestate"])


def is_unsampled(traceparent: bytes) -> bool:
    """Whether a value of traceparent is valid and says that the caller does not sample; cheaper than ``parse``.

    Of version 00 only: what a later version says, ``parse`` finds out.
    """
    return _UNSAMPLED(traceparent) is not None


def trace_id_of(traceparent: bytes) -> str:
    """The trace id in a value of traceparent, "" when it is not valid."""
    context = parse(traceparent) if traceparent else None
    return "" if context is None else context.trace_id


def parse_state(values: Iterable[bytes]) -> str:
    """What is passed on of tracestate: its entries in their order, cut to what everybody has to take.

    Too long, entries of more than 128 characters go first, then the last ones. An entry whose key came before is left
    out. One that is not valid, or more than 32, make all of it invalid.

    Returns:
        The entries, separated by commas; "" when there are none or they are not valid.
    """
    joined = b",".join(values)
    if not joined or len(joined) > _LONGEST:
        return ""
    entries: dict[bytes, bytes] = {}
    for part in joined.split(b","):
        entry = part.strip(b" \t")
        if not entry:
            continue  # empty list members are allowed (section 3.3.1.1)
        found = _ENTRY(entry)
        if found is None:
            return ""
        entries.setdefault(found[1], entry)
    kept = list(entries.values())
    if len(kept) > _ENTRIES:
        return ""
    if _length(kept) > _STATE:
        kept = [entry for entry in kept if len(entry) <= _LONG_ENTRY]
    while _length(kept) > _STATE:
        kept.pop()
    return b",".join(kept).decode("ascii")


def _length(entries: Sequence[bytes]) -> int:
    return sum(map(len, entries)) + max(0, len(entries) - 1)
