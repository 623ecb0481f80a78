"""Who keeps the event loop is named."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable

import pytest
import uvloop

from sojourn.clock import SystemClock
from sojourn.net.ticker import Ticker
from sojourn.observe.stalls.stack import Spot, in_words
from sojourn.observe.stalls.watchdog import Stall, Watchdog, _busiest, _Sight

PATIENCE = 0.2
LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
#: Calls keep the interpreter's lock.
NATIVE = ctypes.PyDLL(None)
both = pytest.mark.parametrize("loop", LOOPS)


def watched(
    loop: str, act: Callable[[], Awaitable[None]], *, wait: bool = True, ticker: Ticker | None = None
) -> list[Stall]:
    """The stalls that a function makes."""
    stalls: list[Stall] = []
    dozes = ticker is not None
    ticker = ticker or Ticker(SystemClock())

    async def main() -> None:
        watchdog = Watchdog(asyncio.get_running_loop(), ticker, PATIENCE, stalls.append, ticker.clock)
        ticker.start(asyncio.get_running_loop(), lambda now: None, (lambda limit: limit) if dozes else None)
        try:
            await asyncio.sleep(0.35)
            assert not any(stall.stack for stall in stalls)
            stalls.clear()  # those of a busy machine, in which nobody was seen at work
            await act()
            for _ in range(500 if wait else 40):
                if not stalls:
                    await asyncio.sleep(0.01)
        finally:
            watchdog.close()
            ticker.stop()

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(main())
    return stalls


def name(stall: Stall) -> str:
    return in_words(stall.stack[stall.blamed]) if stall.blamed is not None else ""


def wait_for_a_lock() -> None:
    time.sleep(1.0)


@both
def test_a_function_that_blocks_is_named_with_its_line(loop: str) -> None:
    async def act() -> None:
        wait_for_a_lock()

    (stall,) = watched(loop, act)
    assert stall.cause == "code"
    line = wait_for_a_lock.__code__.co_firstlineno + 1
    assert name(stall) == f"{__name__}.wait_for_a_lock {__file__}:{line}"
    assert "time.sleep(1.0)" in stall.text
    assert stall.text.index("in act") < stall.text.index("time.sleep(1.0)")
    assert 0.7 <= stall.seconds < 3.0
    assert stall.processor < 0.25


@both
def test_a_function_that_computes_is_told_from_one_that_waits(loop: str) -> None:
    def compute() -> None:
        until = time.thread_time() + 0.4  # of the processor, which others may have meanwhile
        while time.thread_time() < until:
            pass

    async def act() -> None:
        compute()

    (stall,) = watched(loop, act)
    assert stall.cause == "code"
    assert "compute" in name(stall)
    assert stall.processor > 0.1


@both
def test_native_code_that_keeps_the_interpreter_is_named_with_the_line_that_called_it(loop: str) -> None:
    async def act() -> None:
        NATIVE.usleep(500_000)

    (stall,) = watched(loop, act)
    assert stall.cause == "native"
    assert name(stall).endswith(f".act {__file__}:{act.__code__.co_firstlineno + 1}")


def test_an_expression_that_backtracks_for_long_is_native_code() -> None:
    async def act() -> None:
        until = time.monotonic() + 0.4
        length = 21
        while time.monotonic() < until:
            re.match("(a+)+$", "a" * length + "b")
            length += 1

    stalls = watched("asyncio", act)
    assert stalls
    assert all("act" in name(stall) for stall in stalls)


@both
def test_a_collection_is_told_from_the_function_that_set_it_off(loop: str) -> None:
    keep = [[number] for number in range(400_000)]

    async def act() -> None:
        until = time.monotonic() + 0.6
        while time.monotonic() < until:
            gc.collect()

    (stall,) = watched(loop, act)
    assert stall.cause == "gc"
    assert stall.collector > 0.2
    assert "act" in name(stall)
    assert len(keep) == 400_000


STOPPED = """
import asyncio, sys
from sojourn.clock import SystemClock
from sojourn.net.ticker import Ticker
from sojourn.observe.stalls.watchdog import Watchdog

async def main():
    stalls = []
    ticker = Ticker(SystemClock())
    watchdog = Watchdog(asyncio.get_running_loop(), ticker, 0.1, stalls.append, ticker.clock)
    ticker.start(asyncio.get_running_loop(), lambda now: None)
    await asyncio.sleep(0.3)
    print("ready", flush=True)
    while not stalls:
        await asyncio.sleep(0.05)
    print(stalls[0].cause, stalls[0].blamed, flush=True)
    watchdog.close()

asyncio.run(main())
"""


def test_a_process_that_was_stopped_blames_nobody() -> None:
    with subprocess.Popen([sys.executable, "-c", STOPPED], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
            process.send_signal(signal.SIGSTOP)
            time.sleep(0.6)
            process.send_signal(signal.SIGCONT)
            assert process.stdout.readline() == "machine None\n"
            assert process.wait(10) == 0
        finally:
            process.kill()


def test_a_thread_that_keeps_the_interpreter_is_named_when_the_loop_itself_runs_nothing() -> None:
    def backtrack() -> None:
        re.match("(a+)+$", "a" * 25 + "b")

    async def act() -> None:
        thread = threading.Thread(target=backtrack, name="hog")
        asyncio.get_running_loop().call_later(0.01, thread.start)
        await asyncio.sleep(0.05)
        await asyncio.get_running_loop().run_in_executor(None, thread.join)

    stalls = watched("asyncio", act)
    assert stalls
    stall = max(stalls, key=lambda stall: stall.seconds)
    assert stall.processor < 0.5 * stall.seconds
    assert stall.cause == "native"
    # Whoever of the two waits for the interpreter is seen: the loop in the start of the thread, or the thread.
    assert stall.thread in ("", "hog")
    if stall.thread:
        assert "backtrack" in name(stall)


def test_a_thread_has_the_name_that_it_had_when_it_was_seen() -> None:
    """Its number is by now that of another."""
    stack = (Spot(wait_for_a_lock.__code__, 1, __name__),)
    mine = threading.get_ident()
    sight = _Sight(1.0, (), {mine: stack}, {mine: 0.8}, {mine: "hog"})
    assert _busiest([sight], {mine: 0.1}) == ("hog", stack)


@both
def test_a_busy_loop_is_no_stall(loop: str) -> None:
    async def act() -> None:
        for _ in range(20_000):
            await asyncio.sleep(0)

    assert not any(stall.stack for stall in watched(loop, act, wait=False))


@both
@pytest.mark.parametrize("pause", [0.0, 0.4, 1.1])
def test_a_function_that_blocks_when_a_request_has_just_woken_a_dozing_ticker_is_named(loop: str, pause: float) -> None:
    ticker = Ticker(SystemClock())

    async def act() -> None:
        await asyncio.sleep(pause)
        assert ticker.now > 0  # as a request does, it reads the time
        wait_for_a_lock()

    (stall,) = watched(loop, act, ticker=ticker)
    assert stall.cause == "code"
    assert "wait_for_a_lock" in name(stall)


def test_an_idle_loop_whose_ticker_dozes_is_no_stall_and_nobody_looks_at_it(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []
    monkeypatch.setattr(Watchdog, "_look", lambda self, own: looks.append(own))

    async def act() -> None:
        await asyncio.sleep(2.5)

    assert watched("asyncio", act, wait=False, ticker=Ticker(SystemClock())) == []
    assert looks == []


def test_each_stall_is_told_once() -> None:
    async def act() -> None:
        for _ in range(3):
            wait_for_a_lock()
            await asyncio.sleep(0.25)

    stalls = watched("asyncio", act)
    assert [stall.cause for stall in stalls] == ["code"] * 3


def test_the_function_that_was_seen_most_is_blamed_for_a_long_stall() -> None:
    def short() -> None:
        time.sleep(0.15)

    def long() -> None:
        time.sleep(1.2)

    async def act() -> None:
        short()
        long()

    (stall,) = watched("asyncio", act)
    assert "long" in name(stall)


def test_the_line_that_was_seen_for_longest_is_blamed_of_a_function() -> None:
    def short_and_long() -> None:
        time.sleep(0.3)
        time.sleep(1.0)

    async def act() -> None:
        short_and_long()

    (stall,) = watched("asyncio", act)
    assert name(stall).endswith(f":{short_and_long.__code__.co_firstlineno + 2}")


def test_whoever_asked_for_lateness_before_is_still_told_and_has_it_back_afterwards() -> None:
    async def main() -> None:
        late: list[float] = []
        ticker = Ticker(SystemClock())
        ticker.lagged = before = late.append
        watchdog = Watchdog(asyncio.get_running_loop(), ticker, PATIENCE, lambda stall: None, ticker.clock)
        ticker.tick()
        watchdog.close()
        watchdog.close()
        assert ticker.lagged is before
        ticker.tick()
        assert len(late) == 2

    before = len(gc.callbacks)
    asyncio.run(main())
    assert len(gc.callbacks) == before
    for thread in [thread for thread in threading.enumerate() if thread.name == "sojourn-watchdog"]:
        thread.join(5.0)  # it was told to end, and may need its turn for that
        assert not thread.is_alive()


def test_a_hook_that_somebody_has_chained_goes_quiet() -> None:
    async def main() -> None:
        late: list[float] = []
        ticker = Ticker(SystemClock())
        ticker.lagged = late.append
        watchdog = Watchdog(asyncio.get_running_loop(), ticker, PATIENCE, lambda stall: None, ticker.clock)
        chained = ticker.lagged
        ticker.lagged = other = lambda seconds: chained(seconds)
        watchdog.close()
        assert ticker.lagged is other
        ticker.lagged(5.0)
        assert late == [5.0]

    asyncio.run(main())
