"""Stacks from the middle of a stall. In a process of its own: there is one such timer, and pytest uses it."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import asyncio, ctypes, os, sys, threading
from sojourn.clock import SystemClock
from sojourn.net.ticker import Ticker
from sojourn.observe.stalls.limit import HardLimit
from sojourn.observe.stalls.watchdog import Watchdog

native = ctypes.PyDLL(None)

def keeper():
    native.usleep(2_300_000)

async def main():
    told = []
    def stalled(stall):
        if stall.text:  # or nobody was seen at work: the machine was busy
            told.append(stall)
    ticker = Ticker(SystemClock())
    watchdog = Watchdog(asyncio.get_running_loop(), ticker, 0.25, stalled, ticker.clock)
    watchdog.limit(HardLimit(1.6, {fd}))
    ticker.start(asyncio.get_running_loop(), lambda now: None)
    await asyncio.sleep(0.5)
    {act}
    await asyncio.sleep(0.6)
    while not told:
        await asyncio.sleep(0.05)
    watchdog.close()
    ticker.stop()
    for stall in told:
        print(stall.cause, stall.thread or "-", stall.text)

asyncio.run(main())
"""


def run(act: str, fd: str = "None") -> subprocess.CompletedProcess[str]:
    script = SCRIPT.format(act=act, fd=fd)
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=True)


def test_native_code_in_another_thread_is_seen_while_nothing_of_python_can_run() -> None:
    done = run("asyncio.get_running_loop().call_later(0.01, threading.Thread(target=keeper).start)")
    assert done.stdout.startswith("native")
    assert "keeper" in done.stdout
    assert done.stderr == ""


def test_what_is_to_go_to_standard_error_goes_there_at_once() -> None:
    done = run("keeper()", "2")
    assert done.stdout.startswith("native")
    assert "in keeper" in done.stdout
    assert done.stderr.startswith("Timeout")
    assert "in keeper" in done.stderr


def test_a_loop_that_lives_dumps_nothing() -> None:
    done = run("import time; await asyncio.sleep(2.0); time.sleep(0.6)", "2")
    assert done.stdout.startswith("code")
    assert done.stderr == ""


@pytest.mark.parametrize("fd", ["None", "2"])
def test_closing_it_twice_takes_the_timer_back_once(fd: str) -> None:
    script = (
        "from sojourn.observe.stalls.limit import HardLimit; import time\n"
        f"limit = HardLimit(0.2, {fd}); limit.arm(5.0); limit.arm(5.5)\n"
        "limit.close(); limit.close(); limit.arm(9.0); time.sleep(0.5); print(repr(limit.read()))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=True)
    assert (done.stdout.strip(), done.stderr) == ("''", "")
