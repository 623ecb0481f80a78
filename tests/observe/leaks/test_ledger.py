"""What was found is told where events belong."""

from __future__ import annotations

import asyncio
import threading

from sojourn.bus import Bus
from sojourn.clock import ManualClock
from sojourn.events import LeakFound
from sojourn.observe.leaks.ledger import Ledger, Signature

LEAK = Signature("resource", "unclosed file", "", "app.py:7")


def test_what_the_collector_finds_in_another_thread_is_told_on_the_event_loop() -> None:
    told: list[int] = []

    async def main() -> None:
        loop, bus = asyncio.get_running_loop(), Bus()
        ledger = Ledger(bus, ManualClock(), loop)
        bus.observe(LeakFound, lambda event: told.append(threading.get_ident()))
        assert await loop.run_in_executor(None, lambda: ledger.add(LEAK, alive=False)) is None
        await asyncio.sleep(0)
        assert ledger.found["resource"] == 1

    asyncio.run(main())
    assert told == [threading.get_ident()]
