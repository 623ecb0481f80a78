"""A transport without a socket: two ends in one process, and nothing happens but what a test asks for.

It behaves like asyncio's socket transport: watermarks, half-close, flushing on close, resets noticed by whoever reads
or writes. What is different: the peer decides how many bytes "the network" takes, and nothing depends on time.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextvars import Context
from enum import Enum
from typing import Any, cast

__all__ = ["Ended", "MemoryPeer", "MemoryTransport"]


class Ended(Enum):
    """How the peer saw the connection end."""

    OPEN = "open"  # it has not
    FIN = "fin"  # after the last byte
    RESET = "reset"  # at once; what was not delivered is lost


class MemoryPeer:
    """The client's end: sends, and decides how much it takes.

    Everything it does reaches the server in the next turns of the loop, in the order it was done. Each :meth:`send` is
    one read of the server.

    Attributes:
        received: Bytes that have arrived, and were not taken out by the test.
        ended: How the server ended the connection; OPEN while it has not.
    """

    def __init__(self, transport: MemoryTransport) -> None:
        self._transport = transport
        self.received = bytearray()
        self.ended = Ended.OPEN
        #: Bytes it takes before it takes no more; None for all.
        self._room: int | None = None
        #: Whether it has closed its socket: what is written to it then is answered with a reset.
        self.closed = False

    def send(self, data: bytes) -> None:
        """Send bytes."""
        if self.closed:
            raise ConnectionError("this end is closed")
        self._transport.arrives(data)

    def send_eof(self) -> None:
        """Half-close: nothing more will be sent, but answers are still read."""
        self._transport.arrives(None)

    def close(self) -> None:
        """Close: what the server still writes is answered with a reset."""
        if not self.closed:
            self.closed = True
            self._room = None
            self._transport.arrives(None)

    def reset(self) -> None:
        """Reset: the server's next read or write fails."""
        self.closed = True
        self._transport.is_reset()

    def stop_taking(self) -> None:
        """Take no more bytes; they pile up at the server."""
        self._room = 0

    def take(self, size: int) -> None:
        """Take so many bytes more, and then stop."""
        self._room = (self._room or 0) + size
        self._transport.flushes()

    def take_all(self) -> None:
        """Take everything, now and later."""
        self._room = None
        self._transport.flushes()

    def takes(self, data: bytes) -> int:
        """Called by the transport: how many of these bytes arrive."""
        size = len(data) if self._room is None else min(self._room, len(data))
        if self._room is not None:
            self._room -= size
        if not self.closed:
            self.received += data[:size]
        return size


class MemoryTransport(asyncio.Transport):
    """The server's end.

    Args:
        loop: The loop whose turns carry the bytes.
        protocol: Who gets them.
        context: In which context the protocol is called; None for an empty one.
        half_close: Whether ``write_eof`` is possible; not so under TLS.
        extra: What ``get_extra_info`` knows.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        protocol: asyncio.Protocol,
        *,
        context: Context | None = None,
        half_close: bool = True,
        extra: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(extra)
        self.peer = MemoryPeer(self)
        self._loop = loop
        self._protocol = protocol
        self._context = context or Context()
        self._half_close = half_close
        self._high, self._low = 64 * 1024, 16 * 1024
        self._unsent = bytearray()
        self._arrived: deque[bytes | None] = deque()  # None is the end
        self._reading = True
        self._blocked = False
        self._eof = self._eof_sent = False
        self._closing = self._lost = self._peer_reset = False

    def open(self) -> None:
        """Call ``connection_made``."""
        self._context.run(self._protocol.connection_made, self)

    # What the protocol calls

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = cast(asyncio.Protocol, protocol)

    def is_closing(self) -> bool:
        return self._closing

    def is_reading(self) -> bool:
        return self._reading and not self._closing

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        if not self._reading and not self._closing:
            self._reading = True
            self._soon(self._read)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._high = 64 * 1024 if high is None else high
        self._low = self._high // 4 if low is None else low

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._low, self._high

    def get_write_buffer_size(self) -> int:
        return len(self._unsent)

    def can_write_eof(self) -> bool:
        return self._half_close

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._eof:
            raise RuntimeError("write() after write_eof()")
        if self._lost or not data:
            return
        if self.peer.closed:
            self._soon(self.is_reset)  # whoever has closed its socket answers with a reset
            return
        self._unsent += data
        self._send()
        if len(self._unsent) > self._high and not self._blocked:
            self._blocked = True
            self._protocol.pause_writing()

    def write_eof(self) -> None:
        if not self._eof and not self._closing:
            self._eof = True
            self._send()

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self._send()

    def abort(self) -> None:
        if not self._lost:
            self._unsent.clear()
            self._lose(None, Ended.RESET)

    # What the peer does

    def arrives(self, data: bytes | None) -> None:
        """Bytes, or the end, come from the peer."""
        self._arrived.append(data)
        self._soon(self._read)

    def is_reset(self) -> None:
        """The peer reset the connection; whoever reads or writes notices."""
        self._peer_reset = True
        self._arrived.clear()
        if self._reading or self._unsent:
            self._soon(self._read)

    def flushes(self) -> None:
        """The peer takes bytes again."""
        self._soon(self._send)

    # The machinery

    def _soon(self, step: Callable[[], None]) -> None:
        self._loop.call_soon(step, context=self._context)

    def _read(self) -> None:
        """One read: what one ``send`` of the peer brought."""
        if self._lost:
            return
        if self._peer_reset and (self._reading or self._unsent):
            self._unsent.clear()
            self._lose(ConnectionResetError(104, "Connection reset by peer"), Ended.RESET)
            return
        if not self._reading or self._closing or not self._arrived:
            return
        data = self._arrived.popleft()
        try:
            if data is not None:
                self._protocol.data_received(data)
            elif not self._protocol.eof_received():
                self.close()
        except Exception as error:  # noqa: BLE001 - asyncio's transports do the same with a protocol's bug
            self._loop.call_exception_handler({"message": "the protocol raised", "exception": error, "transport": self})
            self._unsent.clear()
            self._lose(error, Ended.RESET)
        if self._arrived:
            self._soon(self._read)

    def _send(self) -> None:
        if self._lost:
            return
        if self._unsent:
            del self._unsent[: self.peer.takes(bytes(self._unsent))]
        if self._blocked and len(self._unsent) <= self._low:
            self._blocked = False
            self._protocol.resume_writing()
        if self._unsent:
            return
        if self._closing:
            self._lose(None, Ended.FIN)
        elif self._eof and not self._eof_sent:
            self._eof_sent = True
            self.peer.ended = Ended.FIN

    def _lose(self, error: Exception | None, ended: Ended) -> None:
        self._closing = self._lost = True
        if self.peer.ended is Ended.OPEN or ended is Ended.RESET:
            self.peer.ended = ended
        self._soon(lambda: self._protocol.connection_lost(error))
