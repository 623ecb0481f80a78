"""What a fault proxy is made of: a link is a client's connection and the server's, a pipe one direction of it."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections import deque
from collections.abc import Iterator
from typing import Final, Literal, Protocol

from sojourn.clock import SystemClock

__all__ = ["Direction", "Link"]

#: ``up`` is from the client to the server behind the proxy, ``down`` is back.
Direction = Literal["up", "down", "both"]

_monotonic: Final = SystemClock.monotonic
_READ: Final = 65536
#: Bytes a pipe holds back before it stops reading.
_HELD: Final = 262144
#: Seconds by which a loop's timer may be early.
_EARLY: Final = 0.0005
#: A rate is kept in steps so many seconds long.
_STEP: Final = 0.02
_RESET: Final = struct.pack("ii", 1, 0)


class Fault(Protocol):
    """A toxic, as pipes see it."""

    seconds: float
    amount: float
    extra: float


class Faulty(Protocol):
    """A proxy, as its links see it."""

    loop: asyncio.AbstractEventLoop
    random: random.Random
    links: set[Link]

    def of(self, kind: str, way: Direction) -> Iterator[Fault]: ...

    def swallows(self, way: Direction) -> bool: ...


class Pipe:
    """One direction of a link: what was read and waits for its moment."""

    def __init__(self, link: Link, source: socket.socket, sink: socket.socket, way: Direction) -> None:
        self.link, self.source, self.sink, self.way = link, source, sink, way
        #: Moment, bytes; b"" is the end.
        self.queue: deque[tuple[float, bytes]] = deque()
        self.held = 0
        self.passed = 0
        self.last = 0.0
        #: Whether the source has ended, and whether that was passed on.
        self.ended = self.told = False
        self.reading = False
        self.timer: asyncio.TimerHandle | None = None
        self.read()

    def read(self) -> None:
        if not self.reading and not self.ended:
            self.reading = True
            self.link.loop.add_reader(self.source, self._readable)

    def _pause(self) -> None:
        if self.reading:
            self.reading = False
            self.link.loop.remove_reader(self.source)

    def _readable(self) -> None:
        try:
            data = self.source.recv(_READ)
        except BlockingIOError:
            return
        except OSError:
            self.link.close(reset=True)
            return
        if not data:
            self._pause()
            self.ended = True
            self.end()
        elif not self.link.proxy.swallows(self.way):
            for piece, delay in self._pieces(data):
                self._put(piece, delay)
            if self.held > _HELD:
                self._pause()
        self.pump()

    def end(self) -> None:
        """Pass the end of the connection on, unless a toxic keeps it; called again when that is gone."""
        if self.ended and not self.told and not self.link.proxy.swallows(self.way):
            self.told = True
            self._put(b"", sum(toxic.seconds for toxic in self.link.proxy.of("slow_close", self.way)))
            self.pump()

    def _pieces(self, data: bytes) -> Iterator[tuple[bytes, float]]:
        """The bytes as they are sent on, each with the seconds it waits after the one before."""
        proxy, pieces = self.link.proxy, [(data, 0.0)]
        for toxic in proxy.of("slicer", self.way):
            pieces = list(_sliced(data, toxic, proxy.random))
        for toxic in proxy.of("bandwidth", self.way):
            step = max(1, int(toxic.amount * _STEP))
            pieces = [
                (piece[at : at + step], delay * (at == 0) + len(piece[at : at + step]) / toxic.amount)
                for piece, delay in pieces
                for at in range(0, len(piece), step)
            ]
        yield from pieces

    def _put(self, data: bytes, delay: float) -> None:
        due = _monotonic()
        for toxic in self.link.proxy.of("latency", self.way):
            due += max(0.0, toxic.seconds + self.link.proxy.random.uniform(-toxic.extra, toxic.extra))
        self.last = due = max(self.last, due) + delay
        self.queue.append((due, data))
        self.held += len(data)

    def pump(self) -> None:
        """Send on what is due."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        while self.queue and not self.link.closed:
            due, data = self.queue[0]
            now = _monotonic()
            if due > now + _EARLY:
                self.timer = self.link.loop.call_later(due - now, self.pump)
                return
            if not data:
                self.queue.popleft()
                self.link.half_closed(self)
            elif not self._send(due, data):
                return
        if self.held <= _HELD:
            self.read()

    def _send(self, due: float, data: bytes) -> bool:
        """Whether there may be more to send now."""
        limit = min((int(toxic.amount) for toxic in self.link.proxy.of("limit_data", self.way)), default=None)
        if limit is not None and len(data) >= limit - self.passed:
            data = data[: limit - self.passed]
        try:
            sent = self.sink.send(data) if data else 0
        except BlockingIOError:
            self.link.loop.add_writer(self.sink, self._writable)
            return False
        except OSError:
            self.link.close(reset=True)
            return False
        self.passed += sent
        whole = self.queue.popleft()[1]
        self.held -= sent
        if limit is not None and self.passed >= limit:
            self.link.close()
            return False
        if sent < len(whole):
            self.queue.appendleft((due, whole[sent:]))
        return True

    def _writable(self) -> None:
        self.link.loop.remove_writer(self.sink)
        self.pump()

    def stop(self) -> None:
        self._pause()
        self.link.loop.remove_writer(self.sink)
        if self.timer is not None:
            self.timer.cancel()


def _sliced(data: bytes, toxic: Fault, chance: random.Random) -> Iterator[tuple[bytes, float]]:
    at, delay = 0, 0.0
    while at < len(data):
        size = max(1, int(toxic.amount + chance.uniform(-toxic.extra, toxic.extra)))
        yield data[at : at + size], delay
        at, delay = at + size, toxic.seconds


class Link:
    """A client's connection and the one to the server that goes with it."""

    def __init__(self, proxy: Faulty, client: socket.socket, server: socket.socket) -> None:
        self.proxy, self.loop, self.closed = proxy, proxy.loop, False
        self.client, self.server = client, server
        self.pipes = (Pipe(self, client, server, "up"), Pipe(self, server, client, "down"))
        self.done: set[Pipe] = set()

    def half_closed(self, pipe: Pipe) -> None:
        self.done.add(pipe)
        if len(self.done) == 2:
            self.close()
            return
        try:
            pipe.sink.shutdown(socket.SHUT_WR)
        except OSError:
            self.close(reset=True)

    def close(self, *, reset: bool = False) -> None:
        if self.closed:
            return
        self.closed = True
        for pipe in self.pipes:
            pipe.stop()
        for sock in (self.client, self.server):
            if reset:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            sock.close()
        self.proxy.links.discard(self)
