"""A WebSocket as ASGI shows it: sending, heartbeat, the closing handshake."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Final

from sojourn.asgi.denial import Denial
from sojourn.asgi.site import CURRENT
from sojourn.asgi.websocket_inbound import State
from sojourn.asgi.websocket_upgrade import NO_SCOPE, WebSocketUpgrade
from sojourn.clock import NEVER
from sojourn.ending import REASONS, Ending, How, Phase, Who
from sojourn.errors import ApplicationError, ClientDisconnected, WebSocketError
from sojourn.events import ApplicationFailed
from sojourn.net.outbox import Outbox
from sojourn.policy.heartbeat import Beat, Heartbeat, Life
from sojourn.typing import Message
from sojourn.wire.websocket_frames import (
    BINARY,
    TEXT,
    encode_binary,
    encode_close,
    encode_ping,
    encode_text,
    frame_header,
    is_close_code,
)

if TYPE_CHECKING:
    from sojourn.asgi.attached import Attached
    from sojourn.asgi.http import HttpHandler
    from sojourn.asgi.site import Site
    from sojourn.net.connection import Connection
    from sojourn.wire.deflate import DeflateParams

__all__ = ["State", "WebSocketHandler"]

_OPEN: Final = State.OPEN
#: Ends that the application wanted: it may take its time afterwards.
_WANTED: Final = ("ws_closed_by_app", "upgrade_denied")
#: Told to the application when no close frame came (RFC 6455 section 7.1.5).
_ABNORMAL: Final = 1006
#: One for all: that any byte counts as life makes a payload to tell pings apart needless.
_PING: Final = encode_ping()
_BEAT_PING: Final = Beat.PING
_VIOLATIONS: Final = {1007: "ws_invalid_data", 1009: "ws_message_too_big"}


class WebSocketHandler(WebSocketUpgrade):
    """Speaks WebSocket on a connection, from the upgrade request to the end.

    Args:
        connection: The connection.
        site: What is served.
        http: The handler that read the request.
    """

    __slots__ = ("_attached", "_ending", "_ping_frame")

    protocol = "websocket"

    def __init__(self, connection: Connection, site: Site, http: HttpHandler) -> None:
        super().__init__(connection, site, http)
        #: Why our close frame was sent.
        self._ending: Ending | None = None
        self._attached: Attached | None = None
        self._ping_frame = _PING

    def attach(self, attached: Attached, beat: tuple[float, float, int] | None = None, ping: bytes = _PING) -> None:
        """Let a service write to it, and tell it what happens; one at a time, to the end.

        Args:
            attached: The service's side.
            beat: Its own heartbeat: interval, timeout and misses, as in ``[websocket]``; None keeps that of the server.
            ping: The frame that is sent as a ping; any byte from the client answers it.

        Raises:
            ApplicationError: It is not open, or something is attached already.
        """
        if self.state is not _OPEN or self._attached is not None:
            raise ApplicationError(f"a service can't be attached to a WebSocket that is {self.state.value}, or has one")
        self._attached = attached
        self._ping_frame = ping
        if beat is not None:
            connection = self.connection
            now = connection.runtime.ticker.now
            self._heartbeat = Heartbeat(*beat, now, random.random() / 2)
            connection.arm("ping", self._heartbeat.meeting() - now)

    @property
    def deflate_params(self) -> DeflateParams | None:
        """What frames may be compressed with and shared; None when each needs those before it, or none may be."""
        deflater = self._deflater
        return None if deflater is None or deflater.takeover else deflater.params

    # The application

    async def run(self) -> None:
        """Run the application: the whole life of the WebSocket's task."""
        CURRENT.set(self)
        try:
            await self.site.app(self.scope, self.receive, self.send)
            self._app_returned()
        except asyncio.CancelledError:
            if self._disconnected is None:
                self._app_raised(asyncio.CancelledError("the application cancelled its own task"))
            raise
        except GeneratorExit:
            raise  # the loop is gone, and with it everybody who could be told
        except BaseException as error:  # SystemExit too: a WebSocket does not end the server
            self._app_raised(error)
            if isinstance(error, KeyboardInterrupt):
                raise  # that is not the WebSocket's to end
        finally:
            self.task = None
            if self._reported:
                self.scope = NO_SCOPE  # as in ended()

    async def send(self, message: Message) -> None:
        """ASGI send.

        Raises:
            ClientDisconnected: The WebSocket has ended.
            ApplicationError: The message is not what ASGI allows at this point.

        Cancel: safe; a message that still waits for its turn is not sent, except with compression_takeover, where the
            messages behind it need it.
        """
        kind = message["type"]
        if kind != "websocket.send" or self.state is not _OPEN:
            await self._send_other(kind, message)
            return
        text = message.get("text")
        if text is not None:
            frame = encode_text(text) if self._deflater is None else self._deflated(TEXT, text.encode())
        else:
            data = message.get("bytes")
            if data is None:
                raise ApplicationError("websocket.send: neither text nor bytes")
            frame = encode_binary(data) if self._deflater is None else self._deflated(BINARY, data)
        connection = self.connection
        if connection.blocked:
            await self._send_queued(frame)
            return
        self.sent += 1
        # Connection.write, written out. An open WebSocket has a transport.
        connection.bytes_out += len(frame)
        connection.last_write = self._last_message = connection.runtime.ticker.now
        connection.transport.write(frame)  # type: ignore[union-attr]

    async def _send_other(self, kind: str, message: Message) -> None:
        state = self.state
        if self._disconnected is not None:
            if kind == "websocket.close":
                return  # both sides closed at once
            raise self._gone()
        if state is State.CONNECTING:
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
            await self._deny(self._denial, message)
            return
        elif state is _OPEN and kind == "websocket.close":
            self.close(
                message.get("code", 1000), message.get("reason") or "", Ending("ws_closed_by_app", Phase.CLOSING)
            )
            return
        raise ApplicationError(f"{kind!r} is not allowed while the WebSocket is {state.value}")

    def _gone(self) -> ClientDisconnected:
        ending = self._ending or self.connection.ending
        return ClientDisconnected(ending.reason if ending is not None else "ws_client_closed")

    def _deflated(self, opcode: int, payload: bytes) -> bytes:
        assert self._deflater is not None
        packed = self._deflater.deflate(payload)
        if packed is None:
            return frame_header(opcode, len(payload)) + payload
        return frame_header(opcode, len(packed), rsv1=True) + packed

    async def _send_queued(self, frame: bytes) -> None:
        """The client is behind: the message waits for its turn, and its sender with it."""
        connection = self.connection
        outbox = connection.outbox
        assert outbox is not None  # as long as the transport is blocked
        settings = self.site.config.websocket
        waiting = len(outbox.queue)
        if (
            settings.slow_consumer == "disconnect"
            and waiting
            and (waiting >= settings.queue or outbox.queued_bytes + len(frame) > settings.queue_bytes)
        ):
            self.close(1013, "too slow", Ending("slow_consumer", Phase.WEBSOCKET, None, "websocket.queue"))
            raise ClientDisconnected("slow_consumer")
        self._last_message = now = connection.runtime.ticker.now
        self.sent += 1
        written = outbox.enqueue(connection.runtime.loop, frame, now)
        connection.note_buffered()
        if self._deflater is not None and self._deflater.takeover:
            await asyncio.shield(written)
            return
        try:
            await written
        except asyncio.CancelledError:
            outbox.discard(written)
            raise

    # The client

    def pong_received(self, payload: bytes) -> None:
        awaited, doubted = self._pinged is not None, self.life is not Life.NORMAL
        super().pong_received(payload)
        if self._attached is not None:
            if awaited and self._pinged is None and self._round_trip is not None:
                self._attached.heard(self._round_trip)
            if doubted:
                self._attached.lives(self.life)

    def behind(self, outbox: Outbox, now: float) -> None:
        oldest, limit = outbox.oldest, self._setting("write")
        if self.state is _OPEN and oldest is not None and limit is not None and now - oldest >= limit:
            self.close(1013, "too slow", Ending("slow_consumer", Phase.WEBSOCKET, How.TIMEOUT, "websocket.write"))

    def close_received(self, code: int, reason: str) -> None:
        """Called by the parser with the close frame."""
        connection = self.connection
        connection.ws_received = code
        if self.state is State.CLOSING:
            assert self._ending is not None
            self._finish(self._ending)
            return
        ending = Ending(
            "ws_client_going_away" if code == 1001 else "ws_client_closed", Phase.WEBSOCKET, How.CLOSE_FRAME, reason
        )
        self._over(code, reason, ending)
        # The answer repeats the question (RFC 6455 section 5.5.1), also in that it has no code.
        connection.ws_sent = code
        connection.write(encode_close(code, reason))
        self._finish(ending)

    def violated(self, error: WebSocketError) -> None:
        connection = self.connection
        if connection.ending is not None:
            return
        if self.state is _OPEN:
            connection.ws_sent = error.code
            connection.write(encode_close(error.code, error.reason))
        self.state = State.CLOSED
        word = _VIOLATIONS.get(error.code, "ws_protocol_error")
        ending = self._ending or Ending(word, Phase.WEBSOCKET, None, error.reason)
        self._over(error.code, error.reason, ending)
        # The client may still be sending: let it read the close frame.
        connection.end(ending, linger=True)

    def eof_received(self) -> bool:
        if self.connection.ending is None:
            self.connection.end(self.cause_of_eof(How.FIN))
        return False

    def connection_lost(self, error: Exception | None) -> None:
        if self._ending is not None:
            # The closing handshake had begun: however the client took it, its cause is the cause.
            self.connection.end(self._ending)
        self.connection.lost(error)

    # The end

    def close(self, code: int, reason: str, ending: Ending) -> None:
        """Begin the closing handshake (RFC 6455 section 7.1.2); the client has ``websocket.close`` seconds to answer.

        Raises:
            ApplicationError: The code can't be sent.
        """
        frame = encode_close(code, reason)
        connection = self.connection
        if self.state is State.CONNECTING:
            self._refuse(503, ending)
            return
        if self.state is not _OPEN:
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
        self._over(code, reason, ending)
        if self._parser is not None and self._parser.paused:
            # The answer is behind what waits; none of it is delivered any more.
            self._inbox.clear()
            self._inbox_bytes = 0
            self._read_on()

    def dismiss(self, reason: str, detail: str, challenge: bytes = b"") -> None:
        row = REASONS[reason]
        ending = Ending(reason, self.connection.phase, None, detail)
        if self.state is State.CONNECTING or self.state is State.DENYING:
            self._refuse(row.status or 403, ending, ((b"www-authenticate", challenge),) if challenge else ())
        else:
            self.close(row.ws_code or 1008, detail, ending)

    def _finish(self, ending: Ending) -> None:
        """Both close frames are through: the server closes the connection (RFC 6455 section 7.1.1)."""
        self.state = State.CLOSED
        self.connection.end(ending)

    def _over(self, code: int, reason: str, ending: Ending) -> None:
        """The application is told, and unless it wanted this end it has ``disconnect_grace`` seconds left."""
        if self._disconnected is not None:
            return
        if self._attached is not None:
            self._attached.ended()
            self.sent += self._attached.sent
        self._disconnect(code, reason)
        if ending.reason not in _WANTED:
            self.cancel(ending.reason, self.connection.runtime.config.timeouts.disconnect_grace)

    def cancel(self, cause: str, grace: float = 0.0) -> None:
        """Cancel the application, by the ladder, after ``grace`` seconds."""
        if self.task is not None:
            self.site.work.cancel(self.task, cause, self._owner, grace=grace)

    @property
    def _owner(self) -> str:
        """What the task belongs to, for reports."""
        return f"connection {self.connection.id} WEBSOCKET {self.scope['path']}"

    def _app_returned(self) -> None:
        if self.state is _OPEN:
            if self.site.draining:
                self.begin_drain()  # it has heard of the drain, and its turn had not come
            else:
                self.close(1000, "", Ending("ws_closed_by_app", Phase.CLOSING))
        elif self._disconnected is None:
            error = ApplicationError("the application returned without an answer to the handshake")
            self._app_failed("app_returned_without_response", error)

    def _app_raised(self, error: BaseException) -> None:
        if self._disconnected is not None and _says_gone(error):
            return
        if self.state is State.CONNECTING or self.state is State.DENYING:
            word = "app_error_before_head"
        else:
            word = "error_after_starting_response"
        self._app_failed("invalid_response" if isinstance(error, ApplicationError) else word, error)

    def _app_failed(self, word: str, error: BaseException) -> None:
        self.connection.runtime.bus.emit(
            ApplicationFailed(self.connection.id, "WEBSOCKET", self.scope["path"], word, error)
        )
        if self.state is State.CONNECTING or self.state is State.DENYING:
            self._refuse(500, Ending(word, Phase.UPGRADE, None, str(error)))
        else:
            self.close(1011, "", Ending(word, Phase.WEBSOCKET, None, str(error)))

    def ending(self, ending: Ending) -> None:
        connection = self.connection
        code = ending.row.ws_code
        if self.state is _OPEN and code is not None and is_close_code(code):
            # Ended from elsewhere, without a closing handshake: the client is told as far as it still can be.
            connection.ws_sent = code
            connection.write(encode_close(code))
        self._shut(ending)

    def ended(self, ending: Ending) -> None:
        self._shut(ending)
        self._report(ending)
        if self.task is not None:
            self.site.work.own(self.task, self._owner)
        else:
            # The scope holds the handler: without this each WebSocket would be garbage for the collector to find.
            self.scope = NO_SCOPE

    def _shut(self, ending: Ending) -> None:
        self.state = State.CLOSED
        self._parser = self._heartbeat = None
        self._over(self.connection.ws_sent or _ABNORMAL, "", ending)

    def cause_of_eof(self, how: How) -> Ending:
        if self._ending is not None:
            return self._ending
        if self.state is State.CONNECTING or self.state is State.DENYING:
            return Ending("client_closed_request", Phase.UPGRADE, how)
        inside = self._parser is not None and self._parser.buffered
        return Ending("ws_eof_no_close", Phase.WEBSOCKET, How.EOF_IN_FRAME if inside else how)

    def begin_drain(self) -> None:
        """Tell the client to go: with 1012 it finds a server again, with 1001 it does not."""
        code, reason = (1012, "service restart") if self.site.config.drain.coming_back else (1001, "going away")
        if self._attached is not None and self.state is _OPEN:
            self._attached.goodbye(code, reason)
        self.close(code, reason, Ending("drain_goodbye", Phase.WEBSOCKET))

    def deadline_passed(self, slot: str, now: float) -> None:
        connection, due = self.connection, self.connection.due
        match slot:
            case "ping":
                self._beat(now)
            case "ws_open":
                ending = Ending("handshake_timeout", Phase.UPGRADE, How.TIMEOUT, "websocket.open")
                self._refuse(504, ending)
                self.cancel(ending.reason)
            case "ws_idle":
                self._check_idle(now)
            case "ws_close":
                connection.end(self._unanswered(), abort=True)
            case "credential":
                due.credential = NEVER
                if self._disconnected is None:
                    self.on_expiry()
            case "lifetime":
                due.lifetime = NEVER
                self.close(1001, "lifetime", Ending("max_connection_duration", Phase.WEBSOCKET))
            case _:
                setattr(due, slot, NEVER)

    def length_of(self, deadline: str) -> float:
        overrides = self._overrides
        own = overrides.websocket.get(deadline.removeprefix("websocket.")) if overrides is not None else None
        return super().length_of(deadline) if own is None else own

    def _check_idle(self, now: float) -> None:
        idle = self._setting("idle")
        # Lazily: a message moves nothing; what it did is seen here. Messages that wait for the application count too.
        since = now if self._inbox else self._last_message
        if self._attached is not None:
            since = max(since, self._attached.last_message)
        self.connection.due.ws_idle = due = NEVER if idle is None else since + idle
        if due <= now:
            self.close(1001, "idle", Ending("ws_idle", Phase.WEBSOCKET, How.TIMEOUT, "websocket.idle"))

    def _unanswered(self) -> Ending:
        """The client did not answer our close frame: that is the cause only when nothing worse was."""
        before = self._ending
        if before is None or before.who is Who.NONE:
            return Ending("ws_close_timeout", Phase.CLOSING, How.TIMEOUT, "websocket.close")
        return before

    def _beat(self, now: float) -> None:
        connection, heartbeat = self.connection, self._heartbeat
        if heartbeat is None:
            connection.due.ping = NEVER
            return
        if connection.reading_paused:
            # Its bytes wait in the kernel because the application does not take them: no reason to doubt the client.
            # The ping goes out all the same, because the kernel notices by it when nobody is there any more.
            connection.write(self._ping_frame)
            heartbeat.excuse(now)
        else:
            # What the kernel of a client that is behind acknowledges is life too: the ping stands behind it in line.
            outbox = connection.outbox
            last = connection.last_read if outbox is None else max(connection.last_read, outbox.progress.last_progress)
            missed = heartbeat.missed
            beat = heartbeat.look(now, last)
            if heartbeat.missed > missed and self.site.meter is not None:
                self.site.meter.pong_missed()
            if self._attached is not None and heartbeat.missed != missed:
                self._attached.lives(heartbeat.life)
            if beat is _BEAT_PING:
                self._pinged = self.site.monotonic()
                connection.write(self._ping_frame)
            elif beat is Beat.END:
                ending = Ending("pong_timeout", Phase.WEBSOCKET, How.TIMEOUT, "websocket.ping_timeout")
                connection.end(ending, abort=True)
                return
        connection.due.ping = heartbeat.meeting()


def _says_gone(error: BaseException) -> bool:
    """Whether an error says no more than that the client left: no failure of the application.

    Frameworks raise an error of their own for it, by this name in all that are known, and task groups wrap it.
    """
    if isinstance(error, BaseExceptionGroup):
        return all(map(_says_gone, error.exceptions))
    return isinstance(error, ClientDisconnected) or type(error).__name__ == "WebSocketDisconnect"
