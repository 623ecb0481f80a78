"""Applications of frameworks, served unchanged in a thread, for clients that know nothing of Sojourn."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvloop

from sojourn.config import Config
from tests.server.serving import Served, serving

__all__ = ["Site", "served"]


class Site:
    """Where an application is served, and what the server saw."""

    def __init__(self, served: Served, loop: asyncio.AbstractEventLoop) -> None:
        self.served = served
        self.loop = loop
        self.url = served.server.addresses[0]
        self.websocket = self.url.replace("http", "ws", 1)


@contextmanager
def served(app: Any, config: Config | None = None, *, loop: str = "uvloop", **groups: Any) -> Iterator[Site]:
    """Serve an application in a thread; at the end nothing may be left of it.

    Args:
        app: The application.
        config: All settings; None makes them of ``groups``.
        loop: Which event loop runs it.
        groups: Groups of the configuration.
    """
    ready, site, failed = threading.Event(), [], []

    async def main() -> None:
        stop = asyncio.Event()
        async with serving(app, config, **groups) as served:
            site.append(Site(served, asyncio.get_running_loop()))
            stops.append(stop)
            ready.set()
            await stop.wait()

    def run() -> None:
        try:
            (uvloop.run if loop == "uvloop" else asyncio.run)(main())
        except BaseException as error:
            failed.append(error)
        finally:
            ready.set()

    stops: list[asyncio.Event] = []
    thread = threading.Thread(target=run, name="served")
    thread.start()
    ready.wait(30)
    try:
        if failed:
            raise failed[0]
        yield site[0]
    finally:
        if stops and not failed:
            site[0].loop.call_soon_threadsafe(stops[0].set)
        thread.join(60)
    if failed:
        raise failed[0]
