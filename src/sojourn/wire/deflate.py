"""permessage-deflate: agree on it, inflate within a budget, deflate what is worth it (RFC 7692).

By default neither side keeps its context from one message to the next. An idle connection then owns no zlib object, a
worker needs one ``Inflater`` and one ``Deflater`` for all its connections with the same parameters, and a compressed
frame can be sent to many clients. zlib objects are made per message (0.4 us to deflate, 0.1 us to inflate). They are
never shared between connections: a forged back-reference would read what another client sent.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from sojourn.errors import ConfigError, WebSocketError

__all__ = ["RATIO_FLOOR", "DeflateParams", "DeflateSettings", "Deflater", "ExtensionOffer", "Inflater", "negotiate"]

#: One extension a client offers: its name and its parameters in order, each with its value or None.
ExtensionOffer = tuple[str, tuple[tuple[str, str | None], ...]]

#: A message that inflates to no more than this many bytes is taken whatever its ratio: it can do no harm.
RATIO_FLOOR: Final = 64 * 1024

_NAME = "permessage-deflate"
# Ends every flush; the sender removes it, the receiver puts it back (RFC 7692 sections 7.2.1 and 7.2.2).
_TAIL = b"\x00\x00\xff\xff"
# What may follow a block with BFINAL set: an empty block and the tail (RFC 7692 section 7.2.3.4).
_AFTER_FINAL = b"\x00" + _TAIL
_BITS = {str(bits): bits for bits in range(8, 16)}


@dataclass(frozen=True, slots=True, kw_only=True)
class DeflateSettings:
    """What this server wants of permessage-deflate.

    Args:
        server_takeover: Keep the compressor between messages of a connection: smaller frames, about 32 KiB each.
        client_takeover: Let clients keep theirs: a decompressor per connection, 7 KiB and its window.
        server_max_window_bits: Window of our compressor, 9 to 15; a client may ask for less.
        client_max_window_bits: Largest window of clients that can limit it, 8 to 15; only matters for memory with
            ``client_takeover``, and a small one costs the client compression.
        level: zlib level, 0 to 9.
        mem_level: zlib memLevel, 1 to 9. 5 with 12 bits clears 8 KiB per message where 8 with 15 bits clears 64.
        threshold: Shorter messages, in bytes, are not compressed. 512 as ``config.websocket``: without context a
            shorter one shrinks by a fifth inside the one packet it needs anyway, and costs 5 us.

    Raises:
        ConfigError: A number that zlib does not take.
    """

    server_takeover: bool = False
    client_takeover: bool = False
    server_max_window_bits: int = 12
    client_max_window_bits: int = 15
    level: int = 6
    mem_level: int = 5
    threshold: int = 512

    def __post_init__(self) -> None:
        ranges = {
            "server_max_window_bits": (9, 15),
            "client_max_window_bits": (8, 15),
            "level": (0, 9),
            "mem_level": (1, 9),
        }
        for name, (least, most) in ranges.items():
            value = getattr(self, name)
            if not least <= value <= most:
                raise ConfigError(f"deflate {name} must be {least} to {most}, not {value}")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeflateParams:
    """What both sides agreed on; hashable, so it can key shared codecs and prepared frames."""

    server_takeover: bool
    client_takeover: bool
    server_max_window_bits: int
    client_max_window_bits: int

    def header(self) -> bytes:
        """The value of ``Sec-WebSocket-Extensions`` in the answer (RFC 7692 section 7.1)."""
        parts = [_NAME]
        if not self.server_takeover:
            parts.append("server_no_context_takeover")
        if not self.client_takeover:
            parts.append("client_no_context_takeover")
        # Required when the client named it, allowed when not (section 7.1.2.1).
        parts.append(f"server_max_window_bits={self.server_max_window_bits}")
        if self.client_max_window_bits < 15:
            parts.append(f"client_max_window_bits={self.client_max_window_bits}")
        return "; ".join(parts).encode()


def negotiate(offers: Iterable[ExtensionOffer], settings: DeflateSettings) -> DeflateParams | None:
    """Take the first offer of permessage-deflate that can be met; an offer with a bad parameter is declined.

    Args:
        offers: The client's offers in its order of preference, as ``Handshake.extensions`` holds them.
        settings: What this server wants.

    Returns:
        The agreed parameters, or None: the connection goes without compression.

    Source: RFC 7692 sections 5.1, 7 and 7.1.
    """
    for name, params in offers:
        if name == _NAME:
            agreed = _accept(params, settings)
            if agreed is not None:
                return agreed
    return None


def _accept(params: tuple[tuple[str, str | None], ...], settings: DeflateSettings) -> DeflateParams | None:
    asked = dict(params)
    if len(asked) != len(params):  # a parameter twice (section 7.1)
        return None
    server_bits, client_bits = settings.server_max_window_bits, 15
    for name, value in params:
        if name in ("server_no_context_takeover", "client_no_context_takeover"):
            if value is not None:
                return None
        elif name == "server_max_window_bits":
            # Needs a value (section 7.1.2.1). zlib has no raw compressor with a window of 8 bits.
            if value not in _BITS or value == "8":
                return None
            server_bits = min(server_bits, _BITS[value])
        elif name == "client_max_window_bits":
            # The value is optional, and only a client that names the parameter can be limited (section 7.1.2.2).
            if value is not None and value not in _BITS:
                return None
            client_bits = min(settings.client_max_window_bits, 15 if value is None else _BITS[value])
        else:
            return None
    return DeflateParams(
        server_takeover=settings.server_takeover and "server_no_context_takeover" not in asked,
        # A hint of the client, or our wish: either way it becomes binding by our answer (section 7.1.1.2).
        client_takeover=settings.client_takeover and "client_no_context_takeover" not in asked,
        server_max_window_bits=server_bits,
        client_max_window_bits=client_bits,
    )


class Inflater:
    """Turns compressed messages of one connection back; without takeover it holds nothing and may serve many.

    Args:
        params: What was agreed.
    """

    __slots__ = ("_bits", "_context", "_takeover")

    def __init__(self, params: DeflateParams) -> None:
        self._bits = -params.client_max_window_bits
        self._takeover = params.client_takeover
        self._context: zlib._Decompress | None = None

    def begin(self) -> zlib._Decompress:
        """The stream for the next message; pass it to ``inflate`` with each piece of that message."""
        if not self._takeover:
            return zlib.decompressobj(self._bits)
        if self._context is None or self._context.eof:
            self._context = zlib.decompressobj(self._bits)
        return self._context

    @staticmethod
    def inflate(stream: zlib._Decompress, piece: bytes, room: int, last: bool) -> bytes:
        """Inflate one piece of a message.

        Args:
            stream: From ``begin``.
            piece: The next compressed bytes.
            room: Bytes the message may still grow by; no more than one above is ever inflated.
            last: Whether the piece ends the message.

        Raises:
            WebSocketError: 1009 when there is more than ``room``, 1007 when the bytes are not a DEFLATE stream.

        Source: RFC 7692 section 7.2.2.
        """
        try:
            data = stream.decompress(piece + _TAIL if last else piece, room + 1)
        except zlib.error:
            raise WebSocketError(1007, "compressed data is corrupt") from None
        if len(data) > room:
            raise WebSocketError(1009, "message inflates to more than is allowed")
        if stream.eof:
            # A final block ends the message. Going on after it would mean a stream per block for 2 bytes each.
            rest = stream.unused_data
            if not (_AFTER_FINAL.startswith(rest) or rest == _TAIL):
                raise WebSocketError(1007, "compressed data goes on after its final block")
        return data


class Deflater:
    """Compresses messages for one connection; without takeover it holds nothing and may serve many.

    Args:
        params: What was agreed.
        settings: Level, memory and threshold.
    """

    __slots__ = ("_context", "_params", "_settings")

    def __init__(self, params: DeflateParams, settings: DeflateSettings) -> None:
        self._params = params
        self._settings = settings
        self._context: zlib._Compress | None = None

    @property
    def params(self) -> DeflateParams:
        """What was agreed."""
        return self._params

    @property
    def takeover(self) -> bool:
        """Whether each message needs those before it: once compressed, a message must be sent."""
        return self._params.server_takeover

    def deflate(self, payload: bytes) -> bytes | None:
        """Compress a whole message.

        Returns:
            The payload of a frame with RSV1 set, or None: send the message as it is, because it is short or does not
            shrink.

        Source: RFC 7692 section 7.2.1.
        """
        settings = self._settings
        if len(payload) < settings.threshold:
            return None
        stream = self._context
        if stream is None:
            stream = zlib.compressobj(
                settings.level, zlib.DEFLATED, -self._params.server_max_window_bits, settings.mem_level
            )
            if self._params.server_takeover:
                self._context = stream
        data = (stream.compress(payload) + stream.flush(zlib.Z_SYNC_FLUSH))[: -len(_TAIL)]
        # With takeover the message is in the window now and the peer must see it, shrunk or not.
        if len(data) >= len(payload) and self._context is None:
            return None
        return data
