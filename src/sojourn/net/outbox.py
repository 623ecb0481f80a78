"""Bytes for a peer that is behind.

A connection has an outbox only while its transport holds more than the high watermark: then senders wait here, messages
of a WebSocket queue here, and the peer's progress is measured, so that one which stands still or crawls is ended.
"""

from __future__ import annotations

import asyncio
import fcntl
import struct
import termios
from collections import deque
from typing import NamedTuple

from sojourn.policy.deadlines import Progress

__all__ = ["Outbox", "Queued", "unacknowledged"]


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


def unacknowledged(fd: int) -> int:
    """Bytes in the kernel that the peer has not acknowledged (SIOCOUTQ, tcp(7)); 0 where that can't be known."""
    try:
        return int(struct.unpack("i", fcntl.ioctl(fd, termios.TIOCOUTQ, b"\0\0\0\0"))[0])
    except OSError:  # not a socket the kernel counts for
        return 0
