"""Server-sent events: writes and reads the event stream format (WHATWG HTML section 9.2).

Only CR, LF and CRLF end a line here; Python's ``splitlines`` knows more, so it is not used.
"""

from __future__ import annotations

import re
from typing import Any, Final, NamedTuple

import msgspec

__all__ = ["EventParser", "ReceivedEvent", "ServerSentEvent", "encode"]

_LINE_END: Final = re.compile(r"\r\n|\r|\n")
_BYTES_LINE_END: Final = re.compile(rb"\r\n|\r|\n")
_BOM: Final = b"\xef\xbb\xbf"


class ServerSentEvent(NamedTuple):
    """One event of an event stream. Without data it is not delivered, but what else it says is heeded.

    Attributes:
        data: What it carries: text, bytes (UTF-8), or anything that JSON can express. None for no data.
        event: Its type, for ``addEventListener``; None is ``message``.
        id: What the client sends as Last-Event-ID when it comes back; "" forgets the one before, None keeps it.
        retry: Milliseconds the client waits before it comes back; None keeps what it knows.
        comment: Text that clients ignore; "" is a bare heartbeat.

    Example:
        >>> encode(ServerSentEvent({"seat": 7}, event="sold", id="41"))
        b'event: sold\\nid: 41\\ndata: {"seat":7}\\n\\n'
    """

    data: Any = None
    event: str | None = None
    id: str | None = None
    retry: int | None = None
    comment: str | None = None


def encode(event: ServerSentEvent) -> bytes:
    """The bytes of one event, with the empty line that ends it.

    Raises:
        ValueError: A field can't be written so that a client reads what was meant.
    """
    lines: list[str] = []
    if event.comment is not None:
        lines.extend(f": {line}" if line else ":" for line in _lines("comment", event.comment))
    if event.event is not None:
        lines.append(f"event: {_one_line('event', event.event)}")
    if event.id is not None:
        # A client ignores an id with U+0000 (section 9.2.6, field "id").
        if "\0" in _one_line("id", event.id):
            raise ValueError(f"the id of an event can't contain NUL: {event.id!r}")
        lines.append(f"id: {event.id}")
    if event.retry is not None:
        if type(event.retry) is not int or event.retry < 0:
            raise ValueError(f"retry is a whole number of milliseconds, not {event.retry!r}")
        lines.append(f"retry: {event.retry}")
    if event.data is not None:
        text = _text(event.data)
        if "\n" in text or "\r" in text:
            lines.extend(f"data: {line}" for line in _LINE_END.split(text))
        else:
            lines.append(f"data: {text}")
    lines.append("\n")
    try:
        return "\n".join(lines).encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"text that is not Unicode can't be sent: {error.object[error.start : error.end]!r}") from None


def _text(data: Any) -> str:
    """The data of an event as text."""
    if isinstance(data, str):
        return data
    if isinstance(data, bytes | bytearray | memoryview):
        try:
            return str(data, "utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"the data of an event is UTF-8, and byte {error.start} is not") from None
    try:
        return msgspec.json.encode(data).decode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"the data of an event can't be written as JSON: {error}") from None


def _lines(field: str, value: str) -> list[str]:
    if not isinstance(value, str):
        raise ValueError(f"the {field} of an event is text, not {value!r}")
    return _LINE_END.split(value)


def _one_line(field: str, value: str) -> str:
    if len(_lines(field, value)) > 1:
        raise ValueError(f"the {field} of an event is one line: {value!r}")
    return value


class ReceivedEvent(NamedTuple):
    """An event as a client sees it.

    Attributes:
        event: Its type; ``message`` when none was sent.
        data: Its data, lines joined by LF.
        id: The last id that was sent up to here, with this event or before.
    """

    event: str
    data: str
    id: str


class EventParser:
    """Reads an event stream as a browser does (section 9.2.6); how the bytes are cut changes nothing.

    Args:
        limit: Bytes that an unfinished event may have.

    Attributes:
        last_event_id: What a client would send as Last-Event-ID now.
        retry: Milliseconds before it would come back; None while the server has not said.
        comments: How many comment lines were read.
    """

    __slots__ = (
        "_begun",
        "_data",
        "_event",
        "_held",
        "_id",
        "_limit",
        "_rest",
        "_skip_lf",
        "comments",
        "last_event_id",
        "retry",
    )

    def __init__(self, *, limit: int = 1024 * 1024) -> None:
        self._limit = limit
        #: Whether the place of a byte order mark is behind us.
        self._begun = False
        #: Whether the last byte was a CR: a LF right after it belongs to it.
        self._skip_lf = False
        self._rest = b""
        self._data: list[str] = []
        #: Bytes of the lines of data in hand.
        self._held = 0
        self._event = self._id = ""
        self.last_event_id = ""
        self.retry: int | None = None
        self.comments = 0

    def feed(self, data: bytes) -> list[ReceivedEvent]:
        """Read bytes.

        Returns:
            The events they complete. One that is not followed by an empty line is never complete.

        Raises:
            ValueError: An event is longer than the limit. The parser is of no use any more.
        """
        if self._skip_lf and data:
            self._skip_lf = False
            data = data.removeprefix(b"\n")
        searched = len(self._rest)
        data = self._rest + data
        if not self._begun:
            if len(data) < len(_BOM) and _BOM.startswith(data):
                self._rest = data
                return []
            self._begun = True
            data = data.removeprefix(_BOM)
            searched = 0
        received: list[ReceivedEvent] = []
        start = 0
        for end in _BYTES_LINE_END.finditer(data, searched):
            self._line(data[start : end.start()], received)
            start = end.end()
        self._skip_lf = start == len(data) and data.endswith(b"\r")
        self._rest = data[start:]
        if len(self._rest) + self._held > self._limit:
            raise ValueError(f"an event is longer than {self._limit} bytes")
        return received

    def _line(self, line: bytes, received: list[ReceivedEvent]) -> None:
        if not line:
            self._dispatch(received)
            return
        name, _, value = line.partition(b":")
        if not name:
            self.comments += 1
            return
        text = value.removeprefix(b" ").decode("utf-8", "replace")
        match name:
            case b"event":
                self._event = text
            case b"data":
                self._held += len(line)
                if self._held > self._limit:
                    raise ValueError(f"an event is longer than {self._limit} bytes")
                self._data.append(text)
            case b"id":
                if "\0" not in text:
                    self._id = text
            case b"retry":
                if text.isascii() and text.isdigit():
                    self.retry = int(text)
            case _:
                pass  # section 9.2.6: any other field is ignored

    def _dispatch(self, received: list[ReceivedEvent]) -> None:
        self.last_event_id = self._id
        if self._data:
            received.append(ReceivedEvent(self._event or "message", "\n".join(self._data), self._id))
            self._data.clear()
            self._held = 0
        self._event = ""
