"""WebSocket frames out: opcodes, close codes, masking and the encoders of a server (RFC 6455 section 5).

A server sends unmasked frames, so encoding is a short header in front of the payload. Headers of small messages come
from tables. For a large payload take ``frame_header()`` and write header and payload apart: nothing is copied.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from sojourn.errors import ApplicationError

__all__ = [
    "BINARY",
    "CLOSE",
    "CONTINUATION",
    "NO_STATUS",
    "PING",
    "PONG",
    "TEXT",
    "Buffer",
    "apply_mask",
    "encode_binary",
    "encode_close",
    "encode_frame",
    "encode_ping",
    "encode_pong",
    "encode_text",
    "frame_header",
    "is_close_code",
    "mask_in_python",
]

Buffer = bytes | bytearray | memoryview

# Opcodes (RFC 6455 section 5.2).
CONTINUATION, TEXT, BINARY = 0, 1, 2
CLOSE, PING, PONG = 8, 9, 10

#: What ``close_received`` reports for a close frame without a code (RFC 6455 section 7.1.5).
NO_STATUS = 1005

#: A control frame carries at most this much (RFC 6455 section 5.5).
MAX_CONTROL_PAYLOAD = 125

_FIN, _RSV1 = 0x80, 0x40
# The longest payloads of the 7 bit and the 16 bit length form.
_MAX_7BIT, _MAX_16BIT = 125, 0xFFFF
_TEXT_HEADERS = tuple(bytes((_FIN | TEXT, length)) for length in range(_MAX_7BIT + 1))
_BINARY_HEADERS = tuple(bytes((_FIN | BINARY, length)) for length in range(_MAX_7BIT + 1))
# First byte and the marks 126 and 127, in front of a length written as one integer of 4 or 10 bytes.
_TEXT_16, _TEXT_64 = 0x817E_0000, 0x817F << 64
_BINARY_16, _BINARY_64 = 0x827E_0000, 0x827F << 64

# 1004, 1005, 1006 and 1015 never travel; 1012 to 1014 were registered with IANA after the RFC; 3000 and up is for
# libraries and applications (RFC 6455 section 7.4).
_CLOSE_CODES = frozenset({1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014})


def mask_in_python(data: Buffer, mask: bytes | bytearray) -> bytes:
    """XOR ``data`` with the repeated 4 bytes of ``mask``, without the C extension (RFC 6455 section 5.3)."""
    size = len(data)
    key = bytes(mask)
    repeated = key * (size >> 2) + key[: size & 3]
    order = sys.byteorder
    return (int.from_bytes(data, order) ^ int.from_bytes(repeated, order)).to_bytes(size, order)


try:
    from websockets.speedups import apply_mask as _mask_in_c
except ImportError:  # a platform without the C extension
    apply_mask: Callable[[Buffer, bytes | bytearray], bytes] = mask_in_python
else:
    apply_mask = _mask_in_c


def is_close_code(code: int) -> bool:
    """Whether ``code`` may stand in a close frame (RFC 6455 section 7.4)."""
    return code in _CLOSE_CODES or 3000 <= code <= 4999


def frame_header(opcode: int, length: int, rsv1: bool = False, fin: bool = True) -> bytes:
    """The header of a frame, 2 to 10 bytes, for a caller that writes the payload apart.

    Args:
        opcode: ``TEXT``, ``BINARY``, ``CONTINUATION`` or a control opcode.
        length: Payload bytes.
        rsv1: True on the first frame of a message compressed with permessage-deflate.
        fin: True on the last frame of a message.

    Source: RFC 6455 section 5.2.
    """
    first = opcode | (_FIN if fin else 0) | (_RSV1 if rsv1 else 0)
    if length <= _MAX_7BIT:
        return bytes((first, length))
    if length <= _MAX_16BIT:
        return (first << 24 | 0x7E_0000 | length).to_bytes(4, "big")
    return ((first << 8 | 0x7F) << 64 | length).to_bytes(10, "big")


def encode_text(text: str) -> bytes:
    """A whole text message as one frame.

    Raises:
        UnicodeEncodeError: ``text`` holds a lone surrogate, which UTF-8 can't carry.
    """
    payload = text.encode()
    size = len(payload)
    if size <= 125:
        return _TEXT_HEADERS[size] + payload
    if size <= 65535:
        return (_TEXT_16 | size).to_bytes(4, "big") + payload
    return (_TEXT_64 | size).to_bytes(10, "big") + payload


def encode_binary(payload: bytes) -> bytes:
    """A whole binary message as one frame."""
    size = len(payload)
    if size <= 125:
        return _BINARY_HEADERS[size] + payload
    if size <= 65535:
        return (_BINARY_16 | size).to_bytes(4, "big") + payload
    return (_BINARY_64 | size).to_bytes(10, "big") + payload


def encode_frame(opcode: int, payload: bytes, fin: bool = True, rsv1: bool = False) -> bytes:
    """Any one frame: a fragment, a compressed message (``rsv1=True``), a control frame."""
    return frame_header(opcode, len(payload), rsv1, fin) + payload


def encode_close(code: int = NO_STATUS, reason: str = "") -> bytes:
    """A close frame.

    Args:
        code: Close code; 1005 sends a frame without one, the answer to a close frame that had none.
        reason: For people; cut to 123 bytes of UTF-8 without splitting a character. Ignored with 1005.

    Raises:
        ApplicationError: ``code`` may not be sent (RFC 6455 section 7.4).

    Source: RFC 6455 section 5.5.1.
    """
    if code == NO_STATUS:
        return b"\x88\x00"
    if not is_close_code(code):
        raise ApplicationError(
            f"close code {code} may not be sent; use 1000 to 1014 without 1004 to 1006, or 3000 to 4999"
        )
    text = reason.encode("utf-8", "replace")
    if len(text) > MAX_CONTROL_PAYLOAD - 2:
        text = text[: MAX_CONTROL_PAYLOAD - 2].decode("utf-8", "ignore").encode()
    return encode_frame(CLOSE, code.to_bytes(2, "big") + text)


def encode_ping(payload: bytes = b"") -> bytes:
    """A ping frame.

    Raises:
        ApplicationError: The payload is longer than 125 bytes (RFC 6455 section 5.5).
    """
    return _encode_control(PING, payload)


def encode_pong(payload: bytes = b"") -> bytes:
    """A pong frame: the payload of the ping it answers, or an unsolicited one.

    Raises:
        ApplicationError: The payload is longer than 125 bytes (RFC 6455 section 5.5).
    """
    return _encode_control(PONG, payload)


def _encode_control(opcode: int, payload: bytes) -> bytes:
    if len(payload) > MAX_CONTROL_PAYLOAD:
        raise ApplicationError(f"a control frame carries at most {MAX_CONTROL_PAYLOAD} bytes, not {len(payload)}")
    return encode_frame(opcode, payload)
