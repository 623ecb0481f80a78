"""WebSocket frames in: bytes of one connection become messages, without I/O (RFC 6455 section 5, RFC 7692 section 6).

``FrameParser`` has three paths, because echo speed is decided here: one whole message that fills the read; several
small ones in one read; anything else. What can't be finished stays as an incomplete header or as one
``PartialMessage``, so an idle parser holds no buffer at all. The encoders of ``websocket_frames`` belong to this
module's interface.
"""

from __future__ import annotations

from typing import Protocol

from sojourn.errors import WebSocketError
from sojourn.wire.deflate import RATIO_FLOOR, Inflater
from sojourn.wire.websocket_frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    NO_STATUS,
    PING,
    PONG,
    TEXT,
    apply_mask,
    encode_binary,
    encode_close,
    encode_frame,
    encode_ping,
    encode_pong,
    encode_text,
    frame_header,
    is_close_code,
)
from sojourn.wire.websocket_message import PartialMessage

__all__ = [
    "BINARY",
    "CLOSE",
    "CONTINUATION",
    "NO_STATUS",
    "PING",
    "PONG",
    "TEXT",
    "FrameParser",
    "FrameSink",
    "encode_binary",
    "encode_close",
    "encode_frame",
    "encode_ping",
    "encode_pong",
    "encode_text",
    "frame_header",
]

# No limit, and still an int that zlib takes as a size.
_UNLIMITED = 1 << 62

_FIN, _RSV1, _RSV2_RSV3, _OPCODE, _MASKED, _LENGTH = 0x80, 0x40, 0x30, 0x0F, 0x80, 0x7F


class FrameSink(Protocol):
    """Where a parser delivers. It must not call ``feed`` from inside a call; it may set ``parser.paused``."""

    def message_received(self, data: str | bytes) -> None:
        """A whole message: str for text, bytes for binary."""

    def ping_received(self, payload: bytes) -> None:
        """A ping; a pong with the same payload is due (RFC 6455 section 5.5.2)."""

    def pong_received(self, payload: bytes) -> None:
        """A pong, asked for or not."""

    def close_received(self, code: int, reason: str) -> None:
        """A close frame, the last call; ``code`` is 1005 when the frame had none."""


class FrameParser:
    """Reads the frames of one client; delivers whole messages and control frames to its sink, in order.

    Args:
        sink: Called straight from ``feed`` and ``resume``.
        max_message: Longest message in bytes, after inflation; None means no limit.
        max_inflate_ratio: Largest ratio of inflated to compressed bytes of a message above ``RATIO_FLOOR`` (64 KiB);
            None means no limit. The compressed bytes are those that frame headers declare, so how TCP cuts the bytes
            never decides.
        deflate: Inflates messages with RSV1 set; None when permessage-deflate was not agreed on.

    A sink sets ``paused = True`` in a call to get no more calls: what has arrived waits for ``resume``, in order, with
    pings, pongs and close frames behind the data they came after. The caller stops reading meanwhile, so about one read
    is kept, and it must not hold a missing pong against a client whose bytes it does not read. Queues of messages stay
    bounded in this way even when one read holds thousands.

    After a close frame or a ``WebSocketError`` all bytes are ignored. Any other exception of the sink passes through;
    the parser is of no use then.

    Memory of a partly received message stays below nine eighths of ``max_message`` (a bytearray grows in steps) plus
    one read: a frame that declares more is refused at its header, nothing is reserved in advance, and inflation stops
    one byte above its budget.
    """

    __slots__ = (
        "_between",
        "_buffer",
        "_closed",
        "_deflate",
        "_limit",
        "_medium",
        "_message",
        "_offset",
        "_ratio",
        "_small",
        "paused",
        "sink",
    )

    def __init__(
        self, sink: FrameSink, *, max_message: int | None, max_inflate_ratio: int | None, deflate: Inflater | None
    ) -> None:
        self.sink = sink
        self.paused = False
        self._limit = _UNLIMITED if max_message is None else max_message
        self._ratio = max_inflate_ratio
        self._deflate = deflate
        # Second byte of the longest frame with a length of 7 bits, size of the longest with one of 16 bits.
        self._small = _MASKED + min(125, self._limit)
        self._medium = 8 + min(0xFFFF, self._limit)
        self._message: PartialMessage | None = None
        # Bytes that wait from _offset on: an incomplete header or control frame, or all that came while paused.
        self._buffer: bytes | bytearray | None = None
        self._offset = 0
        self._closed = False
        # True when nothing is open, buffered or closed: the next byte begins a message or a control frame.
        self._between = True

    @property
    def buffered(self) -> int:
        """Bytes held: those that wait, and those of the open message."""
        waiting = 0 if self._buffer is None else len(self._buffer) - self._offset
        return waiting + (0 if self._message is None else len(self._message.data))

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the connection.

        Args:
            data: What one read returned.

        Raises:
            WebSocketError: 1002, 1007 or 1009; close the connection with this code. What was complete before the
                violation has been delivered.
        """
        size = len(data)
        if size > 5 and self._between and not self.paused:
            first, second = data[0], data[1]
            # A masked frame of n <= 125 bytes has n + 128 as its second byte and is n + 6 bytes long.
            if size == second - 122 and second <= self._small:
                payload = apply_mask(data[6:], data[2:6])
            elif second == 254 and 134 <= size <= self._medium and size - 8 == data[2] << 8 | data[3]:
                payload = apply_mask(data[8:], data[4:8])
            else:
                self._parse(data, 0)
                return
            if first == 0x81:  # FIN, text
                try:
                    text = payload.decode()
                except UnicodeDecodeError:
                    self._end()
                    raise WebSocketError(1007, "text is not UTF-8") from None
                self.sink.message_received(text)
            elif first == 0x82:  # FIN, binary
                self.sink.message_received(payload)
            elif first == 0x8A and size < 132:  # FIN, pong; what an idle client sends
                self.sink.pong_received(payload)
            else:
                self._parse(data, 0)
        elif not self._closed:
            self._feed(data)

    def resume(self) -> None:
        """Deliver again after ``paused`` was set, beginning with what has arrived meanwhile.

        The sink may pause again at each message. Harmless when not paused, and inside a call of the sink.

        Raises:
            WebSocketError: As ``feed``.
        """
        self.paused = False
        data = self._buffer
        if data is not None:
            self._buffer = None
            self._parse(data, self._offset)

    def _feed(self, data: bytes) -> None:
        buffer = self._buffer
        if not self.paused:
            self._buffer = None
            # What waits is an incomplete header or control frame, below 131 bytes.
            self._parse(data if buffer is None else buffer[self._offset :] + data, 0)
        elif buffer is None:
            self._buffer, self._offset, self._between = data, 0, False
        else:
            if not isinstance(buffer, bytearray):
                self._buffer = buffer = bytearray(buffer)
            del buffer[: self._offset]
            buffer += data
            self._offset = 0

    def _parse(self, data: bytes | bytearray, pos: int) -> None:
        """Deliver what is complete in ``data`` from ``pos`` on; keep the rest."""
        try:
            pos = self._deliver(data, pos, len(data))
        except WebSocketError:
            self._end()
            raise
        if self._closed:
            return
        end = len(data)
        if pos < end:
            # Cutting the rest off at every pause would be quadratic in a read of many messages; a cut that copies less
            # than was consumed since the last one is not, and keeps no more than twice the rest.
            if self.paused and 2 * pos < end:
                self._buffer, self._offset = data, pos
            else:
                self._buffer, self._offset = bytes(data[pos:]), 0
        self._between = pos >= end and self._message is None

    def _deliver(self, data: bytes | bytearray, pos: int, end: int) -> int:
        """Take frames until one is incomplete, the sink pauses or the peer closes; return where the rest begins."""
        small = self._small
        if self._message is not None and self._message.need:
            pos = self._payload(self._message, data, pos, end)
        while end - pos > 1 and not self.paused:
            first, second = data[pos], data[pos + 1]
            stop = pos + second - 122
            if (first == 0x81 or first == 0x82) and 128 <= second <= small and stop <= end and self._message is None:
                payload = apply_mask(data[pos + 6 : stop], data[pos + 2 : pos + 6])
                pos = stop
                if first == 0x82:
                    self.sink.message_received(payload)
                    continue
                try:
                    text = payload.decode()
                except UnicodeDecodeError:
                    raise WebSocketError(1007, "text is not UTF-8") from None
                self.sink.message_received(text)
                continue
            after = self._frame(data, pos, end)
            if after < 0 or self._closed:
                return pos
            pos = after
        return pos

    def _frame(self, data: bytes | bytearray, pos: int, end: int) -> int:
        """Check and take one frame, or as much of a data frame as is there.

        Returns:
            Where the next frame begins, or ``end``; -1 when the header or the control frame is incomplete.
        """
        first, second = data[pos], data[pos + 1]
        opcode, length = first & _OPCODE, second & _LENGTH
        message = self._message
        # Section 5.2; RSV1 marks the first frame of a compressed message (RFC 7692 section 6).
        if first & _RSV2_RSV3 or (first & _RSV1 and (self._deflate is None or opcode not in (TEXT, BINARY))):
            raise WebSocketError(1002, "reserved bit is set")
        if second < _MASKED:  # section 5.1
            raise WebSocketError(1002, "frame is not masked")
        if opcode >= CLOSE:
            return self._control(data, pos, end)
        if opcode > BINARY:  # section 5.2
            raise WebSocketError(1002, "opcode is reserved")
        if opcode == CONTINUATION and message is None:  # section 5.4
            raise WebSocketError(1002, "continuation without a message")
        if opcode != CONTINUATION and message is not None:
            raise WebSocketError(1002, "message inside a message")
        start = pos + 6
        if length > 125:
            width, least = (2, 126) if length == 126 else (8, 0x10000)
            start += width
            if start - 4 > end:
                return -1
            length = int.from_bytes(data[pos + 2 : start - 4], "big")
            if length < least or length >> 63:  # section 5.2
                raise WebSocketError(1002, "length is not minimal, or its top bit is set")
        compressed = first & _RSV1 != 0 if message is None else message.compressed
        declared = length if message is None else message.declared + length
        # What does not compress grows in DEFLATE, by less than a quarter even with the least memory (zlib's bound).
        if declared > self._limit + ((self._limit >> 2) + 64 if compressed else 0):
            raise WebSocketError(1009, "message is larger than is allowed")
        if start > end:
            return -1
        budget = self._limit
        if self._ratio is not None:
            budget = min(budget, max(RATIO_FLOOR, self._ratio * declared))
        stop, mask, fin = start + length, bytes(data[start - 4 : start]), first & _FIN != 0
        stream = self._deflate.begin() if message is None and compressed and self._deflate is not None else None
        if message is None and fin and stop <= end:
            payload = apply_mask(data[start:stop], mask)
            if stream is not None:
                payload = Inflater.inflate(stream, payload, budget, last=True)
            try:
                value = payload.decode() if opcode == TEXT else payload
            except UnicodeDecodeError:
                raise WebSocketError(1007, "text is not UTF-8") from None
            self.sink.message_received(value)
            return stop
        if message is None:
            message = self._message = PartialMessage(opcode == TEXT, stream)
        message.open_frame(length, mask, fin, budget)
        return self._payload(message, data, start, end)

    def _payload(self, message: PartialMessage, data: bytes | bytearray, pos: int, end: int) -> int:
        """Take the piece of the open frame between ``pos`` and ``end``; deliver the message if it ends there."""
        stop = min(pos + message.need, end)
        if message.take(data[pos:stop]):
            self._message = None
            self.sink.message_received(message.value())
        return stop

    def _control(self, data: bytes | bytearray, pos: int, end: int) -> int:
        """Take one whole control frame (section 5.5); returns as ``_frame``."""
        opcode, length = data[pos] & _OPCODE, data[pos + 1] & _LENGTH
        if opcode > PONG:
            raise WebSocketError(1002, "opcode is reserved")
        if not data[pos] & _FIN:
            raise WebSocketError(1002, "control frame is fragmented")
        if length > 125:
            raise WebSocketError(1002, "control frame is longer than 125 bytes")
        stop = pos + 6 + length
        if stop > end:
            return -1
        payload = apply_mask(data[pos + 6 : stop], data[pos + 2 : pos + 6])
        if opcode == PING:
            self.sink.ping_received(payload)
        elif opcode == PONG:
            self.sink.pong_received(payload)
        else:
            self._close(payload)
        return stop

    def _close(self, payload: bytes) -> None:
        code, reason = NO_STATUS, ""
        if payload:
            code = int.from_bytes(payload[:2], "big")
            if not is_close_code(code):  # sections 5.5.1 and 7.4; a single byte is no code either
                raise WebSocketError(1002, "close frame without a valid code")
            try:
                reason = payload[2:].decode()
            except UnicodeDecodeError:
                raise WebSocketError(1007, "close reason is not UTF-8") from None
        self._end()
        self.sink.close_received(code, reason)

    def _end(self) -> None:
        self._closed = True
        self._between = False
        self._message = None
        self._buffer = None
