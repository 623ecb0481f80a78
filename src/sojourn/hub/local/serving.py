"""The broker's side of the socket: workers come, ask and are answered, and one that does not read is cut."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from typing import Any, Final, cast

import msgspec

from sojourn.clock import Clock, SystemClock
from sojourn.hub.local.broker import Broker, Refused
from sojourn.hub.local.messages import Answer, Frames, Hello, Refusal, frame, from_worker
from sojourn.hub.memory import new_epoch

__all__ = ["Serving", "same_user"]

#: Bytes that may wait for one worker; with more it is cut, comes back and reads history.
_MOST_WAITING: Final = 16 * 1024 * 1024
#: Workers at most, each counted once for each of its hubs, and stores.
_MOST_PEERS: Final = 1024
_MOST_STORES: Final = 16
#: Seconds between two looks at what is over, when no member asks for more.
_SWEEP: Final = 1.0
_CREDENTIALS: Final = struct.Struct("3i")  # struct ucred of unix(7)


def same_user(sock: socket.socket) -> bool:
    """Whether the process behind a Unix socket is of this process's user, or of root.

    Source: unix(7), SO_PEERCRED.
    """
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, user, _ = _CREDENTIALS.unpack(raw)
    return user in (os.geteuid(), 0)


class _Worker(asyncio.Protocol):
    """The connection of one worker.

    Args:
        serving: Whose.
    """

    def __init__(self, serving: Serving) -> None:
        self.node = ""
        #: Its store; None before it has said hello.
        self._broker: Broker | None = None
        self._serving = serving
        self._frames = Frames()
        self._transport: asyncio.Transport | None = None
        self._out: list[bytes] = []
        self._waiting = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        if not self._serving.take(self) or not same_user(transport.get_extra_info("socket")):
            self.cut()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._serving.gone(self)
        if self._broker is not None:
            self._broker.lost(self, self._serving.now())

    def data_received(self, data: bytes) -> None:
        try:
            for body in self._frames.feed(data):
                if self._transport is None:
                    return
                self._asked(from_worker(body))
        except (msgspec.MsgspecError, ValueError):
            self.cut()  # whoever it is, it does not speak this language

    def _asked(self, request: Any) -> None:
        try:
            if isinstance(request, Hello):
                if self._broker is None:
                    self._broker = self._serving.broker(request.store)
                value = self._broker.greet(self, request, self._serving.now())
            elif self._broker is None or not self.node:
                raise Refused("say hello first")
            else:
                value = self._broker.handle(self, request, self._serving.now())
            answer = frame(Answer(request.number, value))
        except (Refused, ValueError) as error:  # what is too large to be answered is refused
            answer = frame(Refusal(request.number, str(error)))
        self.send(answer)

    def send(self, data: bytes) -> None:
        """Write with what else is written in this turn of the loop."""
        if self._transport is None:
            return
        if not self._out:
            self._serving.loop.call_soon(self._flush)
        self._out.append(data)
        self._waiting += len(data)
        if self._waiting > _MOST_WAITING:
            self._behind()

    def cut(self) -> None:
        """Close at once."""
        transport, self._transport = self._transport, None
        self._out.clear()
        if transport is not None:
            transport.abort()

    def _flush(self) -> None:
        out, transport = self._out, self._transport
        if transport is None or not out:
            return
        self._out = []
        transport.write(out[0] if len(out) == 1 else b"".join(out))
        self._waiting = transport.get_write_buffer_size()
        if self._waiting > _MOST_WAITING:
            self._behind()

    def _behind(self) -> None:
        """It does not read, and must not cost more."""
        self._serving.cut += 1
        self.cut()


class Serving:
    """Brokers, one for each store, and the socket at which workers reach them.

    Args:
        clock: Times what is kept; None takes the machine's.
        size: Bytes of publications that are kept at most, in each store.

    Attributes:
        brokers: What it serves, by the names of the stores.
        cut: Workers that were cut because they did not read.
    """

    def __init__(self, *, clock: Clock | None = None, size: int = 256 * 1024 * 1024) -> None:
        self.brokers: dict[str, Broker] = {}
        self._size = size
        self.now = (clock or SystemClock()).monotonic
        self.loop = asyncio.get_running_loop()
        self.cut = 0
        self._workers: set[_Worker] = set()
        self._server: asyncio.AbstractServer | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def start(self, sock: socket.socket) -> None:
        """Serve at a socket that listens, or is bound; it is closed with the rest.

        Cancel: safe; close it then.
        """
        self._server = await self.loop.create_unix_server(lambda: _Worker(self), sock=sock, backlog=_MOST_PEERS)
        self._sweep()

    def close(self) -> None:
        """End: workers are cut, and look for another."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._server is not None:
            self._server.close()
            self._server = None
        for worker in list(self._workers):
            worker.cut()

    def take(self, worker: _Worker) -> bool:
        """A worker comes. Returns whether there is room for it."""
        self._workers.add(worker)
        return self._server is not None and len(self._workers) <= _MOST_PEERS

    def gone(self, worker: _Worker) -> None:
        """Its connection has ended."""
        self._workers.discard(worker)

    def broker(self, store: str) -> Broker:
        """The broker of a store, which is made when it is first asked for.

        Raises:
            Refused: There are as many as may be.
        """
        broker = self.brokers.get(store)
        if broker is None:
            if len(self.brokers) >= _MOST_STORES:
                raise Refused(f"there are {_MOST_STORES} stores already: that is the bound")
            broker = self.brokers[store] = Broker(new_epoch(), size=self._size)
        return broker

    def _sweep(self) -> None:
        for broker in self.brokers.values():
            broker.sweep(self.now())
        pause = min((broker.pause for broker in self.brokers.values()), default=_SWEEP)
        self._timer = self.loop.call_later(pause, self._sweep)
