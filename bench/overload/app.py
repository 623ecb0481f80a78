"""Work that keeps the processor: ``GET /?ms=5`` computes for so many milliseconds of processor time, then answers."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]

_HEADERS = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"2")]


async def app(
    scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
) -> None:
    """ASGI."""
    if scope["type"] != "http":
        raise NotImplementedError
    _, _, milliseconds = scope["query_string"].partition(b"ms=")
    # Processor time, not time: what the machine gives to others is no work done.
    until = time.thread_time() + float(milliseconds or b"0") / 1000.0
    while time.thread_time() < until:
        pass
    await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
    await send({"type": "http.response.body", "body": b"ok"})
