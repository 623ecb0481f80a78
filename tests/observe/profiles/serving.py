"""A real server, and profilers that look at it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

from sojourn.config import Config, Diagnostics
from sojourn.observe.profiles.profilers import Profilers
from sojourn.observe.stalls.stalls import Stalls
from tests.server.serving import Client, Served, serving

__all__ = ["Looked", "looking"]


class Looked:
    """A served application and its profilers."""

    def __init__(self, served: Served, profilers: Profilers, stalls: Stalls) -> None:
        self.served = served
        self.profilers = profilers
        self.stalls = stalls

    async def under_load(self, path: str, **arguments: Any) -> Any:
        """A profile, or with ``name="trace"`` a trace, while two clients ask for a path without pause."""
        clients = [await self.served.connect() for _ in range(2)]
        going = [asyncio.get_running_loop().create_task(_ask(client, path)) for client in clients]
        try:
            answer = self.profilers.answers["trace" if arguments.get("name") == "trace" else "profile"]
            return await answer(arguments)
        finally:
            for task in going:
                task.cancel()
            await asyncio.wait(going)


async def _ask(client: Client, path: str) -> None:
    while True:
        client.get(path)
        head = await client.head()
        assert b"200 OK" in head
        await client.read(2)


@asynccontextmanager
async def looking(app: Any, *, watchdog: bool = False) -> AsyncIterator[Looked]:
    """Serve an application; the server's own diagnostics are off."""
    async with serving(app, diagnostics=Diagnostics(watchdog=False)) as served:
        settings = Config(diagnostics=Diagnostics(watchdog=watchdog, stall=0.2))
        site: Any = SimpleNamespace(runtime=served.server.runtime, config=settings)
        stalls = Stalls(site)
        profilers = Profilers(served.server.site, stalls)
        try:
            yield Looked(served, profilers, stalls)
        finally:
            profilers.close()
            profilers.close()
            stalls.close()
