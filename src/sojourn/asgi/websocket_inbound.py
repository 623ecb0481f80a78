"""The receiving half of a WebSocket: messages that wait for the application, and its own settings."""

from __future__ import annotations

import asyncio
import types
from abc import abstractmethod
from collections.abc import Callable, Generator
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from sojourn.asgi.control import RequestControl
from sojourn.asgi.overrides import Overrides
from sojourn.clock import NEVER
from sojourn.errors import WebSocketError
from sojourn.net.connection import Handler
from sojourn.policy.heartbeat import Heartbeat, Life
from sojourn.typing import Message
from sojourn.wire.websocket import FrameParser, encode_pong

if TYPE_CHECKING:
    from sojourn.asgi.site import Site
    from sojourn.net.connection import Connection

__all__ = ["State", "WebSocketInbound"]

#: Names that ``set_timeout`` takes.
_TIMEOUTS: Final = ("idle", "write")


class State(Enum):
    """Where a WebSocket is in its life."""

    CONNECTING = "connecting"  # the application has not answered the handshake
    DENYING = "denying"  # it answers with an HTTP response
    OPEN = "open"
    CLOSING = "closing"  # our close frame is sent, the client's is awaited
    CLOSED = "closed"


_OPEN: Final = State.OPEN


class WebSocketInbound(Handler, RequestControl):
    """What a client sends, message by message, to an application that may or may not want it.

    Args:
        connection: The connection.
        site: What is served.
    """

    __slots__ = (
        "_disconnected",
        "_early",
        "_heartbeat",
        "_inbox",
        "_inbox_bytes",
        "_last_message",
        "_overrides",
        "_parser",
        "_pinged",
        "_pong",
        "_receiver",
        "_round_trip",
        "_told_connect",
        "on_expiry",
        "received",
        "sent",
        "site",
        "state",
    )

    def __init__(self, connection: Connection, site: Site, early: bytes) -> None:
        Handler.__init__(self, connection)
        self.site = site
        self.state = State.CONNECTING
        #: Bytes that came before the application accepted.
        self._early = early
        #: Set while the WebSocket is open, until its end has begun.
        self._parser: FrameParser | None = None
        self._heartbeat: Heartbeat | None = None
        #: When our latest ping left that is not answered, in seconds of the site's ``monotonic``; None when none is.
        self._pinged: float | None = None
        self._round_trip: float | None = None
        #: The latest ping that could not be answered yet.
        self._pong: bytes | None = None
        #: Messages that wait for ``receive``. A list: it is short, and nearly always empty.
        self._inbox: list[str | bytes] = []
        #: Their length; of text in characters, which is what is at hand.
        self._inbox_bytes = 0
        #: The ``receive`` that waits; its result is a message, or None to look again.
        self._receiver: asyncio.Future[str | bytes | None] | None = None
        self._told_connect = False
        #: Called when its credential is over. Set by who wants to know.
        self.on_expiry: Callable[[], None]
        #: Code and reason that the application is told; None while the WebSocket lives.
        self._disconnected: tuple[int, str] | None = None
        self._overrides: Overrides | None = None
        #: Messages from the client, and messages to it.
        self.received = self.sent = 0
        self._last_message = connection.runtime.ticker.now

    async def receive(self) -> Message:
        """ASGI receive.

        Cancel: safe; no message is lost.
        """
        if not self._told_connect:
            self._told_connect = True
            return {"type": "websocket.connect"}
        while True:
            inbox = self._inbox
            data: str | bytes | None
            if inbox:
                data = inbox.pop(0)
                self._inbox_bytes -= len(data)
                if not inbox:
                    self._emptied()
            elif self._disconnected is not None:
                # An application that asks for ever would hold the loop for ever.
                await _others_first()
                code, reason = self._disconnected
                return {"type": "websocket.disconnect", "code": code, "reason": reason}
            elif self._receiver is None or self._receiver.done():
                self._receiver = receiver = self.connection.runtime.loop.create_future()
                try:
                    data = await receiver
                except asyncio.CancelledError:
                    self._take_back(receiver)
                    raise
                if data is None:
                    continue
            else:
                await asyncio.wait((self._receiver,))  # another task's; it may be cancelled without us
                continue
            if type(data) is str:
                return {"type": "websocket.receive", "text": data}
            return {"type": "websocket.receive", "bytes": data}

    def _emptied(self) -> None:
        """The application has taken all that waited."""
        runtime = self.connection.runtime
        self._last_message = runtime.ticker.now  # it had no chance to answer before
        if self._parser is not None and self._parser.paused:
            # Read on, but from the loop: one read may hold thousands of messages, and others must get their turn.
            runtime.loop.call_soon(self._read_on, context=runtime.context)

    def _take_back(self, receiver: asyncio.Future[str | bytes | None]) -> None:
        """A waiting ``receive`` was cancelled: what it was given in the same moment goes to the next."""
        if self._receiver is receiver:
            self._receiver = None
        elif not receiver.cancelled() and (data := receiver.result()) is not None:
            self._inbox.insert(0, data)
            self._inbox_bytes += len(data)
            self._wake()

    def _wake(self) -> None:
        """Let the waiting ``receive`` look again."""
        receiver, self._receiver = self._receiver, None
        if receiver is not None and not receiver.done():
            receiver.set_result(None)

    # The transport

    def data_received(self, data: bytes) -> None:
        connection = self.connection
        connection.bytes_in += len(data)
        connection.last_read = connection.runtime.ticker.now
        parser = self._parser
        if parser is not None:
            try:
                parser.feed(data)
            except WebSocketError as error:
                self.violated(error)
        elif self.state is State.CONNECTING:
            # The client may send at once (RFC 6455 section 4.1 asks it not to); one read of it is kept.
            self._early += data
            connection.pause_reading()

    def _read_on(self) -> None:
        """Take what was held back, and let the client send again, as far as there is room."""
        parser, connection = self._parser, self.connection
        if parser is None:
            return
        if self._heartbeat is not None:
            self._heartbeat.excuse(connection.runtime.ticker.now)
        try:
            parser.resume()
        except WebSocketError as error:
            self.violated(error)
        self._last_message = connection.runtime.ticker.now
        if not parser.paused:
            connection.resume_reading()

    def message_received(self, data: str | bytes) -> None:
        """Called by the parser with each message."""
        if self.state is not _OPEN:
            return
        self.received += 1
        self._last_message = self.connection.last_read
        receiver = self._receiver
        if receiver is not None:
            # The usual case, without the detour through the inbox.
            self._receiver = None
            if not receiver.done():
                receiver.set_result(data)
                return
        inbox, settings = self._inbox, self.site.config.websocket
        inbox.append(data)
        self._inbox_bytes += len(data)
        if len(inbox) >= settings.queue or self._inbox_bytes >= settings.queue_bytes:
            assert self._parser is not None
            self._parser.paused = True
            self.connection.pause_reading()

    def ping_received(self, payload: bytes) -> None:
        """Called by the parser with each ping; the pong goes past all queued messages."""
        if self.state is not _OPEN:
            return
        if self.connection.blocked:
            # Only the latest is owed (RFC 6455 section 5.5.3): pings must not fill our memory with pongs.
            self._pong = payload
        else:
            self.connection.write(encode_pong(payload))

    def pong_received(self, payload: bytes) -> None:
        """Called by the parser with each pong."""
        heartbeat = self._heartbeat
        if heartbeat is not None and self.state is _OPEN:
            connection = self.connection
            heartbeat.pong(self.site.ticker.now)
            if self._pinged is not None:
                self._round_trip = round_trip = self.site.monotonic() - self._pinged
                self._pinged = None
                if self.site.meter is not None:
                    self.site.meter.pong(round_trip)
            connection.due.ping = moment = heartbeat.meeting()
            if moment < connection.looked_at:
                connection.runtime.wheel.sooner(connection, moment)

    def resume_writing(self) -> None:
        pong, self._pong = self._pong, None
        if pong is not None and self.state is _OPEN:
            self.connection.write(encode_pong(pong))
        self.connection.resume_writing()

    @abstractmethod
    def close_received(self, code: int, reason: str) -> None:
        """Called by the parser with the close frame."""

    @abstractmethod
    def violated(self, error: WebSocketError) -> None:
        """The client broke the protocol."""

    def _disconnect(self, code: int, reason: str) -> None:
        """From now on ``receive`` says that it is over, once it has given what came before."""
        if self._disconnected is None:
            self._disconnected = (code, reason)
            self._wake()

    # Settings of this WebSocket

    def _setting(self, name: str) -> Any:
        overrides = self._overrides
        if overrides is not None and name in overrides.websocket:
            return overrides.websocket[name]
        return getattr(self.site.config.websocket, name)

    @property
    def round_trip(self) -> float | None:
        """Seconds from the last answered ping to its pong; None before the first."""
        return self._round_trip

    @property
    def ping_interval(self) -> float | None:
        """Seconds of silence before a ping; None: it is not pinged."""
        return None if self._heartbeat is None else self._heartbeat.interval

    @property
    def life(self) -> Life:
        """What the heartbeat thinks of the client."""
        return self._heartbeat.life if self._heartbeat is not None else Life.NORMAL

    @property
    def draining(self) -> asyncio.Event:
        return self.site.drain

    @property
    def remaining(self) -> float | None:
        due = self.connection.due.ws_open
        return None if due == NEVER else max(0.0, due - self.connection.runtime.ticker.now)

    def expire(self, seconds: float | None, then: Callable[[], None]) -> None:
        if self._disconnected is None:
            self.on_expiry = then
            self.connection.arm("credential", seconds)

    def set_timeout(self, name: str, seconds: float | None) -> None:
        if name not in _TIMEOUTS:
            raise ValueError(f"a WebSocket has no timeout {name!r}; there are {', '.join(_TIMEOUTS)}")
        if seconds is not None and not seconds > 0:
            raise ValueError(f"timeout {name} must be above zero, not {seconds!r}")
        shared = self._overrides
        self._overrides = Overrides(websocket={**(shared.websocket if shared is not None else {}), name: seconds})
        if name == "idle" and self.state is _OPEN:
            self.connection.arm("ws_idle", seconds)

    def set_limit(self, name: str, value: int | None) -> None:
        raise ValueError(f"a WebSocket has no limit {name!r} of its own; see the [[routes]] of the configuration")


@types.coroutine
def _others_first() -> Generator[None, None, None]:
    """Go on in the next round of the loop."""
    yield
