"""What a handler sees of a WebSocket. Thin: heartbeats, limits and deadlines are the server's."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import msgspec

from sojourn.errors import ClientDisconnected, ProtocolError
from sojourn.routing.request import Connection
from sojourn.typing import Receive, Scope, Send

__all__ = ["WebSocket"]


class WebSocket(Connection):
    """A WebSocket, as handlers of ``Router.websocket`` get it. When the handler returns it is closed.

    Args:
        scope: Its ASGI scope.
        receive: Where messages come from.
        send: Where messages go.

    Attributes:
        accepted: Whether the handshake was answered with yes.
        closed: Whether one side has closed it.

    Example:
        >>> async def echo(socket):
        ...     await socket.accept()
        ...     async for message in socket:
        ...         await socket.send(message)
    """

    __slots__ = ("_connected", "_send", "accepted", "closed")

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        super().__init__(scope, receive)
        self._send = send
        self._connected = False
        self.accepted = False
        self.closed = False

    async def accept(self, subprotocol: str | None = None) -> None:
        """Answer the handshake with yes.

        Args:
            subprotocol: One of ``scope["subprotocols"]``; None for none.
        """
        await self._begin()
        await self._send({"type": "websocket.accept", "subprotocol": subprotocol})
        self.accepted = True

    async def receive(self) -> str | bytes:
        """The next message.

        Raises:
            ClientDisconnected: There is none: the client closed it, or is gone.

        Cancel: safe, no message is lost.
        """
        await self._begin()
        message = await self._receive()
        if message["type"] == "websocket.disconnect":
            self.closed = True
            raise ClientDisconnected("ws_client_closed")
        text = message.get("text")
        found: str | bytes = message["bytes"] if text is None else text
        return found

    async def receive_json(self) -> Any:
        """The next message as JSON.

        Raises:
            ProtocolError: It is none. Nothing is sent: that is the handler's to say.
        """
        message = await self.receive()
        try:
            return msgspec.json.decode(message)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ProtocolError(400, "ws_invalid_data", f"the message is no JSON: {error}") from None

    async def send(self, message: str | bytes) -> None:
        """Send a message; waits while the client is slow, as the server allows.

        Raises:
            ClientDisconnected: Nobody is there to read it.
        """
        field = "text" if isinstance(message, str) else "bytes"
        await self._send({"type": "websocket.send", field: message})

    async def send_json(self, value: Any) -> None:
        """Send a value as a text message of JSON."""
        await self.send(msgspec.json.encode(value).decode())

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close it; before :meth:`accept` the handshake is answered with 403. A second time it does nothing.

        Args:
            code: The close code (RFC 6455 section 7.4).
            reason: At most 123 bytes of UTF-8.
        """
        if not self.closed:
            await self._begin()
            self.closed = True
            await self._send({"type": "websocket.close", "code": code, "reason": reason})

    async def __aiter__(self) -> AsyncGenerator[str | bytes, None]:
        """Every message until the client leaves."""
        while not self.closed:
            try:
                message = await self.receive()
            except ClientDisconnected:
                return
            yield message

    async def _begin(self) -> None:
        """Take the message that every WebSocket begins with (ASGI: ``websocket.connect``)."""
        if not self._connected:
            self._connected = True
            message = await self._receive()
            if message["type"] == "websocket.disconnect":
                self.closed = True
                raise ClientDisconnected("ws_client_closed")
