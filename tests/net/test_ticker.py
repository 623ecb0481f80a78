"""Served time: it follows the clock, but not through a stall."""

from __future__ import annotations

import asyncio
import threading
import types
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from functools import partial
from typing import Any

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from sojourn.clock import NEVER, ManualClock, SystemClock
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


@given(st.lists(st.floats(0.0, 0.149), min_size=1, max_size=40), st.data())
def test_what_is_judged_by_how_far_the_hand_may_be_behind_is_never_early(
    lates: list[float], data: st.DataObject
) -> None:
    clock, ticker, _ = ticking()
    limit = data.draw(st.floats(0.01, 2.0))
    waiting: list[tuple[float, float]] = []  # when a deadline was set, and its moment
    took: list[float] = []

    def ended(began: float) -> None:
        took.append(clock.monotonic() - began)

    for late in lates + [0.0] * 25:
        before = data.draw(st.floats(0.0, TICK + late))
        clock.advance(before)
        began = clock.monotonic()
        waiting.append((began, ticker.now + limit))
        ticker.call_later(limit, partial(ended, began))
        clock.advance(TICK + late - before)
        ticker.tick()
        judged = ticker.now - ticker.behind + 1e-6
        for began, moment in waiting:
            if moment <= judged:
                ended(began)
        waiting = [each for each in waiting if each[1] > judged]
    assert took
    assert limit - 1e-5 <= min(took)
    assert max(took) <= limit + 5 * TICK


def test_how_late_a_tick_was_is_forgotten_after_a_minute() -> None:
    clock, ticker, _ = ticking()
    step(clock, ticker, 0.2, 5.0)
    assert ticker.lag == pytest.approx(0.1)
    step(clock, ticker, *[TICK] * 300)
    assert ticker.lag == pytest.approx(0.1)
    step(clock, ticker, *[TICK] * 300)
    assert ticker.lag < 1e-9


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


class Loop:
    """Timers that ring when a test says so."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.timers: list[tuple[float, Callable[[], None], Any]] = []

    def call_later(self, delay: float, callback: Callable[[], None], *, context: Context | None = None) -> Any:
        timer = (self.clock.monotonic() + delay, callback, self)
        self.timers.append(timer)
        handle = types.SimpleNamespace(cancel=lambda: timer in self.timers and self.timers.remove(timer))
        return handle

    def ring(self) -> float:
        """Let the next timer ring, at its moment; how long that took."""
        self.timers.sort(key=lambda timer: timer[0])
        moment, callback, _ = self.timers.pop(0)
        waited = moment - self.clock.monotonic()
        self.clock.advance(max(0.0, waited))
        callback()
        return waited


def dozing(due: float = NEVER) -> tuple[Ticker, ManualClock, Loop, list[float]]:
    """A ticker whose turns have nothing to do before a moment."""
    clock = ManualClock()
    ticker = Ticker(clock)
    loop, turns = Loop(clock), []
    ticker.start(loop, turns.append, lambda until: min(until, due))  # type: ignore[arg-type]
    return ticker, clock, loop, turns


def test_a_ticker_with_nothing_to_do_looks_once_a_second() -> None:
    ticker, _, loop, turns = dozing()
    assert [round(loop.ring(), 6) for _ in range(5)] == [TICK, 1.0, 1.0, 1.0, 1.0]
    assert len(turns) == 5
    assert ticker.now == pytest.approx(turns[-1])


def test_who_reads_the_time_of_a_dozing_ticker_gets_it_to_the_moment_and_wakes_it() -> None:
    ticker, clock, loop, _ = dozing()
    loop.ring()
    start = ticker.now
    loop.ring()
    clock.advance(0.63)
    assert ticker.now == pytest.approx(start + TICK + 0.63)
    assert loop.ring() == pytest.approx(TICK)
    assert len(loop.timers) == 1


def test_a_dozing_ticker_is_there_when_something_is_due() -> None:
    clock = ManualClock()
    ticker, _, loop, _ = dozing(due=clock.monotonic() + 0.55)
    loop.ring()
    assert loop.ring() == pytest.approx(0.45)
    made: list[float] = []
    ticker.call_later(0.31, lambda: made.append(ticker.now))
    start = ticker.now
    while not made:
        loop.ring()
    assert start + 0.31 <= made[0] <= start + 0.31 + 2 * TICK


def test_a_stall_while_the_ticker_dozes_is_no_served_time() -> None:
    for read_first in (False, True):
        ticker, clock, loop, turns = dozing()
        loop.ring()
        loop.ring()
        before = turns[-1]
        clock.advance(10.0)  # of which one second was planned
        if read_first:
            assert ticker.now == before
        loop.ring()
        assert ticker.now == before


@on_both_loops
def test_who_wakes_a_dozing_ticker_lends_it_nothing_of_its_own(run: Run) -> None:
    whose = ContextVar("whose", default="nobody's")

    async def main() -> None:
        ticks: list[str] = []
        ticker = Ticker(SystemClock(), tick=0.01)
        whose.set("the server's")
        ticker.start(asyncio.get_running_loop(), lambda now: ticks.append(whose.get()), lambda until: until)
        await asyncio.sleep(0.03)
        assert type(ticker) is not Ticker, "it dozes"
        copy_context().run(lambda: (whose.set("a request's"), ticker.now))
        await asyncio.sleep(0.03)
        ticker.stop()
        assert len(ticks) > 1
        assert set(ticks) == {"the server's"}

    run(main())


def test_another_thread_reads_the_time_without_waking_the_ticker() -> None:
    ticker, clock, loop, _ = dozing()
    loop.ring()
    clock.advance(0.5)
    read: list[float] = []
    thread = threading.Thread(target=lambda: read.append(ticker.now))
    thread.start()
    thread.join()
    assert read == [clock.monotonic() - 0.5]
    assert loop.ring() == pytest.approx(0.5)


def test_what_is_done_regularly_is_done_together() -> None:
    ticker, clock, loop, _ = dozing()
    made: list[tuple[str, float]] = []

    def again(name: str, interval: float) -> None:
        made.append((name, ticker.now))
        ticker.call_together(interval, lambda: again(name, interval))

    for name, interval in (("a", 1.0), ("b", 1.0), ("c", 5.0)):
        clock.advance(0.17)
        ticker.call_together(interval, lambda name=name, interval=interval: again(name, interval))  # type: ignore[misc]
    rings = 0
    end = clock.monotonic() + 10.0
    while clock.monotonic() < end:
        loop.ring()
        rings += 1
    assert len({round(moment, 3) for _, moment in made}) <= 11
    assert rings <= 24
    assert sum(name == "a" for name, _ in made) in (9, 10)
    assert sum(name == "c" for name, _ in made) in (1, 2)
