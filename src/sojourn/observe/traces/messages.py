"""What passes on a long connection: the first messages as events of its span, the others as numbers."""

from __future__ import annotations

from opentelemetry.trace import Span

from sojourn.typing import Message, Receive, Send

__all__ = ["Messages"]


class Messages:
    """Looks at the messages of a WebSocket and the pieces of an event stream; a plain answer passes unseen.

    Args:
        span: Gets the events.
        receive: The server's.
        send: The server's.
        limit: Events kept.
    """

    __slots__ = ("_limit", "_receive", "_send", "_span", "_stream", "received", "sent")

    def __init__(self, span: Span, receive: Receive, send: Send, limit: int) -> None:
        self._span = span
        self._receive = receive
        self._send = send
        self._limit = limit
        self._stream = False
        #: Messages so far.
        self.received = 0
        self.sent = 0

    async def receive(self) -> Message:
        """ASGI receive."""
        message = await self._receive()
        if message["type"] == "websocket.receive":
            self.received += 1
            self._note("received", message.get("text") or message.get("bytes") or b"")
        return message

    async def send(self, message: Message) -> None:
        """ASGI send; what could not be sent is not noted."""
        await self._send(message)
        kind = message["type"]
        if kind == "websocket.send":
            self.sent += 1
            self._note("sent", message.get("text") or message.get("bytes") or b"")
        elif kind == "http.response.start":
            self._stream = any(
                name.lower() == b"content-type" and value.startswith(b"text/event-stream")
                for name, value in message.get("headers", ())
            )
        elif kind == "websocket.accept":
            self._span.add_event("websocket.accepted", {"subprotocol": message.get("subprotocol") or ""})
        elif self._stream and kind == "http.response.body" and message.get("body"):
            self.sent += 1
            self._note("sent", message["body"])

    def finish(self) -> None:
        """Write how many there were."""
        if self.received or self.sent:
            over = max(0, self.received + self.sent - self._limit)
            self._span.set_attributes(
                {
                    "sojourn.messages.received": self.received,
                    "sojourn.messages.sent": self.sent,
                    "sojourn.events.left_out": over,
                }
            )

    def _note(self, direction: str, data: str | bytes) -> None:
        if self.received + self.sent <= self._limit:
            self._span.add_event("message", {"message.direction": direction, "message.size": len(data)})
