"""Waits of the services' own."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
import uvloop

from sojourn.errors import DeadlineExceeded
from sojourn.scopes.deadline import deadline
from sojourn.scopes.pausing import pause, within

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
Run = Callable[[Awaitable[Any]], Any]


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Iterator[Run]:
    with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
        yield runner.run


def answer() -> asyncio.Future[int]:
    return asyncio.get_running_loop().create_future()


def test_an_answer_in_time_is_what_it_is(run: Run) -> None:
    async def main() -> None:
        good, bad = answer(), answer()
        asyncio.get_running_loop().call_later(0.01, good.set_result, 7)
        assert await within(5.0, good) == 7
        bad.set_exception(ValueError("no"))
        with pytest.raises(ValueError, match="no"):
            await within(float("inf"), bad)

    run(main())


def test_one_that_is_late_is_given_up_and_who_would_answer_it_sees_that(run: Run) -> None:
    async def main() -> None:
        late = answer()
        with pytest.raises(TimeoutError):
            await within(0.01, late)
        assert isinstance(late.exception(), TimeoutError)

    run(main())


def test_a_deadline_around_it_and_a_cancellation_count_as_they_are(run: Run) -> None:
    async def main() -> None:
        asked = answer()
        with pytest.raises(DeadlineExceeded, match="handler"):
            async with deadline(0.01, "handler"):
                await within(5.0, asked)
        assert asked.cancelled()
        asked = answer()
        task = asyncio.create_task(within(5.0, asked))
        await asyncio.sleep(0)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        assert task.cancelled()
        assert asked.cancelled()

    run(main())


def test_one_that_is_cancelled_when_it_is_late_leaves_no_error_that_nobody_has_seen(run: Run) -> None:
    async def main() -> None:
        told: list[Any] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: told.append(context))
        task = asyncio.create_task(within(0.01, answer()))
        loop.call_later(0.01, task.cancel)
        await asyncio.wait((task,))
        del task
        gc.collect()
        assert told == []

    run(main())


def test_a_pause_is_as_long_as_it_says_and_ends_when_it_is_cancelled(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        await pause(0.02)
        assert loop.time() - began >= 0.019
        task = asyncio.create_task(pause(60.0))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait((task,), timeout=1.0)
        assert task.cancelled()

    run(main())
