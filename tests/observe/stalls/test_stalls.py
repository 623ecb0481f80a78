"""Stalls of a real server's loop: told once, kept, shown."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

from sojourn.bus import Bus
from sojourn.clock import ManualClock, SystemClock
from sojourn.config import Config, Diagnostics
from sojourn.events import LoopStalled
from sojourn.net.ticker import Ticker
from sojourn.observe.profiles.render import render
from sojourn.observe.stalls.stalls import Stalls
from tests.server.serving import Run, Served, both_loops, serving, until

#: The server's own watchdog is off, so that the one of the test is alone.
ALONE = Diagnostics(watchdog=False)


@asynccontextmanager
async def watching(served: Served) -> AsyncIterator[Stalls]:
    site: Any = SimpleNamespace(runtime=served.server.runtime, config=Config(diagnostics=Diagnostics(stall=0.2)))
    stalls = Stalls(site)
    try:
        yield stalls
    finally:
        stalls.close()


def named(served: Served) -> list[LoopStalled]:
    """Those in which a function was seen; a busy machine makes others."""
    return [event for event in served.of(LoopStalled) if event.function]


def read_it_all() -> None:
    time.sleep(0.5)


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        raise NotImplementedError
    if scope["path"] == "/slow":
        read_it_all()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body"})


@both_loops
def test_a_handler_that_blocks_is_one_event_with_function_line_and_stack(run: Run) -> None:
    async def main() -> None:
        async with serving(app, diagnostics=ALONE) as served, watching(served) as stalls:
            assert stalls.watching
            await asyncio.sleep(0.3)
            assert b"200" in await served.get("/slow")
            await until(lambda: named(served))
            await asyncio.sleep(0.5)
            (event,) = named(served)
            assert event.cause == "code"
            line = read_it_all.__code__.co_firstlineno + 1
            assert event.function == f"{__name__}.read_it_all {__file__}:{line}"
            assert "time.sleep(0.5)" in event.stack
            assert "in app" in event.stack
            assert "run_until_complete" not in event.stack
            assert 0.3 < event.seconds < 1.5
            (row,) = [row for row in await stalls.answers["stalls"]({}) if row.function]
            assert (row.function, row.known) == (event.function, 1)
            profile = stalls.profile()
            assert "read_it_all" in {sample.stack[0].function for sample in profile.samples if sample.stack}
            assert b"read_it_all" in render(profile, "text")[1]
            stalls.close()
            assert not stalls.watching

    run(main())


@both_loops
def test_a_server_that_answers_in_time_has_no_stalls(run: Run) -> None:
    async def main() -> None:
        async with serving(app, diagnostics=ALONE) as served, watching(served) as stalls:
            for _ in range(100):
                await served.get("/")
            await asyncio.sleep(0.3)
            assert named(served) == []
            assert [row for row in await stalls.answers["stalls"]({}) if row.function] == []

    run(main())


def made(clock: Any, **settings: Any) -> Stalls:
    loop = asyncio.get_running_loop()
    runtime = SimpleNamespace(loop=loop, bus=Bus(), ticker=Ticker(clock))
    site: Any = SimpleNamespace(runtime=runtime, config=Config(diagnostics=Diagnostics(**settings)))
    return Stalls(site)


def test_it_watches_only_when_it_is_asked_to_and_time_passes_by_itself() -> None:
    async def main() -> None:
        for stalls in (made(SystemClock(), watchdog=False), made(ManualClock())):
            assert not stalls.watching
            stalls.own_process()
            assert stalls.profile().samples == []
            stalls.close()

    asyncio.run(main())
