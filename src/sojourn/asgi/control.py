"""What a request may ask of the server that runs it: ``scope["extensions"]["sojourn"]``."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sojourn.asgi.callers import RequestLimit
    from sojourn.net.connection import Connection

__all__ = ["RequestControl"]


class RequestControl(ABC):
    """The server's side of one request or WebSocket, as its application sees it.

    Read it from ``scope["extensions"]["sojourn"]``, or with :func:`sojourn.current_request` anywhere in its task.
    """

    __slots__ = ()

    #: Its trace id (W3C Trace Context), 32 hex digits; "" without tracing.
    trace_id: str

    @property
    @abstractmethod
    def connection(self) -> Connection:
        """The connection; it outlives the request."""

    @property
    def connection_id(self) -> int:
        """Number of the connection on this worker, as in the logs."""
        return self.connection.id

    @property
    def buffered(self) -> int:
        """Bytes that wait for the client."""
        return self.connection.buffered

    @property
    @abstractmethod
    def draining(self) -> asyncio.Event:
        """Set when the server begins to stop; await it to say goodbye in time."""

    @property
    @abstractmethod
    def remaining(self) -> float | None:
        """Seconds until the handler deadline or, before the answer, the response_start deadline; None for none."""

    def bound(self) -> RequestLimit | None:
        """What bounds it now, for :func:`sojourn.remaining`; None when nothing does."""
        return None

    @abstractmethod
    def expire(self, seconds: float | None, then: Callable[[], None]) -> None:
        """Have a function called when a credential is over, unless the request has ended by then.

        Args:
            seconds: From now, in served time; None takes it back. Another call replaces the one before.
            then: What to call, in the server's loop.
        """

    @abstractmethod
    def dismiss(self, reason: str, detail: str, challenge: bytes = b"") -> None:
        """End it here and now because its credential does not count any more.

        A WebSocket gets a close frame. A request without an answer gets a problem document; an event stream is told
        goodbye, any other is aborted. The application is told that its client left, and is cancelled.

        Args:
            reason: A word of ``ending.REASONS`` with a status and a WebSocket close code.
            detail: What the close frame, the log and the problem document say.
            challenge: Value of WWW-Authenticate with a status of 401.
        """

    @abstractmethod
    def set_timeout(self, name: str, seconds: float | None) -> None:
        """Give this request another timeout.

        Args:
            name: ``handler``, ``response_start``, ``stream_idle``, ``body_idle``, ``body`` or ``write_idle`` for HTTP;
                ``idle`` or ``write`` for a WebSocket.
            seconds: From now for handler and response_start, otherwise the length of each wait; None takes it away.

        Raises:
            ValueError: There is no such timeout here, or it is not above zero.
        """

    @abstractmethod
    def set_limit(self, name: str, value: int | None) -> None:
        """Give this request another limit.

        Args:
            name: ``body``, ``body_min_rate`` or ``write_min_rate``.
            value: In bytes or bytes per second; None takes it away.

        Raises:
            ValueError: There is no such limit here, or it is negative.
        """
