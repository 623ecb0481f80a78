"""The little that an application without a framework has to do itself: answers, files, streams of events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final

import sojourn
from sojourn.typing import Receive, Send

__all__ = ["event_stream", "respond", "respond_json", "static_files"]

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


async def event_stream(
    receive: Receive, send: Send, produce: Callable[[], sojourn.ServerSentEvent], *, every: float
) -> None:
    """Send server-sent events until the client leaves or the server stops.

    Args:
        receive: Tells when the client leaves.
        send: Takes the events; it waits for a client that is behind, and the server ends one that stays behind.
        produce: Makes the next event.
        every: Seconds between two events.
    """
    headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    left = asyncio.create_task(_disconnected(receive))

    async def events() -> AsyncIterator[sojourn.ServerSentEvent]:
        while not left.done():
            yield produce()
            await asyncio.wait({left}, timeout=every)

    goodbye = sojourn.ServerSentEvent({}, event="goodbye")
    try:
        async for piece in sojourn.event_stream(events(), retry=(0.5, 1.5), goodbye=goodbye):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        if not left.done():
            await send({"type": "http.response.body"})
    finally:
        left.cancel()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
