"""The body of one request, kept while it is read, so that several readers get the same bytes."""

from __future__ import annotations

import asyncio
from typing import Any

from sojourn.errors import ApplicationError, ClientDisconnected, ProtocolError
from sojourn.typing import Message, Receive

__all__ = ["Reader", "Tape"]


class Tape:
    """What has come of a body, and where the rest comes from.

    It keeps at most ``limit`` bytes and the piece that goes beyond, whatever size the pieces have.

    Args:
        receive: Where the body comes from.
        limit: Bytes that are kept.
        reject: Whether a larger body is refused; False lets it through to the first reader that gets so far.
        declared: Content-Length; None when the request has none.
    """

    __slots__ = ("_error", "_follower", "_limit", "_lock", "_receive", "_reject", "_seen", "data", "declared", "ended",
                 "gone")  # fmt: skip

    def __init__(self, receive: Receive, limit: int, *, reject: bool, declared: int | None) -> None:
        self._receive = receive
        self._limit = limit
        self._reject = reject
        self._seen = 0
        #: The one reader of what is too large to be kept.
        self._follower: Reader | None = None
        self._error: ProtocolError | None = None
        # Two readers that wait at once must not put the pieces down in the wrong order.
        self._lock = asyncio.Lock()
        self.declared = declared
        self.data = bytearray()
        #: Whether the body is complete.
        self.ended = False
        #: The message that said that the client left.
        self.gone: Message | None = None

    @property
    def refused(self) -> bool:
        """Whether nobody gets the body, because it is too large."""
        return self._reject and self._seen > self._limit

    def caused(self, error: BaseException | None) -> bool:
        """Whether an error is the refusal of a body that is too large."""
        return error is not None and error is self._error

    def too_large(self, limit: int | None = None) -> ProtocolError:
        """The refusal; one per body, to be known again."""
        if self._error is None:
            detail = f"the request body is larger than {self._limit if limit is None else limit} bytes"
            self._error = ProtocolError(413, "body_too_large", detail)
        return self._error

    async def whole(self, limit: int | None) -> bytes:
        """The body, read to its end, without taking a byte from any reader.

        Args:
            limit: Bytes it may have; None takes the limit of the tape.

        Raises:
            ProtocolError: It is larger (413). What has come until then stays for the readers.
            ClientDisconnected: The client left before its end.
            ApplicationError: It was too large to be kept, and a reader is past what can be read again.

        Cancel: safe; what has come stays.
        """
        limit = self._limit if limit is None else min(limit, self._limit)
        if self.declared is not None and self.declared > limit:
            raise self.too_large(limit)
        while True:
            self.check(None)
            if len(self.data) > limit:
                raise self.too_large(limit)
            if self.ended:
                return bytes(self.data)
            if self.gone is not None:
                raise ClientDisconnected("client_closed_request")
            came = self._seen
            async with self._lock:
                if not self._went_on(came):  # another may have brought something meanwhile
                    await self._pull()

    async def next_for(self, reader: Reader) -> Message:
        """What a reader gets next."""
        while True:
            message = self._kept_for(reader)
            if message is not None:
                return message
            async with self._lock:
                message = self._kept_for(reader)  # another may have brought it meanwhile
                if message is None:
                    message = await self._pull()
                if message is not None:
                    return message

    def _went_on(self, seen: int) -> bool:
        """Whether something has changed since so many bytes had been seen."""
        return self._seen > seen or self.ended or self.gone is not None or self._follower is not None

    def check(self, reader: Reader | None) -> None:
        """Make sure that a reader can go on.

        Raises:
            ProtocolError: The body is refused.
            ApplicationError: What this reader would get next was not kept.
        """
        if self.refused:
            raise self.too_large()
        if self._follower is not None and self._follower is not reader:
            raise ApplicationError(
                f"the body was larger than the {self._limit} bytes that are kept, and another reader has taken the rest"
            )

    def _kept_for(self, reader: Reader) -> Message | None:
        """What is there for a reader; None when it has to come first."""
        if reader.done:
            return None if self.gone is None else dict(self.gone)
        self.check(reader)
        size = len(self.data)
        if reader.offset < size or (self.ended and self._follower is None):
            body = bytes(self.data if not reader.offset else memoryview(self.data)[reader.offset :])
            reader.offset = size
            reader.done = self.ended
            return {"type": "http.request", "body": body, "more_body": not self.ended}
        if self.gone is not None:
            return dict(self.gone)
        if self._seen > self._limit and self._follower is None:
            self._follower = reader
            self.data.clear()  # nobody can begin anew
            reader.offset = 0
        return None

    async def _pull(self) -> Message | None:
        """Wait for what comes next and keep it; what is not kept is returned."""
        message = await self._receive()
        if self.ended and message["type"] != "http.disconnect":
            return message  # nothing of the body, and for this reader to make sense of
        if message["type"] != "http.request":
            self.gone = message
            return None
        body: Any = message.get("body", b"")
        self._seen += len(body)
        self.ended = not message.get("more_body", False)
        if self._follower is not None:
            self._follower.done = self.ended
            return {"type": "http.request", "body": body, "more_body": not self.ended}
        if not self.refused:
            self.data += body
        return None


class Reader:
    """One place in the body: its ``receive`` is what a layer gets.

    Args:
        tape: The body.
    """

    __slots__ = ("done", "offset", "tape")

    def __init__(self, tape: Tape) -> None:
        self.tape = tape
        self.offset = 0
        #: Whether it has got the end of the body.
        self.done = False

    async def receive(self) -> Message:
        """ASGI receive.

        Raises:
            ProtocolError: The body is too large (413).
            ApplicationError: What comes next was not kept for this reader.

        Cancel: safe; nothing that was received is lost.
        """
        return await self.tape.next_for(self)
