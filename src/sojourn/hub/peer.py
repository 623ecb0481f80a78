"""The other end of a WebSocket, as ASGI or Starlette gives it."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, Final, Protocol, cast

from sojourn.errors import ClientDisconnected, ConfigError
from sojourn.typing import Message, Receive, Scope, Send

__all__ = ["Peer", "peer_of", "size_of"]

#: Bytes of the reason of a close frame at most (RFC 6455 section 5.5, less the code).
_REASON: Final = 123
_DENIAL: Final = "websocket.http.response"


class _Starlette(Protocol):
    """The WebSocket of Starlette and FastAPI, which keeps account of what was sent."""

    scope: Scope

    async def accept(self, subprotocol: str | None = None) -> None: ...
    async def receive(self) -> Message: ...
    async def send(self, message: Message) -> None: ...


class Peer:
    """Sends and receives the messages of ASGI.

    Args:
        scope: Of the WebSocket.
        receive: Of ASGI.
        send: Of ASGI.
        framework: Starlette's object, when there is one; everything goes through it then.
    """

    __slots__ = ("_framework", "_receive", "_send", "_told", "scope")

    def __init__(self, scope: Scope, receive: Receive, send: Send, framework: _Starlette | None = None) -> None:
        self.scope = scope
        self._receive = receive
        self._send = send
        self._framework = framework
        self._told = framework is not None

    async def accept(self, subprotocol: str | None) -> None:
        """Accept it.

        Raises:
            ClientDisconnected: The client has left.
        """
        if self._framework is not None:
            await _told(self._framework.accept(subprotocol))
            return
        await self._connected()
        await _told(self._send({"type": "websocket.accept", "subprotocol": subprotocol}))

    async def deny(self, status: int, detail: str, retry_after: float | None = None) -> None:
        """Refuse it, with a status of HTTP where the server can do that (ASGI, websocket denial response).

        Raises:
            ClientDisconnected: The client has left.
        """
        if self._framework is not None:
            await self._framework.receive()
        else:
            await self._connected()
        if _DENIAL not in (self.scope.get("extensions") or {}):
            await _told(self._send({"type": "websocket.close", "code": 1008, "reason": detail}))
            return
        headers = [(b"content-type", b"text/plain; charset=utf-8")]
        if retry_after is not None:
            headers.append((b"retry-after", b"%d" % max(1, round(retry_after))))
        if status == 401:
            headers.append((b"www-authenticate", b"Bearer"))
        await _told(self._send({"type": f"{_DENIAL}.start", "status": status, "headers": headers}))
        await _told(self._send({"type": f"{_DENIAL}.body", "body": detail.encode()}))

    async def receive(self) -> Message:
        """What comes next. Cancel: as the server's own."""
        return await (self._receive if self._framework is None else self._framework.receive)()

    async def send(self, data: str | bytes) -> None:
        """Send a message.

        Raises:
            ClientDisconnected: The client has left.
        """
        key = "text" if isinstance(data, str) else "bytes"
        await self._say({"type": "websocket.send", key: data})

    async def close(self, code: int, reason: str) -> None:
        """Close it.

        Raises:
            ClientDisconnected: The client has left.
        """
        cut = reason.encode("utf-8", "replace")[:_REASON].decode("utf-8", "ignore")  # servers raise for longer ones
        await self._say({"type": "websocket.close", "code": code, "reason": cut})

    async def _say(self, message: Message) -> None:
        await _told((self._send if self._framework is None else self._framework.send)(message))

    async def _connected(self) -> None:
        if not self._told:
            self._told = True
            await self._receive()  # websocket.connect


async def _told(sending: Awaitable[None]) -> None:
    """Send something. What servers and frameworks raise when the client has left becomes an error of ours."""
    try:
        await sending
    except ClientDisconnected:
        raise
    except Exception as error:
        # ASGI has servers raise an OSError, and frameworks make an error of this name of it.
        if isinstance(error, OSError) or type(error).__name__ == "WebSocketDisconnect":
            raise ClientDisconnected("the client has left") from error
        raise


def size_of(data: str | bytes) -> int:
    """Bytes of a message on the wire."""
    return len(data) if isinstance(data, bytes) or data.isascii() else len(data.encode("utf-8", "replace"))


def peer_of(websocket: Any) -> Peer:
    """The peer of what a handler was given.

    Args:
        websocket: The WebSocket object of Starlette or FastAPI, or (scope, receive, send).

    Raises:
        ConfigError: It is neither.
    """
    if isinstance(websocket, tuple) and len(websocket) == 3:
        return Peer(*websocket)
    if all(hasattr(websocket, name) for name in ("scope", "accept", "receive", "send")):
        inner = cast(Send, getattr(websocket, "_send", websocket.send))
        return Peer(websocket.scope, websocket.receive, inner, websocket)
    raise ConfigError(f"a WebSocket of Starlette, or (scope, receive, send), not {type(websocket).__name__}")
