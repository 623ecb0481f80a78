"""Wire forms: how members get what is published, encoded once for all who get it alike.

A form is a dialect (what is said) and a framing (how it is put on a connection): a WebSocket frame with its header, an
event, an event as a chunk of HTTP/1.1. ``Form.of`` keeps what it made with the publication, so the second member costs
a look-up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from sojourn.hub.dialects import Dialect, Events, LineEvents, Lines, Payloads, StampedPayloads, Text
from sojourn.hub.engine import Present
from sojourn.hub.publication import Publication
from sojourn.wire import hub as wire
from sojourn.wire.deflate import DeflateParams, Deflater, DeflateSettings
from sojourn.wire.hub.cursor import Cursor
from sojourn.wire.websocket_frames import BINARY, TEXT, encode_frame

__all__ = [
    "EVENTS",
    "EVENT_CHUNKS",
    "LINE_EVENTS",
    "LINE_EVENT_CHUNKS",
    "PLAIN",
    "PLAIN_MESSAGES",
    "STAMPED",
    "STAMPED_MESSAGES",
    "V1",
    "V1_MESSAGES",
    "DeflatedForm",
    "Form",
    "Forms",
]


class Form:
    """One way in which members get what is published. Compared by identity: there is one object for each form.

    All that it gives is ready to be written; None where the form has no words for it.

    Args:
        name: For people.
        dialect: What is said.
        framing: Makes of it what is written.
    """

    __slots__ = ("_framing", "dialect", "name")

    def __init__(self, name: str, dialect: Dialect, framing: Callable[[bytes], bytes]) -> None:
        self.name = name
        self.dialect = dialect
        self._framing = framing

    def __repr__(self) -> str:
        return f"<Form {self.name}>"

    def of(self, publication: Publication) -> bytes:
        """A publication. Whoever asks first pays for it."""
        try:
            return publication.forms[self]
        except KeyError:
            data = publication.forms[self] = self._made(publication)
            return data

    def _made(self, publication: Publication) -> bytes:
        return self._framing(self.dialect.publication(publication))

    def snapshot(self, state: Publication, cursor: Cursor) -> bytes:
        """The state of a channel, in place of what is missing up to the cursor."""
        return self._framing(self.dialect.snapshot(state, cursor))

    def gap(self, channel: str, cursor: Cursor) -> bytes | None:
        """Publications of a channel are missing up to the cursor."""
        return self._framed(self.dialect.gap(channel, cursor))

    def presence(self, channel: str, came: Sequence[Present], left: Sequence[str]) -> bytes | None:
        """Who came and who left."""
        return self._framed(self.dialect.presence(channel, came, left))

    def say(self, said: wire.Reply | wire.Push) -> bytes | None:
        """An answer, or a push that has no method here."""
        return self._framed(self.dialect.line(wire.encode_object(said)))

    def hello(self, hello: wire.Hello, wait: int) -> bytes | None:
        """The first that is said.

        Args:
            hello: What the client has to know.
            wait: Milliseconds that it waits before it comes back, unless it is told otherwise; for event streams.
        """
        return self._framed(self.dialect.hello(hello, wait))

    def bye(self, bye: wire.Bye, wait: int) -> bytes | None:
        """The last that is said; ``wait`` as in :meth:`hello`."""
        return self._framed(self.dialect.bye(bye, wait))

    def ping(self) -> bytes | None:
        """A sign of life."""
        return self._framed(self.dialect.ping())

    def messages(self, written: Sequence[bytes]) -> list[bytes | str]:
        """What was made in this form, for a server that frames messages by itself: text as str, and as few as possible.

        Args:
            written: In order.
        """
        if type(self.dialect) is Lines:
            return [b"\n".join(written).decode()] if written else []
        return [data.decode() if isinstance(data, Text) else data for data in written]

    def _framed(self, data: bytes | None) -> bytes | None:
        return None if data is None else self._framing(data)


class DeflatedForm(Form):
    """WebSocket frames that are compressed, each by itself, where that makes them shorter.

    Args:
        base: The form of which it is a variant; what is short goes as it does there.
        deflater: Without context takeover, so that a frame fits every connection with the same parameters.
    """

    __slots__ = ("_base", "_deflater")

    def __init__(self, base: Form, deflater: Deflater) -> None:
        super().__init__(f"{base.name}, deflated", base.dialect, _frame)
        self._base = base
        self._deflater = deflater

    def _made(self, publication: Publication) -> bytes:
        payload = self.dialect.publication(publication)
        packed = self._deflater.deflate(payload)
        if packed is None:
            return self._base.of(publication)
        return encode_frame(TEXT if isinstance(payload, Text) else BINARY, packed, rsv1=True)


class Forms:
    """The deflated forms of one hub, each made once.

    Args:
        settings: How to compress.
    """

    def __init__(self, settings: DeflateSettings) -> None:
        self._settings = settings
        self._deflated: dict[tuple[Form, int], Form] = {}

    def frames(self, base: Form, params: DeflateParams | None) -> Form:
        """The form for a WebSocket of a Sojourn server.

        Args:
            base: ``PLAIN``, ``STAMPED`` or ``V1``.
            params: What was agreed on; None: no compression.

        Returns:
            ``base`` itself when each frame would have to be compressed for its connection alone: a frame that is not
            compressed is allowed at any time (RFC 7692 section 6), and is shared.
        """
        if params is None or params.server_takeover:
            return base
        # Nothing else of the parameters is seen in what this side sends: at most seven variants of each form.
        key = (base, params.server_max_window_bits)
        form = self._deflated.get(key)
        if form is None:
            form = self._deflated[key] = DeflatedForm(base, Deflater(params, self._settings))
        return form


def _frame(data: bytes) -> bytes:
    return encode_frame(TEXT if isinstance(data, Text) else BINARY, data)


def _as_it_is(data: bytes) -> bytes:
    return data


def _chunk(data: bytes) -> bytes:
    """A chunk (RFC 9112 section 7.1)."""
    return b"%x\r\n%b\r\n" % (len(data), data)


_PAYLOADS: Final = Payloads()
_STAMPED: Final = StampedPayloads()
_LINES: Final = Lines()
_EVENTS: Final = Events()
_LINE_EVENTS: Final = LineEvents()

#: Whole WebSocket frames.
PLAIN: Final = Form("plain", _PAYLOADS, _frame)
STAMPED: Final = Form("stamped", _STAMPED, _frame)
V1: Final = Form("sojourn.v1", _LINES, _frame)
#: For servers that frame messages by themselves: :meth:`Form.messages`.
PLAIN_MESSAGES: Final = Form("plain messages", _PAYLOADS, _as_it_is)
STAMPED_MESSAGES: Final = Form("stamped messages", _STAMPED, _as_it_is)
V1_MESSAGES: Final = Form("sojourn.v1 messages", _LINES, _as_it_is)
#: Server-sent events; as a body that somebody else frames, and as chunks.
EVENTS: Final = Form("events", _EVENTS, _as_it_is)
EVENT_CHUNKS: Final = Form("events in chunks", _EVENTS, _chunk)
LINE_EVENTS: Final = Form("sojourn.v1 events", _LINE_EVENTS, _as_it_is)
LINE_EVENT_CHUNKS: Final = Form("sojourn.v1 events in chunks", _LINE_EVENTS, _chunk)
