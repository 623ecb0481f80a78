"""One WebSocket of a client: made, read, written and closed, each with a deadline."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from typing import Any, Final

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.typing import Subprotocol

from sojourn.clients.hub.rules import ClientRules
from sojourn.clock import SystemClock
from sojourn.policy.retry import retry_after_of
from sojourn.scopes.deadline import deadline
from sojourn.scopes.shielded import shielded

__all__ = ["FAILURES", "Link", "Loss", "open_link"]

_PROTOCOL: Final = Subprotocol("sojourn.v1")
_PING: Final = b"{}"
#: What making a connection may raise. ValueError: an answer that is no HTTP, or an option that does not fit.
FAILURES: Final = (OSError, InvalidHandshake, EOFError, ValueError)


class Loss:
    """How a connection was lost, or why it could not be made.

    Attributes:
        code: WebSocket close code, HTTP status of a refused handshake; 0 for neither.
        reason: In words.
        least: Seconds after which the server wants to be asked again; None when it does not say.
    """

    __slots__ = ("code", "least", "reason")

    def __init__(self, code: int, reason: str, least: float | None = None) -> None:
        self.code = code
        self.reason = reason
        self.least = least

    @classmethod
    def of(cls, error: Exception) -> Loss:
        """What an error of the library says."""
        if isinstance(error, ConnectionClosed):
            # Who closed first has a reason; an own frame that is too large is one, too.
            closes = [error.rcvd, error.sent] if error.rcvd_then_sent in (True, None) else [error.sent, error.rcvd]
            close = next(filter(None, closes), None)
            return cls(1006, "the connection broke") if close is None else cls(close.code, close.reason or "closed")
        if isinstance(error, InvalidStatus):
            status = error.response.status_code
            return cls(status, f"HTTP {status}", retry_after_of(error, SystemClock.wall()))
        return cls(0, f"{type(error).__name__}: {error}")


class Link:
    """A connection that is open.

    Args:
        socket: The connection.
        rules: Its deadlines.
    """

    __slots__ = ("_out", "_rules", "_socket", "_wake")

    def __init__(self, socket: ClientConnection, rules: ClientRules) -> None:
        self._socket = socket
        self._rules = rules
        #: Lines to be written: as many as commands may be on their way, and a ping's answer.
        self._out: deque[bytes] = deque()
        self._wake: asyncio.Future[None] | None = None

    @property
    def speaks(self) -> bool:
        """Whether the server speaks ``sojourn.v1``."""
        return self._socket.subprotocol == _PROTOCOL

    def send(self, line: bytes) -> None:
        """Have a line written."""
        if line == _PING and self._out and self._out[-1] == _PING:
            return  # one sign of life says as much as two
        self._out.append(line)
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    async def read(self) -> bytes:
        """The next frame.

        Raises:
            ConnectionClosed: It is over.

        Cancel: safe; nothing is lost.
        """
        return await self._socket.recv(decode=False)

    async def write(self) -> None:
        """Write what is to be written, until the connection is over or the server does not take it.

        Cancel: safe; a line may have been written in part, so the connection must be closed then.
        """
        while True:
            while self._out:
                try:
                    async with deadline(self._rules.write, "hub.write"):
                        await self._socket.send(self._out.popleft().decode())
                except (ConnectionClosed, TimeoutError):
                    self.abort()  # whoever reads is told
                    return
            self._wake = asyncio.get_running_loop().create_future()
            await self._wake

    async def close(self, code: int, writer: asyncio.Task[None]) -> None:
        """End it, whatever happens to who calls; with a closing handshake if there is a code.

        Cancel: safe; it is closed first.
        """
        await shielded(self._close(code, writer), self._rules.close + 1.0, "hub.close")

    async def _close(self, code: int, writer: asyncio.Task[None]) -> None:
        writer.cancel()
        await asyncio.wait((writer,))
        try:
            if code:
                async with deadline(self._rules.close, "hub.close"):
                    await self._socket.close(code)
        except TimeoutError:
            pass  # the server does not take the close frame: it is broken
        finally:
            self.abort()
        await self._socket.wait_closed()

    def abort(self) -> None:
        """Break it, at once."""
        self._socket.transport.abort()


async def open_link(url: str, token: str | None, rules: ClientRules, options: Mapping[str, Any]) -> Link:
    """Make a connection.

    Args:
        url: Where.
        token: The credential; None for none.
        rules: Its deadlines.
        options: More arguments of ``websockets.asyncio.client.connect``, such as ``ssl``.

    Raises:
        OSError, InvalidHandshake, EOFError, ValueError: It can't be made (:data:`FAILURES`).
        DeadlineExceeded: It took too long.

    Cancel: safe; nothing stays open.
    """
    arguments = dict(options)
    headers = list(dict(arguments.pop("additional_headers", None) or {}).items())
    if token is not None:
        headers.append(("Authorization", f"Bearer {token}"))
    arguments |= {"additional_headers": headers, "subprotocols": [_PROTOCOL], "max_size": rules.frame}
    # Deadlines are the client's: for opening here, for signs of life in its machine.
    arguments |= {"open_timeout": None, "ping_interval": None, "close_timeout": rules.close}
    socket: ClientConnection | None = None
    try:
        async with deadline(rules.connect, "hub.connect"):
            socket = await connect(url, **arguments)
    except BaseException:
        if socket is not None:  # the deadline passed in the moment in which it was made
            socket.transport.abort()
        raise
    return Link(socket, rules)
