"""What a client has got so far, so that it can be told that its credential is over."""

from __future__ import annotations

import asyncio
from typing import Final

from sojourn.asgi.control import RequestControl
from sojourn.ending import REASONS
from sojourn.errors import AuthenticationError, ClientDisconnected
from sojourn.guards.auth.refusal import Refusal, refuse
from sojourn.guards.auth.session import AuthSession
from sojourn.typing import Message, Receive, Scope, Send
from sojourn.wire.sse import ServerSentEvent, encode

__all__ = ["Exchange"]

#: What ends an event (HTML section 9.2.5).
_EVENT_ENDS: Final = (b"\n\n", b"\r\n\r\n", b"\r\r")
_EVENT: Final = "auth-expired"


class Exchange:
    """The messages of one request or WebSocket, as the application sends them.

    Args:
        scope: Its scope.
        receive: Its ``receive``.
        send: Its ``send``.
        session: Whose it is.
        control: The server's side of it; None under another server.
    """

    __slots__ = ("_begun", "_between", "_control", "_finished", "_receive", "_scope", "_send", "_session", "_streams")

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, session: AuthSession, control: RequestControl | None
    ) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._session = session
        self._control = control
        #: Whether the answer has begun, is complete, and is a stream of server-sent events.
        self._begun = self._finished = self._streams = False
        #: Whether what was sent of that stream ends with an event.
        self._between = True

    async def send(self, message: Message) -> None:
        """ASGI send for the application.

        Raises:
            ClientDisconnected: The credential of the client is over; and what the server's ``send`` raises.

        Cancel: safe, as the server's.
        """
        ended = self._session.ended
        if ended and self._streams:
            await self._say_expired()
            raise ClientDisconnected(ended)
        kind = message["type"]
        if kind == "http.response.body":
            body = message.get("body", b"")
            if self._streams and body:
                self._between = bytes(body).endswith(_EVENT_ENDS)
            self._finished = not message.get("more_body", False)
        elif kind == "http.response.start":
            self._begun = True
            self._streams = any(
                name.lower() == b"content-type" and value.lower().startswith(b"text/event-stream")
                for name, value in message.get("headers", ())
            )
        elif kind in ("websocket.accept", "websocket.http.response.start"):
            self._begun = True
        elif kind in ("websocket.close", "http.response.pathsend"):
            self._finished = True
        await self._send(message)

    async def returned(self) -> None:
        """The application has returned."""
        if self._session.ended:
            if self._control is None and (task := asyncio.current_task()) is not None:
                task.uncancel()  # it has swallowed that
            if self._streams:
                await self._say_expired()

    async def cancelled(self) -> bool:
        """The application was cancelled. Returns whether that was only to end this request, and all is said.

        Raises:
            AuthenticationError: The answer is half sent, and another server must not let it look complete.
        """
        ended = self._session.ended
        if not ended:
            return False
        if self._control is not None:  # the server has cancelled it, and has said what can be said from outside
            if self._streams:
                await self._say_expired()
            return False
        task = asyncio.current_task()
        if task is None or task.uncancel() > 0:
            return False
        row = REASONS[ended]
        status = row.status or 401
        if not self._begun:
            await refuse(self._scope, self._receive, self._send, Refusal(status, ended, row.advice))
        elif self._streams:
            await self._say_expired()
        elif self._finished:
            return True
        elif self._scope["type"] == "websocket":
            await self._send({"type": "websocket.close", "code": row.ws_code or 1008, "reason": self._session.text})
        else:
            raise AuthenticationError(ended, row.advice, status)
        return True

    async def _say_expired(self) -> None:
        """End a stream of server-sent events: with an event of its own, unless half of another was sent."""
        if self._finished:
            return
        self._finished = True
        event = encode(ServerSentEvent(self._session.ended, event=_EVENT)) if self._between else b""
        try:
            await self._send({"type": "http.response.body", "body": event, "more_body": False})
        except OSError:
            pass  # ClientDisconnected: it has left by itself, and that is reported as its end
