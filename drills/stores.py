"""Engines of durable tasks behind a proxy that can swallow what passes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sojourn.testing import FaultProxy
from tests.databases import PostgresServer, RedisServer

__all__ = ["Store", "store"]


class Store:
    """An engine behind a proxy."""

    def __init__(self, server: Any, url: str, proxy: FaultProxy) -> None:
        self.server = server
        self.proxy = proxy
        self._url = url

    url = property(lambda self: self._url.format(port=self.proxy.address[1]))
    direct = property(lambda self: self._url.format(port=self.server.port))


@asynccontextmanager
async def store(engine: str, folder: Path) -> AsyncIterator[Store]:
    server: Any
    if engine == "redis":
        server = RedisServer("--appendonly", "yes", "--appendfsync", "always", "--dir", str(folder))
        url = "redis://127.0.0.1:{port}/0"
    else:
        server, url = PostgresServer(), "postgresql://postgres@127.0.0.1:{port}/postgres"
    try:
        await asyncio.to_thread(server.start)
        async with FaultProxy(("127.0.0.1", server.port)) as proxy:
            yield Store(server, url, proxy)
    finally:
        await asyncio.to_thread(server.remove if engine == "postgres" else server.stop)
