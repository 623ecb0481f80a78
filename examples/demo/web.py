"""The little that an application without a framework has to do itself: answers, files, streams of events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from sojourn.typing import Receive, Scope, Send

__all__ = ["event", "event_stream", "respond", "respond_json", "static_files"]

_TYPES: Final = {
    ".html": b"text/html; charset=utf-8",
    ".css": b"text/css; charset=utf-8",
    ".js": b"text/javascript; charset=utf-8",
    ".svg": b"image/svg+xml",
}
#: The page loads nothing from elsewhere.
_POLICY: Final = (b"content-security-policy", b"default-src 'self'; base-uri 'none'; frame-ancestors 'none'")


def static_files() -> dict[str, tuple[bytes, bytes]]:
    """Type and content of each file of the page, by its path."""
    folder = Path(__file__).with_name("static")
    files = {f"/{file.name}": (_TYPES[file.suffix], file.read_bytes()) for file in folder.iterdir()}
    return {"/": files["/index.html"], **files}


async def respond(send: Send, status: int, body: bytes, content_type: bytes) -> None:
    """Send a whole answer."""
    headers = [(b"content-type", content_type), (b"cache-control", b"no-cache"), _POLICY]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def respond_json(send: Send, document: Any) -> None:
    """Send a document as JSON."""
    await respond(send, 200, json.dumps(document).encode(), b"application/json")


def event(name: str, data: Any, *, number: int | None = None) -> bytes:
    """One server-sent event."""
    line = f"id: {number}\n" if number is not None else ""
    return f"event: {name}\n{line}data: {json.dumps(data)}\n\n".encode()


async def event_stream(
    scope: Scope, receive: Receive, send: Send, produce: Callable[[], bytes], *, every: float
) -> None:
    """Send server-sent events until the client leaves or the server stops.

    Args:
        scope: The request.
        receive: Tells when the client leaves; Sojourn tells the same when it begins to stop.
        send: Takes the events; it waits for a client that is behind, and the server ends one that stays behind.
        produce: Makes the next event.
        every: Seconds between two events.
    """
    headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    left = asyncio.create_task(_disconnected(receive))
    try:
        while not left.done():
            await send({"type": "http.response.body", "body": produce(), "more_body": True})
            await asyncio.wait({left}, timeout=every)
        control = scope.get("extensions", {}).get("sojourn")
        if control is not None and control.draining.is_set():
            await send({"type": "http.response.body", "body": b"retry: 1000\n" + event("goodbye", {})})
    finally:
        left.cancel()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
