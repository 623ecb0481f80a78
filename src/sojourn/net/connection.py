"""One accepted socket: its identity, its deadlines, its counters, and its end.

A connection outlives what is spoken on it: an upgrade swaps the handler, and identity, age, counters and the entry in
the registry stay. Whatever ends it goes through :meth:`Connection.end`, and the first cause stays its cause.
"""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, cast

from sojourn.clock import NEVER
from sojourn.ending import Ending, How, Phase, Who
from sojourn.errors import ClientDisconnected
from sojourn.events import ConnectionEnded, ConnectionGrewOld, DeadlineMissed
from sojourn.net.handler import Handler
from sojourn.net.outbox import Outbox, acknowledged, reset_on_close, unacknowledged
from sojourn.policy.deadlines import SLOTS, Deadlines, Progress

if TYPE_CHECKING:
    from sojourn.net.runtime import Runtime

__all__ = ["Connection", "Handler"]

#: Between two samples of how far a peer that is behind has come.
_SAMPLE_SECONDS: Final = 1.0
#: More often than a connection is looked at for one deadline after the other, unless a handler forgets to move one.
_LOOKS: Final = range(2 * len(SLOTS))
_FIRST_PHASE: Final = {"accept": Phase.ACCEPT, "proxy": Phase.TLS, "tls": Phase.TLS, "header": Phase.HEAD}
#: What a deadline means while there is nobody to ask.
_BEFORE_HANDLER: Final = {
    "accept": "connection_limit",
    "proxy": "proxy_header_timeout",
    "tls": "tls_timeout",
    "header": "request_headers_timeout",
    "keep_alive": "drain_goodbye",  # armed this early only by a drain
}


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
        "on_blocked",
        "on_lost",
        "opened_at",
        "outbox",
        "path",
        "peer",
        "phase",
        "principal",
        "reading_paused",
        "requests",
        "runtime",
        "secure",
        "tls_extension",
        "told",
        "transport",
        "unsent",
        "ws_received",
        "ws_sent",
    )

    def __init__(  # noqa: PLR0913 - one caller, and all of it is known at accept
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
        #: Who uses it, as far as that was proved; "" when nobody has proved anything.
        self.principal = ""
        self.tls_extension: dict[str, Any] | None = None
        self.transport: asyncio.Transport | None = None
        self.handler: Handler | None = None
        self.outbox: Outbox | None = None
        #: The first cause; None while the connection lives.
        self.ending: Ending | None = None
        #: The missed deadline that was reported last.
        self.told: Ending | None = None
        #: Whether the transport holds more than the high watermark.
        self.blocked = False
        self.reading_paused = False
        self.long_logged = False
        #: Called when the socket is closed. Set by who wants to know, so that no other connection pays for it.
        self.on_lost: list[Callable[[], None]]
        #: Called when the transport has all it takes, in the middle of a write. Set as ``on_lost``.
        self.on_blocked: Callable[[], None]
        self.ws_sent: int | None = None
        self.ws_received: int | None = None
        #: The address it counts under, among the limits of connections; None when it does not count.
        self.admitted: str | None = None
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
        runtime.wheel.add(self, due.soonest())

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

    def passed_by(self, now: float) -> float:
        """The next deadline; called by the wheel at least once a lap."""
        if self.outbox is None and self.transport is not None and self.ending is None and self._waiting():
            # Less than the high watermark, so nobody was told; but some bytes wait, and that too has an end.
            self._measure(now)
        return self.due.soonest()

    def look(self, now: float) -> None:
        """Act on the deadlines that have passed; called by the wheel, which has let go of the connection."""
        if self.due.ping <= now and self.ending is None and self.handler is not None and self.transport is not None:
            # What most looks at an idle WebSocket are for; before a look for all deadlines, it is that look once less.
            self.handler.deadline_passed("ping", now)
        slot = ""
        for _ in _LOOKS:
            if self.runtime.registry.get(self.id) is None:
                return
            moment = self.due.soonest()
            if moment > now:
                self.runtime.wheel.add(self, moment)
                return
            slot = self.due.slot_at(moment)
            if slot == "long":
                self._grow_old()
            elif slot == "write":
                self._check_progress(now)
            elif slot == "close":
                self._check_close(now)
            elif self.ending is not None:
                setattr(self.due, slot, NEVER)  # armed after the end: it has nothing left to decide
            elif self.handler is not None and self.transport is not None:
                self.handler.deadline_passed(slot, now)
            else:
                self.end(Ending(_BEFORE_HANDLER.get(slot, "max_connection_duration"), self.phase, How.TIMEOUT, slot))
        raise RuntimeError(f"deadline {slot!r} of connection {self.id} is due for ever")

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
        self.note_buffered()
        if self.outbox is None and self.ending is None:
            self._measure(self.runtime.ticker.now)
            if self.due.write < self.looked_at:
                self.runtime.wheel.sooner(self, self.due.write)
        if self.ending is None and (tell := getattr(self, "on_blocked", None)) is not None:
            tell()

    def note_buffered(self) -> None:
        """More waits for the peer than before: the registry keeps the most there was."""
        registry, waiting = self.runtime.registry, self.buffered
        if waiting > registry.buffered_high:
            registry.buffered_high = waiting

    def resume_writing(self) -> None:
        """The transport holds less than the low watermark; called by it."""
        self.blocked = False
        outbox = self.outbox
        if outbox is None or self.ending is not None:
            return
        while not self.blocked and (queued := outbox.pop()) is not None:
            self.write(queued.data)
            queued.written.set_result(None)
        if not self.blocked:
            self._caught_up()

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

    def _waiting(self) -> int:
        """Bytes that hold the connection open, because only we can still bring them to the peer."""
        transport = self.transport
        if transport is None:
            return 0
        waiting = transport.get_write_buffer_size()
        if self.secure and not waiting:
            # Between the TLS layer and the kernel are bytes of which neither tells; they go when the kernel has room.
            waiting = unacknowledged(transport.get_extra_info("socket"))
        return waiting

    def _moved(self) -> int:
        """Bytes that have reached the peer's kernel; only differences mean anything."""
        transport = self.transport
        if transport is None:
            return self.bytes_out
        sock = transport.get_extra_info("socket")
        moved = acknowledged(sock)
        if moved is None:
            moved = self.bytes_out - transport.get_write_buffer_size() - unacknowledged(sock)
        return moved

    def _measure(self, now: float) -> None:
        """From now on the peer is behind, and its progress is watched."""
        timeouts, limits = self.runtime.config.timeouts, self.runtime.config.limits
        if self.handler is not None:
            idle, rate = self.handler.patience()
        else:
            idle, rate = timeouts.write_idle, limits.write_min_rate
        self.outbox = Outbox(Progress(now, self._moved(), idle, rate, limits.rate_grace))
        if self.ending is None:
            self.due.write = self._next_sample(now, self.outbox.progress)

    def _caught_up(self) -> None:
        """The peer is not behind any more."""
        outbox, self.outbox = self.outbox, None
        self.due.write = NEVER
        if outbox is not None:
            outbox.wake()

    @staticmethod
    def _next_sample(now: float, progress: Progress) -> float:
        return min(now + _SAMPLE_SECONDS, max(now, progress.idle_deadline), max(now, progress.rate_deadline))

    def _verdict(self, now: float) -> Ending | None:
        """Sample the progress of the peer. Returns why it is too slow; None when it is not."""
        assert self.outbox is not None
        progress = self.outbox.progress
        progress.sample(now, self._moved())
        if progress.idle_deadline <= now:
            return Ending("send_timeout", self.phase, How.TIMEOUT, "write_idle")
        if progress.rate_deadline <= now:
            return Ending("min_response_data_rate", self.phase, How.TIMEOUT, "write_min_rate")
        return None

    def _check_progress(self, now: float) -> None:
        """Judge a peer that is behind."""
        outbox = self.outbox
        if outbox is None or not (self.blocked or self._waiting()):
            self._caught_up()
            return
        ending = self._verdict(now)
        if ending is not None:
            self.end(ending, abort=True)
            return
        self.due.write = self._next_sample(now, outbox.progress)
        if self.handler is not None:
            self.handler.behind(outbox, now)

    # The end

    def end(self, ending: Ending, *, abort: bool = False, linger: bool = False) -> None:
        """End the connection. The first call decides the cause; a later one can only hurry it.

        Args:
            ending: The cause.
            abort: Drop what has not been sent and reset the connection, so that the peer can't take what it got for
                the whole. Else what has not been sent may leave: within ``timeouts.close``, and after that for as long
                as the peer takes it as fast as ``timeouts.write_idle`` and ``limits.write_min_rate`` ask.
            linger: The peer may still be sending. Our FIN goes out, and its bytes are read and thrown away for
                ``timeouts.linger``: closing a socket with unread bytes would reset it and could destroy our answer on
                its way (RFC 9112 section 9.6).
        """
        if self.ending is not None:
            if abort:
                self._reset()
            return
        self.ending = ending
        if ending.how is How.TIMEOUT:
            self.missed(ending)
        self.due.disarm()
        timeouts = self.runtime.config.timeouts
        self.arm("close", timeouts.linger if linger else timeouts.close)
        try:
            if self.handler is not None:
                self.handler.ending(ending)
        finally:
            if self.outbox is not None:
                self.unsent += self.outbox.queued_bytes
                self.outbox.wake(ClientDisconnected(ending.reason))
            self._close(abort, linger)

    def _close(self, abort: bool, linger: bool) -> None:
        transport = self.transport
        if transport is None:
            abandon, self.abandon = self.abandon, None
            if abandon is not None:
                abandon()
            self.lost(None)
            return
        if abort:
            self._reset()
            return
        if linger and self.reading_paused:
            self.reading_paused = False
            self.runtime.context.copy().run(transport.resume_reading)
        if linger and transport.can_write_eof():
            try:
                transport.write_eof()
            except OSError:  # reset meanwhile, unnoticed because nothing was read: there is nobody to linger for
                transport.abort()
        else:
            transport.close()

    def _reset(self) -> None:
        """Close the socket now, with a reset instead of a FIN that could pass for the end of an answer."""
        transport = self.transport
        if transport is not None:
            dropped = transport.get_write_buffer_size()
            self.bytes_out -= dropped
            self.unsent += dropped
            reset_on_close(transport.get_extra_info("socket"))
            transport.abort()

    def missed(self, ending: Ending) -> None:
        """Report a deadline that ends the connection or its request; each ending once."""
        if ending is self.told:
            return
        self.told = ending
        if DeadlineMissed in self.runtime.bus.observers:
            length = self.handler.length_of(ending.detail) if self.handler is not None else 0.0
            self.runtime.bus.emit(DeadlineMissed(self.id, ending.detail or ending.reason, length, self.path))

    def _check_close(self, now: float) -> None:
        """``timeouts.close`` or ``linger`` has passed since the end, and the socket is still open."""
        transport = self.transport
        self.due.close = now + self.runtime.config.timeouts.close
        if transport is None:
            return
        if not self._waiting():
            transport.abort()  # a FIN, unless the peer has sent what nobody reads any more
            return
        if self.outbox is None:
            self._measure(now)
        assert self.outbox is not None
        assert self.ending is not None
        too_slow = self._verdict(now)
        if too_slow is None:
            self.due.close = self._next_sample(now, self.outbox.progress)
            return
        if self.ending.who in (Who.NONE, Who.DRAIN):
            # It ended well, as far as was known; that the peer never took the rest is the real cause.
            self.ending = too_slow
            self.missed(too_slow)
        self._reset()

    def lost(self, error: Exception | None) -> None:
        """The socket is closed; called by the transport, and by ``end`` when there is none."""
        runtime = self.runtime
        if runtime.registry.get(self.id) is None:
            return
        ending = self.ending
        if ending is None:
            ending = self.ending = self._cause_of_loss(error)
        runtime.wheel.remove(self)
        self.due.disarm()
        self.transport = None
        self.blocked = False
        outbox, self.outbox = self.outbox, None
        if outbox is not None:
            self.unsent += outbox.queued_bytes
            outbox.wake(ClientDisconnected(ending.reason))
        handler = self.handler
        try:
            if handler is not None:
                handler.ended(ending)
        finally:
            protocol = handler.protocol if handler is not None and self.requests else ""
            for call in list(getattr(self, "on_lost", ())):
                call()
            runtime.registry.leave(
                self,
                ConnectionEnded(
                    self.id,
                    self.peer_name,
                    protocol,
                    self.path,
                    ending,
                    self.age,
                    self.bytes_in,
                    self.bytes_out,
                    self.unsent,
                    self.requests,
                    self.ws_sent,
                    self.ws_received,
                    self.long_logged,
                    self.runtime.ticker.now - max(self.last_read, self.last_write),
                ),
            )
            self.handler = None

    def when_lost(self, call: Callable[[], None]) -> Callable[[], None]:
        """Call a function when the socket is closed. Returns a function that forgets that.

        Raises:
            RuntimeError: It is closed.
        """
        if self.runtime.registry.get(self.id) is None:
            raise RuntimeError(f"connection {self.id} has ended")
        if not hasattr(self, "on_lost"):
            self.on_lost = []
        calls = self.on_lost
        calls.append(call)

        def forget() -> None:
            if call in calls:
                calls.remove(call)

        return forget

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
