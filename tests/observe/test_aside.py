"""What takes its time is done beside the event loop, also when the application keeps the executor busy."""

from __future__ import annotations

import asyncio
import threading

import pytest

from sojourn.observe.aside import aside


def test_an_executor_without_a_free_thread_holds_nobody_up() -> None:
    async def main() -> None:
        loop, over = asyncio.get_running_loop(), threading.Event()
        busy = [loop.run_in_executor(None, over.wait, 30) for _ in range(64)]
        try:
            async with asyncio.timeout(10):
                assert await aside(loop, "beside", lambda: threading.current_thread().name) == "beside"
        finally:
            over.set()
            await asyncio.gather(*busy)

    asyncio.run(main())


def test_what_it_raises_is_raised_to_who_waits() -> None:
    def broken() -> None:
        raise KeyError("a bug")

    async def main() -> None:
        with pytest.raises(KeyError):
            await aside(asyncio.get_running_loop(), "beside", broken)

    asyncio.run(main())
