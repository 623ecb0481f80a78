"""Served time: it follows the clock, but not through a stall."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from sojourn.clock import ManualClock
from sojourn.net.ticker import TICK, Ticker

on_both_loops = pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
Run = Callable[[Coroutine[Any, Any, None]], None]


def ticking() -> tuple[ManualClock, Ticker, list[float]]:
    clock = ManualClock(start=100.0)
    stalls: list[float] = []
    return clock, Ticker(clock, stalls.append), stalls


def step(clock: ManualClock, ticker: Ticker, *seconds: float) -> float:
    for each in seconds:
        clock.advance(each)
        ticker.tick()
    return ticker.now - 100.0


def test_ordinary_lag_counts() -> None:
    clock, ticker, stalls = ticking()
    assert step(clock, ticker, 0.1, 0.2, 0.24) == pytest.approx(0.54)
    assert stalls == []


@pytest.mark.parametrize("stall", [0.3, 3.0, 10.0, 86400.0])
def test_a_stall_does_not_count(stall: float) -> None:
    clock, ticker, _ = ticking()
    assert step(clock, ticker, stall) == 0.0
    assert step(clock, ticker, 0.1) == pytest.approx(0.1)


@pytest.mark.parametrize("stall", [3.0, 10.0])
def test_a_stall_is_reported_with_its_length(stall: float) -> None:
    clock, ticker, stalls = ticking()
    step(clock, ticker, 0.1, stall, 0.1)
    assert stalls == [stall]


def test_a_loop_that_is_always_late_still_has_time_that_goes_on() -> None:
    clock, ticker, _ = ticking()
    assert step(clock, ticker, *[0.5] * 11) == pytest.approx(10 * TICK)


@given(st.lists(st.floats(0.0, 20.0), max_size=50))
def test_served_time_never_goes_back_and_never_faster_than_the_clock(steps: list[float]) -> None:
    clock, ticker, _ = ticking()
    before = 0.0
    for each in steps:
        now = step(clock, ticker, each)
        assert before <= now <= before + min(each, 2.5 * TICK) + 1e-9
        before = now


def test_calls_are_made_in_the_order_of_their_moments_at_most_two_ticks_late_and_never_early() -> None:
    clock, ticker, _ = ticking()
    made: list[tuple[str, float]] = []
    for name, delay in (("late", 0.35), ("soon", 0.05), ("now", 0.0), ("never", 9.0)):
        ticker.call_later(delay, lambda name=name: made.append((name, ticker.now - 100.0)))
    cancelled = ticker.call_later(0.2, lambda: made.append(("cancelled", 0.0)))
    cancelled.cancel()
    step(clock, ticker, *[TICK] * 6)
    assert [name for name, _ in made] == ["now", "soon", "late"]
    for (_, at), delay in zip(made, (0.0, 0.05, 0.35), strict=True):
        assert delay <= at <= delay + 2 * TICK + 1e-9


def test_a_call_made_by_a_call_comes_later_not_never() -> None:
    clock, ticker, _ = ticking()
    made: list[int] = []

    def again() -> None:
        made.append(len(made))
        if len(made) < 3:
            ticker.call_later(0.1, again)

    ticker.call_later(0.0, again)
    step(clock, ticker, *[TICK] * 8)
    assert made == [0, 1, 2]


def test_the_date_line_follows_the_wall_clock() -> None:
    clock = ManualClock(wall=784111777.0)
    ticker = Ticker(clock)
    assert ticker.date == b"date: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
    clock.advance(1.0)
    assert ticker.date.endswith(b"08:49:37 GMT\r\n")
    ticker.tick()
    assert ticker.date.endswith(b"08:49:38 GMT\r\n")


@on_both_loops
def test_a_function_that_raises_stops_neither_the_ticks_nor_the_others(run: Run) -> None:
    turns: list[float] = []
    made: list[str] = []
    reported: list[dict[str, Any]] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: reported.append(context))
        clock = ManualClock()
        ticker = Ticker(clock)

        def turn(now: float) -> None:
            turns.append(now)
            clock.advance(TICK)
            if len(turns) == 1:
                raise LookupError("the turn")
            if len(turns) == 4:
                done.set()

        def fail() -> None:
            raise ValueError("a call")

        done = asyncio.Event()
        ticker.call_later(0.0, fail)
        ticker.call_later(0.0, lambda: made.append("the next one"))
        ticker.start(loop, turn)
        async with asyncio.timeout(10):
            await done.wait()
        ticker.stop()

    run(main())
    assert made == ["the next one"]
    assert [type(context["exception"]) for context in reported] == [LookupError, ValueError]
    assert len(turns) == 4


@on_both_loops
def test_a_stopped_ticker_ticks_no_more_and_forgets_its_calls(run: Run) -> None:
    async def main() -> None:
        clock = ManualClock()
        ticker = Ticker(clock)
        made: list[float] = []
        ticker.call_later(0.0, lambda: made.append(0.0))
        ticker.start(asyncio.get_running_loop(), made.append)
        ticker.stop()
        done = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(3 * TICK, done.set_result, None)
        await done
        ticker.tick()
        assert made == []

    run(main())
