"""What a client understands: payloads as they are, payloads with their position, ``sojourn.v1``, events.

A dialect says what is to be sent; :mod:`sojourn.hub.forms` says how it is put on a connection. None stands for what a
dialect has no words for. The wire is described in ``docs/reference/hub-wire.md``.
"""

from __future__ import annotations

import binascii
from collections.abc import Sequence
from typing import Final, Protocol

import msgspec

from sojourn.hub.engine import Present
from sojourn.hub.publication import Kind, Publication
from sojourn.wire import hub as wire
from sojourn.wire.hub.cursor import Cursor

__all__ = ["Dialect", "Events", "LineEvents", "Lines", "Payloads", "StampedPayloads", "Text", "as_json", "wired"]

_JSON: Final = Kind.JSON
_TEXT: Final = Kind.TEXT
_SPACE: Final = b" \t\n\r"


class Text(bytes):
    """UTF-8 that is sent as text; other bytes are sent as bytes."""

    __slots__ = ()


class Dialect(Protocol):
    """How things are said."""

    def publication(self, publication: Publication) -> bytes:
        """Something that was published, or sent to this member."""

    def snapshot(self, state: Publication, cursor: Cursor) -> bytes:
        """The state of a channel, in place of what is missing up to the cursor."""

    def gap(self, channel: str, cursor: Cursor) -> bytes | None:
        """Publications of a channel are missing up to the cursor."""

    def presence(self, channel: str, came: Sequence[Present], left: Sequence[str]) -> bytes | None:
        """Who came and who left."""

    def line(self, line: bytes) -> bytes | None:
        """A line of ``sojourn.v1``."""

    def hello(self, hello: wire.Hello, wait: int) -> bytes | None:
        """The first that is said. ``wait``: milliseconds this client waits before it comes back, without advice."""

    def bye(self, bye: wire.Bye, wait: int) -> bytes | None:
        """The last that is said. ``wait``: milliseconds after which this client comes back."""

    def ping(self) -> bytes | None:
        """A sign of life."""


class Payloads:
    """Payloads as they were published, and nothing else."""

    def publication(self, publication: Publication) -> bytes:
        return publication.data if publication.kind is Kind.BINARY else Text(publication.data)

    def snapshot(self, state: Publication, cursor: Cursor) -> bytes:
        return self.publication(state)

    def gap(self, channel: str, cursor: Cursor) -> bytes | None:
        return None

    def presence(self, channel: str, came: Sequence[Present], left: Sequence[str]) -> bytes | None:
        return None

    def line(self, line: bytes) -> bytes | None:
        return None

    def hello(self, hello: wire.Hello, wait: int) -> bytes | None:
        return None

    def bye(self, bye: wire.Bye, wait: int) -> bytes | None:
        return None

    def ping(self) -> bytes | None:
        return None


class StampedPayloads(Payloads):
    """Payloads as they were published; JSON objects say their position first, as ``_id``."""

    def publication(self, publication: Publication) -> bytes:
        if publication.kind is _JSON and publication.seq:
            stamp = b'"_id":"%b.%d"' % (publication.epoch.encode(), publication.seq)
            return _spliced(publication.data, stamp) or Text(publication.data)
        return super().publication(publication)

    def snapshot(self, state: Publication, cursor: Cursor) -> bytes:
        if state.kind is _JSON:
            found = _spliced(state.data, self._gap(state.channel, cursor))
            if found is not None:
                return found
        return super().publication(state)

    def gap(self, channel: str, cursor: Cursor) -> bytes | None:
        return Text(b"{%b}" % self._gap(channel, cursor))

    def hello(self, hello: wire.Hello, wait: int) -> bytes | None:
        return Text(b'{"_id":%b}' % as_json(hello.pos))

    def _gap(self, channel: str, cursor: Cursor) -> bytes:
        if not cursor.seq:  # no place to resume from: the client keeps the one it has
            return b'"_gap":%b' % as_json(channel)
        return b'"_gap":%b,"_id":%b' % (as_json(channel), as_json(str(cursor)))


class Lines:
    """``sojourn.v1``, a line for each."""

    def publication(self, publication: Publication) -> bytes:
        return self.line(wire.encode_object(wired(publication)))

    def snapshot(self, state: Publication, cursor: Cursor) -> bytes:
        if state.kind is Kind.BINARY:
            return self._said(wire.Snap(state.channel, str(cursor), b=state.data))
        return self._said(wire.Snap(state.channel, str(cursor), _raw(state)))

    def gap(self, channel: str, cursor: Cursor) -> bytes | None:
        return self._said(wire.Gap(channel, str(cursor)))

    def presence(self, channel: str, came: Sequence[Present], left: Sequence[str]) -> bytes | None:
        return self._said(wire.Pres(channel, [wire.Member(*present) for present in came], left))

    def line(self, line: bytes) -> bytes:
        return Text(line)

    def hello(self, hello: wire.Hello, wait: int) -> bytes | None:
        return self._said(hello)

    def bye(self, bye: wire.Bye, wait: int) -> bytes | None:
        return self._said(bye)

    def ping(self) -> bytes | None:
        return self.line(b"{}")

    def _said(self, said: wire.Reply | wire.Push) -> bytes:
        return self.line(wire.encode_object(said))


class Events:
    """Server-sent events with payloads as data."""

    def publication(self, publication: Publication) -> bytes:
        kind = b"event: binary\n" if publication.kind is Kind.BINARY else b""
        return b"%b%bdata: %b\n\n" % (kind, _id(publication.cursor), _event_data(publication))

    def snapshot(self, state: Publication, cursor: Cursor) -> bytes:
        return b"event: snapshot\n%bdata: %b\n\n" % (_id(cursor), _event_data(state))

    def gap(self, channel: str, cursor: Cursor) -> bytes | None:
        return b"event: gap\n%bdata: %b\n\n" % (_id(cursor), channel.encode())

    def presence(self, channel: str, came: Sequence[Present], left: Sequence[str]) -> bytes | None:
        return None

    def line(self, line: bytes) -> bytes | None:
        return None

    def hello(self, hello: wire.Hello, wait: int) -> bytes | None:
        # Without any `data` field nothing is dispatched, and the id is kept all the same (WHATWG HTML section 9.2.6).
        return b"id: %b\nretry: %d\n\n" % (hello.pos.encode(), wait)

    def bye(self, bye: wire.Bye, wait: int) -> bytes | None:
        retry = b"" if bye.retry is None else b"retry: %d\n" % wait
        return b"event: bye\n%bdata: %b\n\n" % (retry, _data_lines(bye.reason.encode()))

    def ping(self) -> bytes | None:
        return b":\n\n"


class LineEvents(Lines):
    """Server-sent events with lines of ``sojourn.v1`` as data."""

    def publication(self, publication: Publication) -> bytes:
        return _id(publication.cursor) + super().publication(publication)

    def snapshot(self, state: Publication, cursor: Cursor) -> bytes:
        return _id(cursor) + super().snapshot(state, cursor)

    def gap(self, channel: str, cursor: Cursor) -> bytes | None:
        return _id(cursor) + self._said(wire.Gap(channel, str(cursor)))

    def line(self, line: bytes) -> bytes:
        return b"data: %b\n\n" % line

    def hello(self, hello: wire.Hello, wait: int) -> bytes | None:
        return b"id: %b\nretry: %d\n%b" % (hello.pos.encode(), wait, self._said(hello))

    def bye(self, bye: wire.Bye, wait: int) -> bytes | None:
        retry = b"" if bye.retry is None else b"retry: %d\n" % wait
        return retry + self._said(bye)


def wired(publication: Publication) -> wire.Publication | wire.Message:
    """A publication as it is in ``sojourn.v1``, in pages of history and in answers to a long poll."""
    binary = publication.kind is Kind.BINARY
    if not publication.channel:
        return wire.Message(bin=publication.data) if binary else wire.Message(_raw(publication))
    if binary:
        return wire.Publication(publication.channel, publication.seq, publication.key, b=publication.data)
    return wire.Publication(publication.channel, publication.seq, publication.key, _raw(publication))


def as_json(text: str) -> bytes:
    """Text as a JSON string."""
    return msgspec.json.encode(text)


def _raw(publication: Publication) -> msgspec.Raw:
    """The payload as JSON in one line."""
    data = publication.data
    if publication.kind is _TEXT:
        return msgspec.Raw(as_json(data.decode()))
    return msgspec.Raw(_one_line(data))


def _one_line(data: bytes) -> bytes:
    """JSON without line ends: outside of strings they are as good as spaces, and inside there are none (RFC 8259)."""
    if b"\n" in data or b"\r" in data:
        return data.replace(b"\n", b" ").replace(b"\r", b" ")
    return data


def _spliced(data: bytes, fields: bytes) -> Text | None:
    """A JSON object with other fields in front of its own; None when the JSON is no object."""
    inner = data.lstrip(_SPACE)
    if not inner.startswith(b"{"):
        return None
    inner = inner[1:].lstrip(_SPACE)
    return Text(b"{%b%b%b" % (fields, b"" if inner.startswith(b"}") else b",", inner))


def _id(cursor: Cursor) -> bytes:
    """The field ``id`` of an event; none for what has no place, so that the client keeps the one it has."""
    return b"id: %b\n" % str(cursor).encode() if cursor.seq else b""


def _event_data(publication: Publication) -> bytes:
    if publication.kind is _JSON:
        return _one_line(publication.data)
    if publication.kind is _TEXT:
        return _data_lines(publication.data)
    return binascii.b2a_base64(publication.data, newline=False)


def _data_lines(text: bytes) -> bytes:
    """Text for a field ``data``, with another one for each of its lines (WHATWG HTML section 9.2.5)."""
    if b"\r" in text:
        text = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return text.replace(b"\n", b"\ndata: ") if b"\n" in text else text
