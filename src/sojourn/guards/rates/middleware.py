"""Rate limits in front of an application: pure ASGI, under any server, around any framework."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable

from sojourn.errors import RateLimited, RateLimitsUnavailable
from sojourn.guards.rates.engine import Engine
from sojourn.guards.rates.limiter import RateLimiter
from sojourn.guards.rates.quota import Quota
from sojourn.guards.rates.verdict import Verdict, unavailable
from sojourn.typing import ASGIApp, Headers, Message, Receive, Scope, Send

__all__ = ["RateLimit"]


class RateLimit:
    """Answers 429 in place of the application when a client comes too often. What is allowed passes untouched.

    The answer is a problem document with ``Retry-After``, ``RateLimit-Policy`` and ``RateLimit``. A WebSocket is
    refused before its handshake. A :class:`RateLimited` that the application lets out becomes the same answer.

    Args:
        app: The ASGI application.
        limits: A rate such as ``100/minute``, a :class:`Quota`, or several; all have to allow a request. A
            :class:`RateLimiter` is taken as it is.
        engine: Where buckets are; None for the memory of this process.
        headers: Whether allowed answers say how much is left.

    Raises:
        ValueError: A rate can't be read, or two quotas have the same name.

    Example:
        >>> async def app(scope, receive, send): ...
        >>> app = RateLimit(app, "100/minute")
    """

    __slots__ = ("_app", "_headers", "limiter")

    def __init__(
        self,
        app: ASGIApp,
        limits: str | Quota | RateLimiter | Iterable[str | Quota],
        *,
        engine: Engine | None = None,
        headers: bool = True,
    ) -> None:
        if isinstance(limits, RateLimiter) and engine is not None:
            raise ValueError("a limiter has its engine already")
        self._app = app
        self._headers = headers
        self.limiter = limits if isinstance(limits, RateLimiter) else RateLimiter(limits, engine=engine)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI. A coroutine function, because that is how other servers know ASGI 3."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        try:
            verdict = await self.limiter.judge(scope)
        except RateLimitsUnavailable as error:
            await _refuse(scope, receive, send, 503, *unavailable(error))
            return
        if not verdict.allowed:
            await _refuse(scope, receive, send, 429, *verdict.answer())
            return
        answering = _Answering(send, verdict if self._headers else None)
        try:
            await self._app(scope, receive, answering)
        except RateLimited as error:
            if answering.begun or scope["type"] != "http":
                raise
            fields = [(name.encode(), value.encode()) for name, value in error.headers.items()]
            await _answer(send, "http.response", error.status, fields, error.body)


class _Answering:
    """Stands in for ``send``: adds its fields to the head of the answer."""

    __slots__ = ("_send", "_verdict", "begun")

    def __init__(self, send: Send, verdict: Verdict | None) -> None:
        self._send = send
        self._verdict = verdict
        self.begun = False

    def __call__(self, message: Message) -> Awaitable[None]:
        if message["type"] == "http.response.start":
            self.begun = True
            if self._verdict is not None:
                message = {**message, "headers": [*message.get("headers", ()), *self._verdict.headers()]}
        return self._send(message)


async def _refuse(scope: Scope, receive: Receive, send: Send, status: int, headers: Headers, body: bytes) -> None:
    if scope["type"] == "http":
        await _answer(send, "http.response", status, headers, body)
        return
    await receive()  # websocket.connect: nothing may be sent before it
    if "websocket.http.response" in (scope.get("extensions") or {}):
        await _answer(send, "websocket.http.response", status, headers, body)
    else:
        await send({"type": "websocket.close", "code": 1013})  # before the handshake: the server makes it a 403


async def _answer(send: Send, kind: str, status: int, headers: Headers, body: bytes) -> None:
    await send({"type": f"{kind}.start", "status": status, "headers": headers})
    await send({"type": f"{kind}.body", "body": body})
