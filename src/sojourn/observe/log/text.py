"""Text that may be shown: what a stranger sent can neither forge a log line nor drive a terminal.

Paths, user agents, addresses and details of errors come from outside. Each output has its own rule:

- a JSON line is pure ASCII: whatever is not printable ASCII is a ``\\u`` escape inside a string, so nothing is lost;
- a quoted field and a word are printable ASCII with ``\\xhh`` for every other byte, as Apache and nginx write it;
- a message for people keeps printable Unicode; its second and further lines are indented, so that none can look like a
  line of its own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

__all__ = [
    "Stamp",
    "apache_time",
    "clip",
    "clock_time",
    "json_gap",
    "json_line",
    "json_text",
    "message",
    "quoted",
    "raw",
    "rfc3339",
    "word",
]

_encode = msgspec.json.Encoder().encode
_plain_quoted = re.compile(rb"[ !\x23-\x5b\x5d-\x7e]*").fullmatch
_plain_word = re.compile(rb"[!-\x5b\x5d-\x7e]+").fullmatch
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_SHORT: Final = {0x09: "\\t", 0x0A: "\\n", 0x0D: "\\r", 0x22: '\\"', 0x5C: "\\\\"}
_QUOTED: Final = {c: _SHORT.get(c, chr(c) if 0x20 <= c < 0x7F else f"\\x{c:02x}") for c in range(256)}
_WORD: Final = {**_QUOTED, 0x20: "\\x20", 0x22: '"'}


def clip(data: bytes, limit: int) -> bytes:
    """At most ``limit`` bytes; a cut is marked with three dots, which count."""
    return data if len(data) <= limit else data[: limit - 3] + b"..."


def raw(text: str) -> bytes:
    """The bytes of any string, lone surrogates included; never raises."""
    return text.encode("utf-8", "surrogatepass")


def quoted(data: bytes) -> str:
    """The inside of a ``"..."`` field: printable ASCII, backslash escapes for the rest."""
    return data.decode("ascii") if _plain_quoted(data) else data.decode("latin-1").translate(_QUOTED)


def word(data: bytes) -> str:
    """One word without blanks: printable ASCII, backslash escapes for the rest; ``-`` when there is nothing."""
    if _plain_word(data):
        return data.decode("ascii")
    return data.decode("latin-1").translate(_WORD) if data else "-"


def message(text: str, *, lines: bool = False) -> str:
    """A message for people: printable Unicode stays, everything else is escaped.

    Args:
        text: What to show.
        lines: Whether it may have several lines; all but the first are then indented by four blanks. Otherwise a line
            end is escaped too.
    """
    if text.isprintable():
        return text
    if lines:
        return "\n    ".join(message(line.replace("\t", "    ")) for line in text.split("\n"))
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode("ascii") for c in text)


def json_line(record: dict[str, Any]) -> bytes:
    """One JSON object and a line feed, in printable ASCII only.

    Args:
        record: Strings, numbers, booleans, None and tuples of them by name.
    """
    try:
        line = _encode(record)
    except UnicodeEncodeError:  # a lone surrogate: a name or an argument of the application that was never text
        line = _encode({key: _without_surrogates(value) for key, value in record.items()})
    if not line.isascii():
        line = json.dumps(msgspec.json.decode(line), separators=(",", ":")).encode("ascii")
    if b"\x7f" in line:  # DEL is the one control character that JSON allows inside a string (RFC 8259 section 7)
        line = line.replace(b"\x7f", b"\\u007f")
    return line + b"\n"


def json_text(text: str | None) -> str:
    """One JSON string, quotes included, in printable ASCII only; ``null`` for None."""
    return json_line({"": text})[4:-2].decode("ascii")


def json_gap(time: str, count: int, cause: str) -> bytes:
    """The JSON line that says how many lines are missing here."""
    record = {"time": time, "level": "warning", "event": "log_lines_lost", "lines": count, "cause": cause}
    return json_line(record)


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, tuple):
        return tuple(_without_surrogates(part) for part in value)
    return value


class Stamp:
    """Writes moments; each is made once, the part down to the second once per second.

    Args:
        head: Makes the part down to the second.
        tail: Follows the milliseconds; None leaves them out.
        local: Whether ``head`` gets the machine's time zone in place of UTC.
    """

    __slots__ = ("_head", "_local", "_made", "_ms", "_second", "_tail", "_text")

    def __init__(self, head: Callable[[datetime], str], tail: str | None, *, local: bool = False) -> None:
        self._head = head
        self._tail = tail
        self._local = local
        self._second = -1
        self._made = ""
        self._ms = -1
        self._text = ""

    def __call__(self, when: float) -> str:
        """The moment ``when``, in seconds since 1970, as text."""
        ms = int(when * 1000 + 0.5)
        if ms == self._ms:  # dozens of lines share a millisecond
            return self._text
        second = ms // 1000
        if second != self._second:
            moment = datetime.fromtimestamp(second, UTC)
            self._made = self._head(moment.astimezone() if self._local else moment)
            self._second = second
        self._ms = ms
        self._text = text = self._made if self._tail is None else f"{self._made}.{ms % 1000:03d}{self._tail}"
        return text


def rfc3339() -> Stamp:
    """``2026-01-31T23:59:59.123Z``."""
    return Stamp(lambda t: f"{t:%Y-%m-%dT%H:%M:%S}", "Z")


def apache_time() -> Stamp:
    """``31/Jan/2026:23:59:59 +0000``: English months whatever the locale."""
    return Stamp(lambda t: f"{t.day:02d}/{_MONTHS[t.month - 1]}/{t:%Y:%H:%M:%S} +0000", None)


def clock_time() -> Stamp:
    """``23:59:59.123``, in the machine's time zone, for people at a terminal."""
    return Stamp(lambda t: f"{t:%H:%M:%S}", "", local=True)
