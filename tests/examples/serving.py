"""A server in this process, on a thread of its own, for examples that are functions and not files."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from sojourn.bus import Bus
from sojourn.config import Bind, Config
from sojourn.server.server import Server
from sojourn.typing import ASGIApp

__all__ = ["serving"]


@contextmanager
def serving(app: ASGIApp, config: Config | None = None, *, bus: Bus | None = None) -> Iterator[str]:
    """Serve ``app`` on a free port of the loopback address until the block ends.

    Args:
        app: The application.
        config: Settings; ``bind`` is replaced, and a drain has no delay.
        bus: Where events go.

    Yields:
        The URL, such as ``http://127.0.0.1:40123``.
    """
    settings = config or Config()
    drain = msgspec.structs.replace(settings.drain, delay=0.0)
    settings = msgspec.structs.replace(settings, bind=Bind(port=0), drain=drain)
    ready: queue.SimpleQueue[str | BaseException] = queue.SimpleQueue()
    stop: list[object] = []

    async def main() -> None:
        stopped = asyncio.Event()
        loop = asyncio.get_running_loop()
        async with Server(app, settings, bus=bus) as server:
            stop.append(lambda: loop.call_soon_threadsafe(stopped.set))
            ready.put(server.addresses[0])
            await stopped.wait()

    def thread() -> None:
        try:
            asyncio.run(main())
        except BaseException as error:
            ready.put(error)
            raise

    runner = threading.Thread(target=thread, name="serving")
    runner.start()
    try:
        url = ready.get(timeout=30)
        if isinstance(url, BaseException):
            raise url
        yield url
    finally:
        for call in stop:
            call()  # type: ignore[operator]
        runner.join(30)
        assert not runner.is_alive(), "the server does not end"
