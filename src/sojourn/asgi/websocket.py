"""A WebSocket as ASGI shows it: the opening handshake, messages, heartbeat, the closing handshake."""

from __future__ import annotations

import asyncio
import random
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from sojourn.asgi.control import RequestControl
from sojourn.asgi.denial import Denial
from sojourn.asgi.overrides import Overrides
from sojourn.asgi.problem import problem
from sojourn.asgi.scope import build_websocket_scope
from sojourn.asgi.site import CURRENT
from sojourn.clock import NEVER
from sojourn.ending import Ending, How, Phase
from sojourn.errors import ApplicationError, ClientDisconnected, HandshakeError, WebSocketError
from sojourn.events import ApplicationFailed, RequestEnded, WebSocketOpened
from sojourn.net.connection import Handler
from sojourn.net.outbox import Outbox
from sojourn.policy.heartbeat import Beat, Heartbeat, Life
from sojourn.typing import Message
from sojourn.wire.deflate import Deflater, Inflater, negotiate
from sojourn.wire.websocket import FrameParser
from sojourn.wire.websocket_frames import (
    encode_binary,
    encode_close,
    encode_ping,
    encode_pong,
    encode_text,
    frame_header,
)
from sojourn.wire.websocket_handshake import Handshake, accept_response, check_handshake, origin_allowed

if TYPE_CHECKING:
    from sojourn.asgi.http import HttpHandler
    from sojourn.asgi.site import Site
    from sojourn.net.connection import Connection
    from sojourn.wire.http1.request import RequestParser

__all__ = ["State", "WebSocketHandler"]


class State(Enum):
    """Where a WebSocket is in its life."""

    CONNECTING = "connecting"  # the application has not answered the handshake
    DENYING = "denying"  # it answers with an HTTP response
    OPEN = "open"
    CLOSING = "closing"  # our close frame is sent, the client's is awaited
    CLOSED = "closed"


_CONNECTING, _OPEN = State.CONNECTING, State.OPEN
#: Above this, a frame's payload is written beside its header instead of being copied behind it.
_LARGE: Final = 64 * 1024
_TEXT, _BINARY = 0x1, 0x2
#: Headers of the handshake that are the server's (ASGI, websocket.accept).
_SERVERS_HEADERS: Final = frozenset(
    [b"connection", b"upgrade", b"sec-websocket-accept", b"sec-websocket-extensions", b"sec-websocket-protocol"]
)
_TIMEOUTS: Final = ("idle", "write")


class WebSocketHandler(Handler, RequestControl):
    """Speaks WebSocket on a connection, from the upgrade request to the end.

    Args:
        connection: The connection.
        site: What is served.
        http: The handler that read the request.
    """

    __slots__ = (
        "_began",
        "_deflater",
        "_denial",
        "_disconnected",
        "_early",
        "_ending",
        "_handshake",
        "_heartbeat",
        "_inbox",
        "_inbox_bytes",
        "_last_message",
        "_overrides",
        "_parser",
        "_received",
        "_told_connect",
        "_waiters",
        "scope",
        "site",
        "state",
        "target",
        "task",
    )

    protocol = "websocket"

    scope: dict[str, Any]
    _handshake: Handshake

    def __init__(self, connection: Connection, site: Site, http: HttpHandler) -> None:
        Handler.__init__(self, connection)
        self.site = site
        self.state = _CONNECTING
        self.task: asyncio.Task[None] | None = None
        #: Bytes that came before the application accepted.
        self._early: bytes = http.take_rest()
        self._parser: FrameParser | None = None
        self._deflater: Deflater | None = None
        self._heartbeat: Heartbeat | None = None
        self._denial: Denial | None = None
        self._inbox: list[str | bytes] = []
        self._inbox_bytes = 0
        self._waiters: list[asyncio.Future[None]] | None = None
        self._told_connect = False
        #: Code and reason that the application is told; None while the WebSocket lives.
        self._disconnected: tuple[int, str] | None = None
        #: Why our close frame was sent.
        self._ending: Ending | None = None
        self._overrides: Overrides | None = None
        self._began = site.monotonic()
        self._last_message = connection.runtime.ticker.now
        self._received = 0

    # The opening handshake

    def open(self, head: RequestParser) -> None:
        """Answer an upgrade request, or let the application answer it.

        Raises:
            ProtocolError: The request target is not acceptable.
        """
        connection, site = self.connection, self.site
        connection.phase = Phase.UPGRADE
        self.target = head.target
        method = head.method.decode("ascii")
        self.scope = scope = build_websocket_scope(site, connection, head, self)
        if site.routes is not None:
            self._overrides = site.routes.match("GET", scope["path"])
        try:
            self._handshake = handshake = check_handshake(method, "1.0" if head.http10 else "1.1", head.headers)
        except HandshakeError as error:
            self._refuse(error.status, error.reason, error.detail, error.headers)
            return
        scope["subprotocols"] = list(handshake.subprotocols)
        if not origin_allowed(handshake.origin, self._setting("origins"), handshake.host):
            self._refuse(403, "origin_not_allowed", "this origin may not connect")
            return
        if site.draining:
            self._refuse(503, "drain_goodbye", "the server is stopping")
            return
        if self._early:
            connection.pause_reading()
        connection.arm("ws_open", self._setting("open"))
        self.task = site.work.start(self.run())

    def _refuse(self, status: int, reason: str, detail: str, headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
        """Answer the handshake with an error of the server's, and end."""
        self.state = State.CLOSED
        if status == 503:
            headers = (*headers, (b"retry-after", b"%d" % self.site.config.limits.retry_after))
        fields, body = problem(status, reason, detail, headers)
        data = self.site.renderer.render(status, fields).data
        # A 426 carries Connection: Upgrade by RFC 9110 section 15.5.22; the close is said beside it.
        connection_line = b"connection: Upgrade, close\r\n\r\n" if status == 426 else b"connection: close\r\n\r\n"
        self.connection.write(b"".join((data, self.connection.runtime.ticker.date, connection_line, body)))
        self._report(Ending(reason, Phase.UPGRADE, None, detail), status)
        self.connection.end(Ending(reason, Phase.UPGRADE, None, detail), linger=True)

    def _accept(self, message: Message) -> None:
        connection, site = self.connection, self.site
        subprotocol = message.get("subprotocol")
        if subprotocol is not None and subprotocol not in self._handshake.subprotocols:
            raise ApplicationError(f"websocket.accept: the client did not offer subprotocol {subprotocol!r}")
        headers = [(bytes(name), bytes(value)) for name, value in message.get("headers", ())]
        for name, _ in headers:
            if name.lower() in _SERVERS_HEADERS:
                raise ApplicationError(f"websocket.accept: header {name.decode('latin-1')} is the server's")
        site.renderer.render(200, headers)  # the same checks as for a response
        params = inflater = None
        if self._setting("compression"):
            params = negotiate(self._handshake.extensions, site.deflate)
        if params is not None:
            if params.client_takeover or params.server_takeover:
                inflater, self._deflater = Inflater(params), Deflater(params, site.deflate)
            else:
                inflater, self._deflater = site.deflaters(params)
        connection.write(
            accept_response(self._handshake.key, subprotocol, params.header() if params else None, headers)
        )
        self.state = _OPEN
        connection.phase = Phase.WEBSOCKET
        connection.due.ws_open = NEVER
        self._parser = FrameParser(
            self,
            max_message=self._setting("message"),
            max_inflate_ratio=self._setting("inflate_ratio"),
            deflate=inflater,
        )
        now = connection.runtime.ticker.now
        self._last_message = now
        connection.arm("ws_idle", self._setting("idle"))
        interval = self._setting("ping_interval")
        if interval is not None:
            self._heartbeat = Heartbeat(
                interval, self._setting("ping_timeout"), self._setting("ping_misses"), now, random.random() / 2
            )
            connection.arm("ping", self._heartbeat.due - now)
        if WebSocketOpened in site.observers:
            connection.runtime.bus.emit(WebSocketOpened(connection.id, connection.peer_name, self.target, subprotocol))
        early, self._early = self._early, b""
        if early:
            self._feed(early)
        if self.state is _OPEN and not self._parser.paused:
            connection.resume_reading()

    # The application

    async def run(self) -> None:
        """Run the application: the whole life of the WebSocket's task."""
        CURRENT.set(self)
        try:
            await self.site.app(self.scope, self.receive, self.send)
            self._app_returned()
        except Exception as error:
            self._app_raised(error)
        except asyncio.CancelledError:
            if self._disconnected is None:
                self._app_raised(asyncio.CancelledError("the application cancelled its own task"))
            raise

    async def receive(self) -> Message:
        """ASGI receive.

        Cancel: safe; no message is lost.
        """
        if not self._told_connect:
            self._told_connect = True
            return {"type": "websocket.connect"}
        while True:
            inbox = self._inbox
            if inbox:
                data = inbox.pop(0)
                self._inbox_bytes -= len(data)
                parser = self._parser
                if parser is not None and parser.paused and len(inbox) * 2 <= self.site.config.websocket.queue:
                    self._read_on(parser)
                if type(data) is str:
                    return {"type": "websocket.receive", "text": data}
                return {"type": "websocket.receive", "bytes": data}
            if self._disconnected is not None:
                code, reason = self._disconnected
                return {"type": "websocket.disconnect", "code": code, "reason": reason}
            waiter = self.connection.runtime.loop.create_future()
            if self._waiters is None:
                self._waiters = [waiter]
            else:
                self._waiters.append(waiter)
            await waiter

    async def send(self, message: Message) -> None:
        """ASGI send.

        Raises:
            ClientDisconnected: The WebSocket has ended.
            ApplicationError: The message is not what ASGI allows at this point.

        Cancel: safe; a message that still waits for its turn is not sent.
        """
        kind = message["type"]
        if kind == "websocket.send" and self.state is _OPEN:
            text = message.get("text")
            if text is not None:
                frame = encode_text(text) if self._deflater is None else self._deflated(_TEXT, text.encode())
            else:
                data = message.get("bytes")
                if data is None:
                    raise ApplicationError("websocket.send: neither text nor bytes")
                frame = encode_binary(data) if self._deflater is None else self._deflated(_BINARY, data)
            connection = self.connection
            if connection.blocked or connection.transport is None:
                await self._send_queued(frame)
                return
            # Connection.write, written out.
            connection.bytes_out += len(frame)
            connection.last_write = self._last_message = connection.runtime.ticker.now
            connection.transport.write(frame)
            return
        await self._send_other(kind, message)

    async def _send_other(self, kind: str, message: Message) -> None:
        state = self.state
        if self._disconnected is not None or self.connection.ending is not None:
            if kind == "websocket.close":
                return  # both sides closed at once
            raise ClientDisconnected(self.connection.ending.reason if self.connection.ending else "ws_client_closed")
        if state is _CONNECTING:
            if kind == "websocket.accept":
                self._accept(message)
                return
            if kind == "websocket.close":
                self._deny_plainly()
                return
            if kind == "websocket.http.response.start":
                self._denial = Denial(self.site.renderer, message["status"], message.get("headers", ()))
                self.state = State.DENYING
                return
        elif state is State.DENYING and kind == "websocket.http.response.body":
            assert self._denial is not None
            more = message.get("more_body", False)
            self.connection.write(
                self._denial.body(message.get("body", b""), more, self.connection.runtime.ticker.date)
            )
            if more:
                await self.connection.writable()
            else:
                self._denied(self._denial.status)
            return
        elif state is _OPEN and kind == "websocket.close":
            self.close(
                message.get("code", 1000), message.get("reason") or "", Ending("ws_closed_by_app", Phase.CLOSING)
            )
            return
        raise ApplicationError(f"{kind!r} is not allowed while the WebSocket is {state.value}")

    def _deflated(self, opcode: int, payload: bytes) -> bytes:
        assert self._deflater is not None
        packed = self._deflater.deflate(payload)
        if packed is None:
            return frame_header(opcode, len(payload)) + payload
        return frame_header(opcode, len(packed), rsv1=True) + packed

    async def _send_queued(self, frame: bytes) -> None:
        """The client is behind: the message waits for its turn, within the bounds of the queue."""
        connection = self.connection
        outbox = connection.outbox
        if connection.transport is None or connection.ending is not None or outbox is None:
            raise ClientDisconnected(connection.ending.reason if connection.ending else "ws_eof_no_close")
        settings = self.site.config.websocket
        full = len(outbox.queue) >= settings.queue or (
            outbox.queue and outbox.queued_bytes + len(frame) > settings.queue_bytes
        )
        if full:
            if settings.slow_consumer == "disconnect":
                self.close(1013, "too slow", Ending("slow_consumer", Phase.WEBSOCKET, How.TIMEOUT, "queue"))
                raise ClientDisconnected("slow_consumer")
            while full and connection.outbox is outbox:
                await connection.writable()
                full = len(outbox.queue) >= settings.queue
        self._last_message = connection.runtime.ticker.now
        if connection.outbox is outbox and connection.blocked:
            await outbox.enqueue(connection.runtime.loop, frame, self._last_message)
        else:
            connection.write(frame)

    def behind(self, outbox: Outbox, now: float) -> None:
        oldest, limit = outbox.oldest, self._setting("write")
        if self.state is _OPEN and oldest is not None and limit is not None and now - oldest >= limit:
            self.close(1013, "too slow", Ending("slow_consumer", Phase.WEBSOCKET, How.TIMEOUT, "write"))

    # What the client sends

    def data_received(self, data: bytes) -> None:
        connection = self.connection
        connection.bytes_in += len(data)
        connection.last_read = connection.runtime.ticker.now
        parser = self._parser
        if parser is not None and connection.ending is None:
            try:
                parser.feed(data)
            except WebSocketError as error:
                self._violated(error)
        elif self.state is _CONNECTING:
            self._early += data
            connection.pause_reading()

    def _feed(self, data: bytes) -> None:
        assert self._parser is not None
        try:
            self._parser.feed(data)
        except WebSocketError as error:
            self._violated(error)

    def _read_on(self, parser: FrameParser) -> None:
        try:
            parser.resume()
        except WebSocketError as error:
            self._violated(error)
        if not parser.paused:
            self.connection.resume_reading()

    def message_received(self, data: str | bytes) -> None:
        """Called by the parser with each message."""
        if self.state is not _OPEN:
            return
        self._received += 1
        self._last_message = self.connection.last_read
        inbox = self._inbox
        inbox.append(data)
        self._inbox_bytes += len(data)
        waiters = self._waiters
        if waiters is not None:
            self._waiters = None
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)
        elif (
            len(inbox) >= self.site.config.websocket.queue or self._inbox_bytes > self.site.config.websocket.queue_bytes
        ):
            assert self._parser is not None
            self._parser.paused = True
            self.connection.pause_reading()

    def ping_received(self, payload: bytes) -> None:
        """Called by the parser with each ping; the pong goes past all queued messages."""
        if self.state is _OPEN:
            self.connection.write(encode_pong(payload))

    def pong_received(self, payload: bytes) -> None:
        """Called by the parser with each pong."""
        if self._heartbeat is not None:
            self._heartbeat.pong(self.connection.runtime.ticker.now)

    def close_received(self, code: int, reason: str) -> None:
        """Called by the parser with the close frame."""
        connection = self.connection
        connection.ws_received = code
        if self.state is State.CLOSING:
            assert self._ending is not None
            self._finish(self._ending)
            return
        self._disconnect(code, reason)
        self.state = State.CLOSED
        connection.ws_sent = 1000 if code == 1005 else code
        connection.write(encode_close(connection.ws_sent))
        word = "ws_client_going_away" if code == 1001 else "ws_client_closed"
        self._finish(Ending(word, Phase.WEBSOCKET, How.CLOSE_FRAME, reason))

    def eof_received(self) -> bool:
        if self.connection.ending is None:
            self.connection.end(self._ending or self.cause_of_eof(How.FIN))
        return False

    def _violated(self, error: WebSocketError) -> None:
        word = {1007: "ws_invalid_data", 1009: "ws_message_too_big"}.get(error.code, "ws_protocol_error")
        if self.connection.ending is not None:
            return
        if self.state is _OPEN:
            self.connection.ws_sent = error.code
            self.connection.write(encode_close(error.code, error.reason))
        self._disconnect(error.code, error.reason)
        self.state = State.CLOSED
        # The client may still be sending: let it read the close frame.
        self.connection.end(self._ending or Ending(word, Phase.WEBSOCKET, None, error.reason), linger=True)

    # The end

    def close(self, code: int, reason: str, ending: Ending) -> None:
        """Begin the closing handshake (RFC 6455 section 7.1.2); the client has ``websocket.close`` seconds to answer.

        Raises:
            ApplicationError: The code can't be sent.
        """
        frame = encode_close(code, reason)
        connection = self.connection
        if self.state is _CONNECTING:
            self._refuse(503, ending.reason, ending.row.advice)
            return
        if self.state is not _OPEN or connection.ending is not None:
            return
        self.state = State.CLOSING
        self._ending = ending
        connection.phase = Phase.CLOSING
        connection.ws_sent = code
        connection.write(frame)  # past all queued messages
        if connection.outbox is not None:
            connection.outbox.wake(ClientDisconnected(ending.reason))
        if ending.how is How.TIMEOUT:
            connection.missed(ending)
        connection.due.ping = connection.due.ws_idle = NEVER
        connection.arm("ws_close", self._setting("close"))
        self._disconnect(code, reason)
        if self._parser is not None and self._parser.paused:
            self._inbox.clear()
            self._read_on(self._parser)

    def _finish(self, ending: Ending) -> None:
        """Both close frames are through: the server closes the connection (RFC 6455 section 7.1.1)."""
        self.state = State.CLOSED
        self.connection.end(ending)

    def _disconnect(self, code: int, reason: str) -> None:
        """Tell the application; after ``disconnect_grace`` its task is cancelled."""
        if self._disconnected is not None:
            return
        self._disconnected = (code, reason)
        waiters, self._waiters = self._waiters, None
        for waiter in waiters or ():
            if not waiter.done():
                waiter.set_result(None)
        if self.task is not None and not self.task.done():
            runtime = self.connection.runtime
            runtime.ticker.call_later(runtime.config.timeouts.disconnect_grace, self._cancel)

    def _cancel(self) -> None:
        ending = self.connection.ending or self._ending
        self.cancel(ending.reason if ending is not None else "ws_client_closed")

    def cancel(self, cause: str) -> None:
        """Cancel the application, by the ladder."""
        if self.task is not None and not self.task.done():
            self.site.work.cancel(self.task, cause, f"connection {self.connection.id} WEBSOCKET {self.scope['path']}")

    def _app_returned(self) -> None:
        if self.state is _OPEN:
            self.close(1000, "", Ending("ws_closed_by_app", Phase.CLOSING))
        elif self.state in (_CONNECTING, State.DENYING) and self.connection.ending is None:
            self._app_failed(ApplicationError("the application returned without an answer to the handshake"))

    def _app_raised(self, error: BaseException) -> None:
        if isinstance(error, ClientDisconnected) and self._disconnected is not None:
            return
        if self.connection.ending is not None and self.connection.ending.who.value != "-":
            return
        self._app_failed(error)

    def _app_failed(self, error: BaseException) -> None:
        word = "invalid_response" if isinstance(error, ApplicationError) else "error_after_starting_response"
        if self.state is _CONNECTING:
            word = "app_error_before_head"
        self.connection.runtime.bus.emit(
            ApplicationFailed(self.connection.id, "WEBSOCKET", self.scope["path"], word, error)
        )
        if self.state is _CONNECTING:
            ending = Ending(word, Phase.UPGRADE, None, str(error))
            self._refuse(500, word, ending.row.advice)
        elif self.state is State.DENYING:
            self.connection.end(Ending(word, Phase.UPGRADE, How.LOCAL_ABORT, str(error)), abort=True)
        else:
            self.close(1011, "", Ending(word, Phase.WEBSOCKET, None, str(error)))

    def _deny_plainly(self) -> None:
        """Closed before it was accepted: 403 (ASGI, websocket.close)."""
        self.connection.write(Denial(self.site.renderer, 403, ()).body(b"", False, self.connection.runtime.ticker.date))
        self._denied(403)

    def _denied(self, status: int) -> None:
        self.state = State.CLOSED
        ending = Ending("upgrade_denied", Phase.UPGRADE, How.LOCAL_FIN)
        self._report(ending, status)
        self._disconnect(1006, "")
        self.connection.end(ending, linger=True)

    def deadline_passed(self, slot: str, now: float) -> None:
        connection, due = self.connection, self.connection.due
        match slot:
            case "ws_open":
                due.ws_open = NEVER
                ending = Ending("handshake_timeout", Phase.UPGRADE, How.TIMEOUT, "websocket.open")
                connection.missed(ending)
                self._refuse(504, ending.reason, ending.row.advice)
                self.cancel(ending.reason)
            case "ping":
                self._beat(now)
            case "ws_idle":
                idle = self._setting("idle")
                due.ws_idle = NEVER if idle is None else self._last_message + idle
                if due.ws_idle <= now:
                    due.ws_idle = NEVER
                    self.close(1001, "idle", Ending("ws_idle", Phase.WEBSOCKET, How.TIMEOUT, "websocket.idle"))
            case "ws_close":
                due.ws_close = NEVER
                connection.end(self._unanswered(), abort=True)
            case "lifetime":
                due.lifetime = NEVER
                self.close(1001, "lifetime", Ending("max_connection_duration", Phase.WEBSOCKET))
            case _:
                setattr(due, slot, NEVER)

    def _unanswered(self) -> Ending:
        """The client did not answer our close frame: that is the cause only when nothing worse was."""
        before = self._ending
        if before is None or before.reason in ("ws_closed_by_app", "max_connection_duration"):
            return Ending("ws_close_timeout", Phase.CLOSING, How.TIMEOUT, "websocket.close")
        return before

    def _beat(self, now: float) -> None:
        connection, heartbeat = self.connection, self._heartbeat
        if heartbeat is None or self.state is not _OPEN:
            connection.due.ping = NEVER
            return
        if connection.reading_paused:
            # Its bytes wait in the kernel because the application does not take them: no reason to doubt the client.
            connection.due.ping = now + self._setting("ping_interval")
            return
        match heartbeat.look(now, connection.last_read):
            case Beat.PING:
                connection.write(encode_ping())
            case Beat.END:
                self._disconnect(1006, "")
                self.state = State.CLOSED
                connection.end(Ending("pong_timeout", Phase.WEBSOCKET, How.TIMEOUT, "websocket.ping"), abort=True)
                return
            case Beat.NOTHING:
                pass
        connection.due.ping = heartbeat.due

    def cause_of_eof(self, how: How) -> Ending:
        if self.state in (_CONNECTING, State.DENYING):
            return Ending("client_closed_request", Phase.UPGRADE, how)
        if self._ending is not None:
            return self._ending
        inside = self._parser is not None and self._parser.buffered
        return Ending("ws_eof_no_close", Phase.WEBSOCKET, How.EOF_IN_FRAME if inside else how)

    def ending(self, ending: Ending) -> None:
        self._disconnect(1006 if self.connection.ws_sent is None else self.connection.ws_sent, "")

    def ended(self, ending: Ending) -> None:
        self._disconnect(1006, "")
        opened = self._parser is not None
        self.state = State.CLOSED
        if opened or ending.reason == "client_closed_request":
            self._report(ending, 101 if opened else 499)
        self._parser = None
        self._inbox_bytes = 0

    def begin_drain(self) -> None:
        """Tell the client to come back to another server."""
        self.close(1012, "service restart", Ending("drain_goodbye", Phase.WEBSOCKET))

    def _report(self, ending: Ending, status: int) -> None:
        if RequestEnded not in self.site.observers:
            return
        connection = self.connection
        headers = dict(self.scope["headers"])
        connection.runtime.bus.emit(
            RequestEnded(
                connection.id,
                connection.peer_name,
                "WEBSOCKET",
                self.target,
                "1.1",
                status,
                ending,
                self.site.monotonic() - self._began,
                connection.bytes_in,
                connection.bytes_out,
                headers.get(b"user-agent", b""),
                headers.get(b"referer", b""),
            )
        )

    # Settings

    def _setting(self, name: str) -> Any:
        overrides = self._overrides
        if overrides is not None and name in overrides.websocket:
            return overrides.websocket[name]
        return getattr(self.site.config.websocket, name)

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
