"""The opening handshake of a WebSocket: accepted or denied by the application, refused by the server."""

from __future__ import annotations

import asyncio
import random
from abc import abstractmethod
from typing import TYPE_CHECKING, Any, Final

from sojourn.asgi.denial import Denial, refusal
from sojourn.asgi.scope import build_websocket_scope, route_of
from sojourn.asgi.websocket_inbound import State, WebSocketInbound
from sojourn.clock import NEVER
from sojourn.ending import Ending, How, Phase
from sojourn.errors import ApplicationError, HandshakeError, WebSocketError
from sojourn.events import RequestEnded, WebSocketOpened
from sojourn.policy.heartbeat import Heartbeat
from sojourn.typing import Message
from sojourn.wire.deflate import Deflater, Inflater, negotiate
from sojourn.wire.websocket import FrameParser
from sojourn.wire.websocket_handshake import Handshake, accept_response, check_handshake, origin_allowed

if TYPE_CHECKING:
    from sojourn.asgi.http import HttpHandler
    from sojourn.asgi.site import Site
    from sojourn.net.connection import Connection
    from sojourn.wire.http1.parser import RequestParser

__all__ = ["NO_SCOPE", "WebSocketUpgrade"]

#: Status of a handshake that was accepted (RFC 6455 section 4.2.2).
_SWITCHING: Final = 101
#: In place of the scope before there is one, and when it is not needed any more.
NO_SCOPE: Final[dict[str, Any]] = {}
#: Headers of the 101 that are the server's (ASGI, websocket.accept), and those it can't have (RFC 9110 section 8.6).
_SERVERS_HEADERS: Final = frozenset(
    b"connection upgrade sec-websocket-accept sec-websocket-extensions sec-websocket-protocol content-length "
    b"transfer-encoding".split()
)


class WebSocketUpgrade(WebSocketInbound):
    """From the upgrade request to the answer.

    Args:
        connection: The connection.
        site: What is served.
        http: The handler that read the request.
    """

    __slots__ = (
        "_began",
        "_deflater",
        "_denial",
        "_handshake",
        "_reported",
        "_status",
        "scope",
        "target",
        "task",
        "trace_id",
    )

    _handshake: Handshake

    def __init__(self, connection: Connection, site: Site, http: HttpHandler) -> None:
        super().__init__(connection, site, http.take_rest())
        self.scope = NO_SCOPE
        self.target = b""
        self.task: asyncio.Task[None] | None = None
        self._deflater: Deflater | None = None
        self._denial: Denial | None = None
        self._began = site.monotonic()
        #: Status of the answer to the handshake; 0 before it.
        self._status = 0
        self._reported = False
        self.trace_id = ""

    @abstractmethod
    async def run(self) -> None:
        """Run the application: the whole life of the WebSocket's task."""

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
            self._refuse(error.status, Ending(error.reason, Phase.UPGRADE, None, error.detail), error.headers)
            return
        scope["subprotocols"] = list(handshake.subprotocols)
        if not origin_allowed(handshake.origin, self._setting("origins"), handshake.host):
            self._refuse(403, Ending("origin_not_allowed", Phase.UPGRADE, None, "this origin may not connect"))
            return
        if site.draining:
            self._refuse(503, Ending("drain_goodbye", Phase.UPGRADE))
            return
        if site.admission is not None and site.admission.no_streams:
            self._refuse(503, Ending("shed", Phase.UPGRADE, None, "no new streams under pressure"))
            return
        if self._early:
            connection.pause_reading()
        connection.arm("ws_open", self._setting("open"))
        self.task = site.work.start(self.run())

    def _refuse(self, status: int, ending: Ending, headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
        """Answer the handshake with an error of the server's, and end."""
        connection = self.connection
        self.state = State.CLOSED
        if self._denial is not None and self._denial.begun:
            # Half an answer is out; it must not look complete.
            connection.end(ending, abort=True)
            return
        if status == 503:
            headers = (*headers, (b"retry-after", b"%d" % self.site.retry_after()))
        # What went wrong inside is for the log, not for the client.
        detail = ending.row.advice if status >= 500 or not ending.detail else ending.detail
        connection.write(refusal(self.site.renderer, status, ending.reason, detail, headers, self._standard_headers()))
        self._status = status
        self._report(ending)
        connection.end(ending, linger=True)

    def _standard_headers(self) -> tuple[bytes, bytes]:
        site = self.site
        return (
            site.runtime.ticker.date if site.date_header else b"",
            b"server: sojourn\r\n" if site.server_header else b"",
        )

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
        self._status = _SWITCHING
        self.state = State.OPEN
        connection.phase = Phase.WEBSOCKET
        connection.due.ws_open = NEVER
        self._parser = parser = FrameParser(
            self,
            max_message=self._setting("message"),
            max_inflate_ratio=self._setting("inflate_ratio"),
            deflate=inflater,
        )
        self._last_message = now = connection.runtime.ticker.now
        connection.arm("ws_idle", self._setting("idle"))
        interval = self._setting("ping_interval")
        if interval is not None:
            self._heartbeat = Heartbeat(
                interval, self._setting("ping_timeout"), self._setting("ping_misses"), now, random.random() / 2
            )
            connection.arm("ping", self._heartbeat.meeting() - now)
        if site.meter is not None:
            site.meter.handshake("websocket", site.monotonic() - self._began)
        if WebSocketOpened in site.observers:
            connection.runtime.bus.emit(WebSocketOpened(connection.id, self._client, self.target, subprotocol))
        early, self._early = self._early, b""
        if early:
            try:
                parser.feed(early)
            except WebSocketError as error:
                self.violated(error)
            if not parser.paused:
                connection.resume_reading()

    def _deny_plainly(self) -> None:
        """Closed before it was accepted: 403 (ASGI, websocket.close)."""
        self._denial = denial = Denial(self.site.renderer, 403, ())
        self.connection.write(denial.body(b"", False, self._standard_headers()))
        self._denied(denial)

    async def _deny(self, denial: Denial, message: Message) -> None:
        more = message.get("more_body", False)
        self.connection.write(denial.body(message.get("body", b""), more, self._standard_headers()))
        self._status = denial.status
        if more:
            await self.connection.writable()
        else:
            self._denied(denial)

    def _denied(self, denial: Denial) -> None:
        self.state = State.CLOSED
        self._status = denial.status
        ending = Ending("upgrade_denied", Phase.UPGRADE, How.LOCAL_FIN)
        self._report(ending)
        self.connection.end(ending, linger=True)

    @property
    def _client(self) -> str:
        """The client as ``address:port``; behind a trusted proxy, the one it speaks for."""
        client = self.scope["client"]
        return f"{client[0]}:{client[1]}" if client else "unix"

    def _report(self, ending: Ending) -> None:
        """Say how it ended, once: when the handshake is refused, or at the end of the connection."""
        if self._reported:
            return
        self._reported = True
        site = self.site
        if not self.scope:
            return
        duration = site.monotonic() - self._began
        if site.meter is not None:
            opened = self._status == _SWITCHING
            site.meter.websocket_ended(self.scope, ending, duration, self.received, self.sent, opened)
        if RequestEnded not in site.observers:
            return
        connection = self.connection
        connection.runtime.bus.emit(
            RequestEnded(
                connection.id,
                self.scope["client"],
                "WEBSOCKET",
                self.target,
                "1.1",
                self._status or ending.row.status or 499,
                ending,
                duration,
                connection.bytes_in,
                connection.bytes_out,
                self.scope["headers"],
                "websocket",
                route_of(self.scope),
                self.trace_id,
            )
        )
