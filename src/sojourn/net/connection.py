"""One accepted socket: its identity, its deadlines, its counters, and its end.

A connection outlives what is spoken on it: an upgrade swaps the handler, and identity, age, counters and the entry in the
registry stay. Whatever ends it goes through :meth:`Connection.end`, and the first cause stays its cause.
"""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, cast

from sojourn.clock import NEVER
from sojourn.ending import Ending, How, Phase
from sojourn.errors import ClientDisconnected
from sojourn.events import ConnectionEnded, ConnectionGrewOld, DeadlineMissed
from sojourn.net.outbox import Outbox, unacknowledged
from sojourn.policy.deadlines import SLOTS, Deadlines, Progress

if TYPE_CHECKING:
    from sojourn.net.runtime import Runtime

__all__ = ["Connection", "Handler"]

_SAMPLE_SECONDS: Final = 1.0
_FIRST_PHASE: Final = {"accept": Phase.ACCEPT, "proxy": Phase.TLS, "tls": Phase.TLS, "header": Phase.HEAD}
#: What a deadline means while there is nobody to ask.
_BEFORE_HANDLER: Final = {
    "accept": "connection_limit",
    "proxy": "proxy_header_timeout",
    "tls": "tls_timeout",
    "header": "request_headers_timeout",
}


class Handler(asyncio.Protocol):
    """Owns the bytes of a connection for a while. The transport calls it without a detour."""

    __slots__ = ("connection",)

    #: What is spoken, for logs.
    protocol = ""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.connection.established(transport)

    def connection_lost(self, error: Exception | None) -> None:
        self.connection.lost(error)

    def pause_writing(self) -> None:
        self.connection.pause_writing()

    def resume_writing(self) -> None:
        self.connection.resume_writing()

    def opened(self) -> None:
        """The transport is there, after the TLS handshake if there is one."""

    def deadline_passed(self, slot: str, now: float) -> None:
        """A slot of this handler's concern is due. It must end something, or set the slot later or to NEVER."""
        raise NotImplementedError

    def ending(self, ending: Ending) -> None:
        """The connection ends; the transport is still there."""

    def ended(self, ending: Ending) -> None:
        """The transport is gone."""

    def behind(self, outbox: Outbox, now: float) -> None:
        """The peer is behind; called about every second while it is."""

    def cause_of_eof(self, how: How) -> Ending:
        """What it means that the peer closed at this point."""
        return Ending("connected_no_data", self.connection.phase, how)


class Connection:
    """One accepted socket.

    Made before its first byte is read: the constructor arms its first deadline and enters it in the registry.

    Args:
        runtime: What the worker's connections share.
        peer: Address of the client: (host, port), or None for a Unix socket.
        local: Address it came to: (host, port), or (path, None).
        listener: Name of the listener.
        secure: Whether TLS is spoken.
        slot: The deadline that is armed first: ``header``, ``tls``, ``proxy`` or ``accept``.
        timeout: Its length in seconds; None for no limit.
    """

    __slots__ = (
        "__weakref__",
        "abandon",
        "admitted",
        "blocked",
        "bytes_in",
        "bytes_out",
        "due",
        "ending",
        "handler",
        "id",
        "last_read",
        "last_write",
        "listener",
        "local",
        "long_logged",
        "looked_at",
        "opened_at",
        "outbox",
        "path",
        "peer",
        "phase",
        "reading_paused",
        "requests",
        "runtime",
        "secure",
        "tls_extension",
        "transport",
        "unsent",
        "ws_received",
        "ws_sent",
    )

    def __init__(
        self,
        runtime: Runtime,
        peer: tuple[str, int] | None,
        local: tuple[str, int | None] | None,
        listener: str,
        secure: bool,
        slot: str,
        timeout: float | None,
    ) -> None:
        now = runtime.ticker.now
        #: The deadlines.
        self.due = due = Deadlines()
        #: When the wheel looks next; no deadline is earlier.
        self.looked_at = NEVER
        self.runtime = runtime
        self.peer = peer
        self.local = local
        self.listener = listener
        self.secure = secure
        self.phase = _FIRST_PHASE[slot]
        self.opened_at = now
        self.last_read = now
        self.last_write = now
        self.bytes_in = 0
        self.bytes_out = 0
        self.unsent = 0
        self.requests = 0
        self.path = ""
        self.tls_extension: dict[str, Any] | None = None
        self.transport: asyncio.Transport | None = None
        self.handler: Handler | None = None
        self.outbox: Outbox | None = None
        #: The first cause; None while the connection lives.
        self.ending: Ending | None = None
        #: Whether the transport holds more than the high watermark.
        self.blocked = False
        self.reading_paused = False
        self.long_logged = False
        self.ws_sent: int | None = None
        self.ws_received: int | None = None
        #: Whether it counts against the limits.
        self.admitted = True
        #: Ends a connection that has no transport yet.
        self.abandon: Callable[[], None] | None = None
        if timeout is not None:
            setattr(due, slot, now + timeout)
        config = runtime.config
        due.long = now + config.log.long_connection
        if config.timeouts.lifetime is not None:
            # Jitter, so that connections which came together do not come again together.
            due.lifetime = now + config.timeouts.lifetime * random.uniform(0.9, 1.1)
        self.id = runtime.registry.enter(self)
        runtime.wheel.add(self)

    @property
    def peer_name(self) -> str:
        """The client as ``host:port``; ``unix`` for a Unix socket."""
        if self.peer is None:
            return "unix"
        host, port = self.peer
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    @property
    def age(self) -> float:
        """Seconds since accept."""
        return self.runtime.ticker.now - self.opened_at

    @property
    def buffered(self) -> int:
        """Bytes that wait for the peer, outside the kernel."""
        waiting = self.transport.get_write_buffer_size() if self.transport is not None else 0
        return waiting + (self.outbox.queued_bytes if self.outbox is not None else 0)

    def earliest(self) -> tuple[float, str]:
        """The next deadline and its slot."""
        return self.due.earliest()

    def arm(self, slot: str, timeout: float | None) -> None:
        """Set a slot ``timeout`` seconds ahead; None disarms it. Hot paths assign the slot themselves."""
        due = NEVER if timeout is None else self.runtime.ticker.now + timeout
        setattr(self.due, slot, due)
        if due < self.looked_at:
            self.runtime.wheel.sooner(self, due)

    def established(self, transport: asyncio.BaseTransport) -> None:
        """The transport is there; called by it."""
        # uvloop's transports are not subclasses of asyncio's, so this can't be an isinstance.
        self.transport = transport = cast(asyncio.Transport, transport)
        if self.ending is not None:  # ended during the TLS handshake
            transport.abort()
            return
        high = self.runtime.config.limits.write_buffer
        transport.set_write_buffer_limits(high=high, low=high // 4)
        if self.handler is not None:
            self.handler.opened()

    def look(self, now: float) -> None:
        """Act on the deadlines that have passed; called by the wheel, which has let go of the connection."""
        slot = ""
        for _ in range(2 * len(SLOTS)):
            moment, slot = self.due.earliest()
            if moment > now:
                self.runtime.wheel.add(self)
                return
            if slot == "long":
                self._grow_old()
            elif slot == "write":
                self._check_progress(now)
            elif slot == "close":
                self._close_now()
            elif self.handler is not None and self.transport is not None:
                self.handler.deadline_passed(slot, now)
            else:
                self.end(Ending(_BEFORE_HANDLER.get(slot, "max_connection_duration"), self.phase, How.TIMEOUT, slot))
            if self.runtime.registry.get(self.id) is None:
                return
        self.end(Ending("internal_error", self.phase, How.LOCAL_ABORT, f"deadline {slot} is due for ever"), abort=True)

    def swap(self, handler: Handler) -> None:
        """Hand the bytes to another handler."""
        self.handler = handler
        if self.transport is not None:
            self.transport.set_protocol(handler)

    # Reading and writing

    def pause_reading(self) -> None:
        """Read no more until ``resume_reading``; the kernel then holds the peer back."""
        if not self.reading_paused and self.transport is not None and self.ending is None:
            self.reading_paused = True
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Read on."""
        if self.reading_paused and self.transport is not None and self.ending is None:
            self.reading_paused = False
            # asyncio keeps the context in which reading is resumed for everything the socket brings from then on
            # (python/cpython#140947): never that of the request which happens to be running.
            self.runtime.context.copy().run(self.transport.resume_reading)

    def write(self, data: bytes) -> None:
        """Hand bytes to the transport. Hot paths do the same without this call."""
        if self.transport is not None:
            self.bytes_out += len(data)
            self.last_write = self.runtime.ticker.now
            self.transport.write(data)

    def pause_writing(self) -> None:
        """The transport holds more than the high watermark; called by it."""
        self.blocked = True
        if self.outbox is None:
            timeouts, limits = self.runtime.config.timeouts, self.runtime.config.limits
            self.outbox = Outbox(
                Progress(
                    self.runtime.ticker.now,
                    self._moved(),
                    timeouts.write_idle,
                    limits.write_min_rate,
                    limits.rate_grace,
                )
            )
            self.arm("write", _SAMPLE_SECONDS)

    def resume_writing(self) -> None:
        """The transport holds less than the low watermark; called by it."""
        self.blocked = False
        outbox = self.outbox
        if outbox is None:
            return
        while not self.blocked and (queued := outbox.pop()) is not None:
            self.write(queued.data)
            queued.written.set_result(None)
        if not self.blocked:
            outbox.wake()
            if self.ending is None:
                self.outbox = None
                self.due.write = NEVER

    async def writable(self) -> None:
        """Wait until the transport has room.

        Raises:
            ClientDisconnected: The connection ended meanwhile.

        Cancel: safe.
        """
        if self.ending is not None:
            raise ClientDisconnected(self.ending.reason)
        if self.outbox is not None and self.blocked:
            waiter = self.runtime.loop.create_future()
            self.outbox.waiters.append(waiter)
            await waiter

    def _moved(self) -> int:
        """Bytes that have reached the peer's kernel."""
        transport = self.transport
        if transport is None:
            return self.bytes_out
        sock = transport.get_extra_info("socket")
        waiting = transport.get_write_buffer_size()
        if sock is not None and (fd := sock.fileno()) >= 0:
            waiting += unacknowledged(fd)
        return self.bytes_out - waiting

    def _check_progress(self, now: float) -> None:
        """Judge a peer that is behind."""
        outbox = self.outbox
        if outbox is None:
            self.due.write = NEVER
            return
        if self.ending is not None and not self.buffered:
            self.outbox = None
            self._close_now()
            return
        progress = outbox.progress
        progress.sample(now, self._moved())
        if progress.idle_deadline <= now:
            self._give_up("send_timeout")
        elif progress.rate_deadline <= now:
            self._give_up("min_response_data_rate")
        else:
            if self.handler is not None:
                self.handler.behind(outbox, now)
            self.due.write = min(now + _SAMPLE_SECONDS, progress.idle_deadline, max(progress.rate_deadline, now + 0.1))

    def _give_up(self, reason: str) -> None:
        """The peer is too slow."""
        self.due.write = NEVER
        if self.ending is None or self.ending.who.value in "-D":
            # It ended well, as far as was known; that it never took the rest is the real cause.
            self.ending = None
        self.end(Ending(reason, self.phase, How.TIMEOUT, "write"), abort=True)

    # The end

    def end(self, ending: Ending, *, abort: bool = False, linger: bool = False) -> None:
        """End the connection. The first call decides the cause; a later one can only hurry it.

        Args:
            ending: The cause.
            abort: Drop what has not been sent, instead of letting it leave: within ``timeouts.close``, or for as long
                as the peer takes it no slower than ``limits.write_min_rate``.
            linger: The peer may still be sending. Our FIN goes out, and its bytes are read and thrown away for
                ``timeouts.linger``: closing a socket with unread bytes would reset it and could destroy our answer on
                its way (RFC 9112 section 9.6).
        """
        transport = self.transport
        if self.ending is not None:
            if abort and transport is not None:
                transport.abort()
            return
        self.ending = ending
        if ending.how is How.TIMEOUT:
            self.missed(ending)
        self.due.disarm()
        self.unsent = self.buffered
        timeouts = self.runtime.config.timeouts
        self.arm("close", timeouts.linger if linger else timeouts.close)
        if self.handler is not None:
            self.handler.ending(ending)
        if self.outbox is not None:
            self.outbox.wake(ClientDisconnected(ending.reason))
        if transport is None:
            abandon, self.abandon = self.abandon, None
            if abandon is not None:
                abandon()
            self.lost(None)
        elif abort:
            transport.abort()
        elif linger and transport.can_write_eof():
            if self.reading_paused:
                self.reading_paused = False
                self.runtime.context.copy().run(transport.resume_reading)
            transport.write_eof()
        else:
            transport.close()

    def missed(self, ending: Ending) -> None:
        """Report a deadline that ends the connection or its request."""
        if DeadlineMissed in self.runtime.bus.observers:
            self.runtime.bus.emit(DeadlineMissed(self.id, ending.detail or ending.reason, self.age, self.path))

    def _close_now(self) -> None:
        """``timeouts.close`` or ``linger`` has passed since the end, and the socket is still open."""
        self.due.close = NEVER
        transport = self.transport
        if transport is None:
            return
        if transport.get_write_buffer_size():
            # What is still to leave may take its time, as long as the peer takes it.
            if self.outbox is None:
                self.pause_writing()
            self.arm("write", _SAMPLE_SECONDS)
            return
        transport.abort()
        self.arm("close", self.runtime.config.timeouts.close)

    def lost(self, error: Exception | None) -> None:
        """The socket is closed; called by the transport, and by ``end`` when there is none."""
        runtime = self.runtime
        if runtime.registry.get(self.id) is None:
            return
        if self.ending is None:
            self.ending = self._cause_of_loss(error)
            self.unsent = self.buffered
        runtime.wheel.remove(self)
        self.due.disarm()
        self.transport = None
        self.blocked = False
        if self.outbox is not None:
            self.outbox.wake(ClientDisconnected(self.ending.reason))
            self.outbox = None
        protocol = ""
        if self.handler is not None:
            protocol = self.handler.protocol if self.requests else ""
            self.handler.ended(self.ending)
        runtime.registry.leave(
            self,
            ConnectionEnded(
                self.id,
                self.peer_name,
                protocol,
                self.path,
                self.ending,
                self.age,
                self.bytes_in,
                self.bytes_out,
                self.unsent,
                self.requests,
                self.ws_sent,
                self.ws_received,
                self.long_logged,
            ),
        )
        self.handler = None

    def _cause_of_loss(self, error: Exception | None) -> Ending:
        if error is None:
            return (
                self.handler.cause_of_eof(How.FIN) if self.handler else Ending("connected_no_data", self.phase, How.FIN)
            )
        if isinstance(error, (ConnectionResetError, BrokenPipeError, ConnectionAbortedError)):
            if self.phase is Phase.IDLE or not self.bytes_in:
                # A reset where nothing was owed is how many clients hang up.
                return (
                    self.handler.cause_of_eof(How.RST)
                    if self.handler
                    else Ending("connected_no_data", self.phase, How.RST)
                )
            return Ending("client_reset", self.phase, How.RST, str(error))
        if isinstance(error, ssl.SSLError):
            return Ending("client_reset", self.phase, How.TLS_EOF, str(error))
        if isinstance(error, OSError):
            return Ending("tcp_dead", self.phase, How.TIMEOUT, str(error))
        return Ending("internal_error", self.phase, How.LOCAL_ABORT, repr(error))

    def _grow_old(self) -> None:
        self.due.long = NEVER
        self.long_logged = True
        if self.runtime.bus.wants(ConnectionGrewOld):
            protocol = self.handler.protocol if self.handler is not None and self.requests else ""
            self.runtime.bus.emit(
                ConnectionGrewOld(self.id, self.peer_name, protocol, self.path, self.age, self.bytes_in, self.bytes_out)
            )
