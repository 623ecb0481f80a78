"""A Sojourn server that other services ask: some answers come slowly, some never."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sojourn.config import Drain
from tests.server.serving import serving

__all__ = ["Upstream", "upstream"]


class Upstream:
    """Where it is, and what it was asked.

    Attributes:
        port: Where.
        requests: The headers of each request.
    """

    def __init__(self) -> None:
        self.port = 0
        self.requests: list[dict[str, str]] = []

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            raise NotImplementedError(scope["type"])
        self.requests.append({name.decode(): value.decode() for name, value in scope["headers"]})
        path = scope["path"]
        if path == "/round":  # and round
            await asyncio.sleep(0.03)
            await send({"type": "http.response.start", "status": 302, "headers": [(b"location", b"/round")]})
            await send({"type": "http.response.body"})
            return
        if path == "/slow":
            await asyncio.sleep(5)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        if path == "/drip":  # each wait is short, all of them together are not
            for _ in range(100):
                await send({"type": "http.response.body", "body": b".", "more_body": True})
                await asyncio.sleep(0.03)
        if path == "/stall":
            await send({"type": "http.response.body", "body": b".", "more_body": True})
            await asyncio.sleep(5)
        await send({"type": "http.response.body", "body": b"hello"})


@asynccontextmanager
async def upstream() -> AsyncIterator[Upstream]:
    """Serve it."""
    site = Upstream()
    async with serving(site.app, drain=Drain(delay=0.0, requests=0.1, streams=0.1)) as served:
        site.port = served.port
        yield site
