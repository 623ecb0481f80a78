"""Bytes for a peer that is behind.

A connection has an outbox only while its peer is behind: then senders wait here, messages of a WebSocket queue here,
and the peer's progress is measured, so that one which stands still or crawls is ended.
"""

from __future__ import annotations

import asyncio
import fcntl
import socket
import struct
import sys
import termios
from collections import deque
from typing import Any, Final, NamedTuple

from sojourn.policy.deadlines import Progress

__all__ = ["Outbox", "Queued", "acknowledged", "reset_on_close", "unacknowledged"]

#: Where ``tcpi_bytes_acked`` stands in ``struct tcp_info`` (linux/tcp.h, since 4.1).
_BYTES_ACKED: Final = 120
_TCP_INFO: Final = getattr(socket, "TCP_INFO", None)


class Queued(NamedTuple):
    """A message that waits for its turn."""

    data: bytes
    written: asyncio.Future[None]
    since: float


class Outbox:
    """What waits for one peer.

    Args:
        progress: Measures the peer.
    """

    __slots__ = ("progress", "queue", "queued_bytes", "waiters")

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        #: Senders that wait until the transport has room.
        self.waiters: list[asyncio.Future[None]] = []
        #: Messages not handed to the transport yet, oldest first.
        self.queue: deque[Queued] = deque()
        self.queued_bytes = 0

    def enqueue(self, loop: asyncio.AbstractEventLoop, data: bytes, now: float) -> asyncio.Future[None]:
        """Queue a message; the future is done when it was handed to the transport. A cancelled one is not sent."""
        written = loop.create_future()
        self.queue.append(Queued(data, written, now))
        self.queued_bytes += len(data)
        return written

    def pop(self) -> Queued | None:
        """The oldest message whose sender still wants it sent."""
        while self.queue:
            queued = self.queue.popleft()
            self.queued_bytes -= len(queued.data)
            if not queued.written.cancelled():
                return queued
        return None

    def discard(self, written: asyncio.Future[None]) -> None:
        """A sender gave up: forget its message, so that those who give up again and again fill no queue."""
        for index, queued in enumerate(self.queue):
            if queued.written is written:
                self.queued_bytes -= len(queued.data)
                del self.queue[index]
                return

    @property
    def oldest(self) -> float | None:
        """Since when the oldest message waits; None when none does."""
        while self.queue and self.queue[0].written.cancelled():
            self.queued_bytes -= len(self.queue.popleft().data)
        return self.queue[0].since if self.queue else None

    def wake(self, error: Exception | None = None) -> None:
        """Let all senders go on; with an error, also those whose message is still queued."""
        waiters, self.waiters = self.waiters, []
        if error is not None:
            waiters.extend(queued.written for queued in self.queue)
            self.queue.clear()
            self.queued_bytes = 0
        for waiter in waiters:
            if not waiter.done():
                if error is None:
                    waiter.set_result(None)
                else:
                    waiter.set_exception(error)


def acknowledged(sock: Any) -> int | None:
    """Bytes that the peer's kernel has confirmed since the connection began; None where that can't be known.

    Args:
        sock: What a transport gives as its ``socket``; None when it has none.
    """
    if sock is None or _TCP_INFO is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return None
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, _BYTES_ACKED + 8)
    except OSError:
        return None  # closed, or the system names it so and means something else
    return int.from_bytes(info[_BYTES_ACKED:], sys.byteorder) if len(info) == _BYTES_ACKED + 8 else None


def unacknowledged(sock: Any) -> int:
    """Bytes in the kernel that the peer has not confirmed (SIOCOUTQ, tcp(7)); 0 where that can't be known."""
    try:
        return int(struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, b"\0\0\0\0"))[0])
    except (OSError, ValueError, AttributeError):  # no socket the kernel counts for; closed; none at all
        return 0


def reset_on_close(sock: Any) -> None:
    """Let a TCP socket end with RST instead of FIN when it is closed (SO_LINGER of zero seconds, socket(7))."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    except (OSError, AttributeError):
        pass  # closed already, or no socket: there is nothing to reset
