"""A thread rings: what it has put is done in the loop, in its order, and nothing after the end."""

from __future__ import annotations

import asyncio
import os
import threading

import pytest
import uvloop

from sojourn.tasks.sqlite.bell import Bell
from tests.tasks.sqlite.processes import until

LOOPS = (asyncio.new_event_loop, uvloop.new_event_loop)


@pytest.mark.parametrize("loop_factory", LOOPS)
def test_what_a_thread_puts_is_done_in_the_loop_and_in_its_order(loop_factory: object) -> None:
    async def main() -> None:
        bell = Bell(asyncio.get_running_loop())
        done: list[tuple[int, int]] = []

        def rung() -> None:
            for number in range(1000):
                assert bell.put(lambda what: done.append((what, threading.get_ident())), number)
                if number % 3 == 0:
                    bell.ring()

        thread = threading.Thread(target=rung)
        thread.start()
        await until(lambda: len(done) == 1000)
        thread.join()
        assert done == [(number, threading.get_ident()) for number in range(1000)]
        bell.close()

    with asyncio.Runner(loop_factory=loop_factory) as runner:  # type: ignore[arg-type]
        runner.run(main())


@pytest.mark.parametrize("loop_factory", LOOPS)
def test_at_the_end_what_was_put_is_done_and_nothing_is_taken_any_more(loop_factory: object) -> None:
    async def main() -> None:
        before = os.listdir("/proc/self/fd")
        bell, done = Bell(asyncio.get_running_loop()), list[int]()
        assert bell.put(done.append, 1)
        bell.ring()
        bell.close()
        assert done == [1]
        assert not bell.put(done.append, 2)
        bell.ring()
        bell.close()
        await asyncio.sleep(0)
        assert done == [1]
        assert len(os.listdir("/proc/self/fd")) == len(before)

    with asyncio.Runner(loop_factory=loop_factory) as runner:  # type: ignore[arg-type]
        runner.run(main())


def test_it_is_closed_after_its_loop() -> None:
    async def main() -> Bell:
        return Bell(asyncio.get_running_loop())

    bell = asyncio.run(main())
    heard = list[int]()
    assert bell.put(heard.append, 1)
    bell.ring()
    bell.close()
    assert not bell.put(heard.append, 2)
