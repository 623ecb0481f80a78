"""What a WebSocket client sends, and a sink that writes down what a parser delivers."""

from __future__ import annotations

from collections.abc import Iterable

from sojourn.errors import WebSocketError
from sojourn.wire.deflate import DeflateParams, Inflater
from sojourn.wire.websocket import FrameParser, frame_header
from sojourn.wire.websocket_frames import mask_in_python

MASK = b"\x37\xfa\x21\x3d"
MIB = 1 << 20

NO_TAKEOVER = DeflateParams(
    server_takeover=False, client_takeover=False, server_max_window_bits=12, client_max_window_bits=15
)
TAKEOVER = DeflateParams(
    server_takeover=True, client_takeover=True, server_max_window_bits=12, client_max_window_bits=15
)


def client_frame(
    opcode: int, payload: bytes = b"", *, fin: bool = True, rsv1: bool = False, mask: bytes = MASK
) -> bytes:
    """One masked frame."""
    header = bytearray(frame_header(opcode, len(payload), rsv1, fin))
    header[1] |= 0x80
    return bytes(header) + mask + mask_in_python(payload, mask)


class Recorder:
    """A sink that keeps its calls, and pauses its parser after the messages it was told to."""

    def __init__(self, pause_after: Iterable[int] = ()) -> None:
        self.calls: list[tuple[object, ...]] = []
        self.pause_after = set(pause_after)
        self.parser: FrameParser | None = None

    def _record(self, *call: object) -> None:
        self.calls.append(call)
        if self.parser is not None and len(self.calls) in self.pause_after:
            self.parser.paused = True

    def message_received(self, data: str | bytes) -> None:
        self._record("message", data)

    def ping_received(self, payload: bytes) -> None:
        self._record("ping", payload)

    def pong_received(self, payload: bytes) -> None:
        self._record("pong", payload)

    def close_received(self, code: int, reason: str) -> None:
        self._record("close", code, reason)


def new_parser(
    sink: Recorder | None = None,
    *,
    max_message: int | None = MIB,
    ratio: int | None = 25,
    deflate: DeflateParams | None = None,
) -> tuple[FrameParser, Recorder]:
    sink = sink or Recorder()
    inflater = Inflater(deflate) if deflate is not None else None
    parser = FrameParser(sink, max_message=max_message, max_inflate_ratio=ratio, deflate=inflater)
    sink.parser = parser
    return parser, sink


def chunks(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


def feed_all(parser: FrameParser, reads: Iterable[bytes]) -> int | None:
    """Feed every read, also after a violation; the close code of the violation, or None."""
    code = None
    for read in reads:
        try:
            parser.feed(read)
        except WebSocketError as error:
            assert code is None, "a second violation after the first ended the connection"
            code = error.code
    return code
