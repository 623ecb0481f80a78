"""A WebSocket message of which only a part has arrived (RFC 6455 section 5.4)."""

from __future__ import annotations

import zlib
from codecs import utf_8_decode

from sojourn.errors import WebSocketError
from sojourn.wire.deflate import Inflater
from sojourn.wire.websocket_frames import apply_mask

__all__ = ["PartialMessage"]


class PartialMessage:
    """Collects the pieces of one message: unmasks, inflates and checks each as it comes.

    Pieces are appended to one bytearray, so the cost of a message grows with its bytes and not with the number of reads
    they come in. Nothing is reserved for bytes that were only declared.

    Args:
        text: Whether the message is text.
        stream: Inflates the payload; None when the message is not compressed.
    """

    __slots__ = ("_budget", "_fin", "_mask", "_stream", "_tail", "data", "declared", "need", "text")

    def __init__(self, text: bool, stream: zlib._Decompress | None) -> None:
        self.text = text
        self.data = bytearray()
        #: Payload bytes of all frames so far, as their headers declare them.
        self.declared = 0
        #: Payload bytes of the open frame that are still to come; 0 between two frames.
        self.need = 0
        self._stream = stream
        self._budget = 0
        self._mask = b""
        self._fin = False
        # The start of a UTF-8 sequence at the end of data, at most 3 bytes.
        self._tail = b""

    @property
    def compressed(self) -> bool:
        """Whether the message began with RSV1 set."""
        return self._stream is not None

    def open_frame(self, length: int, mask: bytes, fin: bool, budget: int) -> None:
        """Begin the next frame of the message.

        Args:
            length: Its payload bytes.
            mask: Its masking key.
            fin: Whether it is the last.
            budget: Bytes the message may inflate to by its end; the caller has checked ``length`` itself.
        """
        self.declared += length
        self.need = length
        self._mask = mask
        self._fin = fin
        self._budget = budget

    def take(self, masked: bytes | bytearray) -> bool:
        """Add a piece of the open frame, no longer than ``need``.

        Returns:
            True when the message is complete.

        Raises:
            WebSocketError: 1007 text that is not UTF-8, in the piece where it shows (RFC 6455 section 8.1), or corrupt
                compressed data; 1009 inflation above the budget.
        """
        piece = apply_mask(masked, self._mask)
        size = len(piece)
        self.need -= size
        last = self._fin and not self.need
        turn = size & 3
        if turn:
            self._mask = self._mask[turn:] + self._mask[:turn]
        if self._stream is not None:
            piece = Inflater.inflate(self._stream, piece, self._budget - len(self.data), last)
        if self.text and (self._tail or not piece.isascii()):
            text = self._tail + piece
            try:
                self._tail = text[utf_8_decode(text, "strict", last)[1] :]
            except UnicodeDecodeError:
                raise WebSocketError(1007, "text is not UTF-8") from None
            # The start of a surrogate is the one thing the decoder does not refuse before its last byte.
            if b"\xed\xa0" <= self._tail < b"\xee":
                raise WebSocketError(1007, "text is not UTF-8")
        self.data += piece
        return last

    def value(self) -> str | bytes:
        """The complete message."""
        return self.data.decode() if self.text else bytes(self.data)
