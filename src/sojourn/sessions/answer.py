"""What a client has got so far of its answer, and what can still be said to it."""

from __future__ import annotations

import sys
from typing import Final, NamedTuple

from sojourn.asgi.problem import problem
from sojourn.errors import SessionStoreUnavailable
from sojourn.typing import Message, Receive, Scope, Send
from sojourn.wire.sse import ServerSentEvent, encode

__all__ = ["Answer", "Refusal", "refuse"]

#: What ends an event (HTML section 9.2.5).
_EVENT_ENDS: Final = (b"\n\n", b"\r\n\r\n", b"\r\r")


class Answer:
    """An answer, or the server's side of a WebSocket, as far as it was sent.

    Attributes:
        begun: Whether its head was sent, or the WebSocket accepted.
        finished: Whether it is complete, or the WebSocket closed.
        event_stream: Whether it is a stream of server-sent events.
    """

    __slots__ = ("_between", "begun", "event_stream", "finished")

    def __init__(self) -> None:
        self.begun = self.finished = self.event_stream = False
        #: Whether what was sent of that stream ends with an event.
        self._between = True

    def note(self, message: Message) -> None:
        """This is sent."""
        kind = message["type"]
        if kind in ("http.response.body", "websocket.http.response.body"):
            body = message.get("body", b"")
            if self.event_stream and body:
                self._between = bytes(body).endswith(_EVENT_ENDS)
            self.finished = not message.get("more_body", False)
        elif kind == "http.response.start":
            self.begun = True
            self.event_stream = any(
                name.lower() == b"content-type" and value.lower().startswith(b"text/event-stream")
                for name, value in message.get("headers", ())
            )
        elif kind in ("websocket.accept", "websocket.http.response.start"):
            self.begun = True
        elif kind in ("websocket.close", "http.response.pathsend"):
            self.finished = True

    def overtaken(self, message: Message) -> SessionStoreUnavailable | None:
        """The error that this is about, if it is the store's and a framework has turned it into a 500."""
        error = sys.exc_info()[1] if message.get("status") == 500 else None
        return error if isinstance(error, SessionStoreUnavailable) else None

    def goodbye(self, reason: str) -> bytes:
        """The last event of a stream; b"" when half of another was sent."""
        return encode(ServerSentEvent(reason, event="auth-expired")) if self._between else b""


class Refusal(NamedTuple):
    """An answer in place of the application's.

    Attributes:
        status: 401 or 503.
        reason: One word for programs.
        detail: One sentence.
        retry_after: Seconds; None when there is no use in it.
    """

    status: int
    reason: str
    detail: str
    retry_after: float | None = None

    @classmethod
    def of(cls, error: SessionStoreUnavailable) -> Refusal:
        """The answer when the store is away. What is wrong with it is nothing for clients: events and the log tell."""
        return cls(503, "sessions_unavailable", "sessions can't be looked up at present; try again", error.retry_after)


async def refuse(scope: Scope, receive: Receive | None, send: Send, refusal: Refusal) -> None:
    """Answer with a problem document; a WebSocket too, before it is accepted, where the server can.

    Args:
        scope: Of the request.
        receive: Given when the application has not begun: a WebSocket has to be received before it is refused.
        send: The server's.
        refusal: What to say.

    Cancel: safe.
    """
    status, reason, detail, seconds = refusal
    extra = [] if seconds is None else [(b"retry-after", b"%d" % max(1, round(seconds)))]
    headers, body = problem(status, reason, detail, extra)
    kind = "http.response"
    if scope["type"] == "websocket":
        if receive is not None:
            await receive()  # websocket.connect
        kind = "websocket.http.response"
        if kind not in (scope.get("extensions") or {}):
            await send({"type": "websocket.close", "code": 1013})  # before the handshake: the server makes it a 403
            return
    await send({"type": f"{kind}.start", "status": status, "headers": headers})
    await send({"type": f"{kind}.body", "body": body})
