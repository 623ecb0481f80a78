"""A body that several layers can read: a signature check, an audit, and then the application itself."""

from __future__ import annotations

import sys
from typing import Final, Literal

from sojourn.asgi.problem import problem
from sojourn.errors import ApplicationError
from sojourn.guards.layers.tape import Reader, Tape
from sojourn.typing import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Replayable", "read_body", "replayable"]

_LIMIT: Final = 1 << 20


def replayable(app: ASGIApp, limit: int = _LIMIT, over: Literal["reject", "stream"] = "reject") -> Replayable:
    """Middleware that keeps the body of each request, so that layers can read it and inner layers get it all the same.

    A layer further in reads it with :func:`read_body`. A layer that reads ``receive`` itself takes the bytes away from
    those behind it, unless another ``replayable`` stands between: there reading begins anew.

    Args:
        app: What is inside.
        limit: Bytes of a body that are kept in memory.
        over: What becomes of a larger one. ``reject`` answers 413; ``stream`` lets it pass to one reader, and
            ``read_body`` of it fails.

    Returns:
        An ASGI application; it works under any server, and as a middleware class of Starlette and FastAPI.

    Raises:
        ValueError: The limit is negative, or ``over`` is another word.

    Example:
        >>> async def signed(scope, receive, send):
        ...     body = await read_body(scope, receive)
        ...     await inner(scope, receive, send)  # gets the body too
        >>> async def inner(scope, receive, send):
        ...     assert (await receive())["body"] == b"hello"
        >>> app = replayable(signed, limit=64 * 1024)
    """
    if limit < 0:
        raise ValueError(f"limit can't be negative: {limit!r}")
    if over not in ("reject", "stream"):
        raise ValueError(f"over is 'reject' or 'stream', not {over!r}")
    return Replayable(app, limit, over == "reject")


async def read_body(scope: Scope, receive: Receive, *, limit: int | None = None) -> bytes:
    """The whole body of a request; who reads ``receive`` afterwards, here or further in, gets it from its beginning.

    Args:
        scope: The scope of the request.
        receive: Its ``receive``, as :func:`replayable` around this layer gave it.
        limit: Bytes it may have; None takes the limit of ``replayable``, which also is the most.

    Returns:
        The body; the same for each call.

    Raises:
        ProtocolError: It is larger. Unless the caller handles that, the answer is 413.
        ClientDisconnected: The client left before its end.
        ApplicationError: No ``replayable`` is right around this layer: inner layers would miss what is read here.

    Cancel: safe; what was read stays for the next who reads.

    Example:
        >>> import asyncio
        >>> async def app(scope, receive, send):
        ...     print(await read_body(scope, receive), await read_body(scope, receive))
        >>> async def receive():
        ...     return {"type": "http.request", "body": b"order 7", "more_body": False}
        >>> asyncio.run(replayable(app)({"type": "http", "headers": []}, receive, None))
        b'order 7' b'order 7'
    """
    reader = getattr(receive, "__self__", None)
    if scope["type"] != "http" or not isinstance(reader, Reader):
        raise ApplicationError(
            "this receive can't be read twice: put sojourn.replayable right around the layer that calls read_body"
        )
    return await reader.tape.whole(limit)


class Replayable:
    """What :func:`replayable` returns.

    Args:
        app: What is inside.
        limit: Bytes that are kept.
        reject: Whether a larger body is refused.
    """

    def __init__(self, app: ASGIApp, limit: int, reject: bool) -> None:
        self.app = app
        self._limit = limit
        self._reject = reject

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        outer = getattr(receive, "__self__", None)
        if isinstance(outer, Reader):  # nobody between has put something else in its place
            await self.app(scope, Reader(outer.tape).receive, send)
            return
        tape = Tape(receive, self._limit, reject=self._reject, declared=_content_length(scope))
        answer = _Answer(tape, send)
        try:
            if self._reject and tape.declared is not None and tape.declared > self._limit:
                raise tape.too_large()  # before anybody has done any work for it
            await self.app(scope, Reader(tape).receive, answer.send)
        except (Exception, BaseExceptionGroup) as error:
            if not (answer.refused or (answer.open and (tape.refused or tape.caused(error)))):
                raise
            await answer.refuse()


class _Answer:
    """The way out: what a framework makes of a body that is too large becomes 413.

    Frameworks answer an exception they don't know with 500, or one while they read the body with 400.
    """

    __slots__ = ("_send", "_tape", "open", "refused")

    def __init__(self, tape: Tape, send: Send) -> None:
        self._tape = tape
        self._send = send
        #: Whether no answer has begun.
        self.open = True
        #: Whether the answer is the 413.
        self.refused = False

    async def send(self, message: Message) -> None:
        if self.refused:
            return  # it was answered in the application's place
        if self.open and message["type"] == "http.response.start":
            if self._tape.refused or (message["status"] >= 500 and self._tape.caused(sys.exc_info()[1])):
                await self.refuse()
                return
            self.open = False
        await self._send(message)

    async def refuse(self) -> None:
        """Answer 413, once."""
        if self.refused:
            return
        self.open, self.refused = False, True
        error = self._tape.too_large()
        headers, body = problem(error.status, error.reason, error.detail)
        await self._send({"type": "http.response.start", "status": error.status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})


def _content_length(scope: Scope) -> int | None:
    """What the request says of the size of its body; None when it says nothing that is a number."""
    for name, value in scope["headers"]:
        if name.lower() == b"content-length" and value.isdigit():
            return int(value)
    return None
