"""How late a missed deadline is noticed on a busy processor, beside asyncio, anyio and Go; and what arming costs."""

from __future__ import annotations

import sys
from collections.abc import Callable

from bench import build, machine
from bench.process import BenchError, run_json
from bench.results import Results, Sample

Say = Callable[[str], None]

#: Figure -> event loop.
LOOPS = {"overshoot": "uvloop", "overshoot_asyncio": "asyncio"}
KINDS = ("sojourn", "asyncio", "anyio", "go")
#: Seconds in which one measurement must be done.
PATIENCE = 30.0


def run(only: list[str], rounds: int, results: Results, say: Say) -> None:
    """Round by round, one after the other on the server's core."""
    for number in range(1, rounds + 1):
        for figure, loop in LOOPS.items():
            for kind in KINDS if figure in only else ():
                _measure(figure, kind, loop, number, results, say)
        if "rearm" in only:
            _rearm(number, results, say)


def _measure(figure: str, kind: str, loop: str, number: int, results: Results, say: Say) -> None:
    name = "sojourn" if kind == "sojourn" else f"{kind}"
    try:
        if kind == "go":
            command = ["env", "GOMAXPROCS=1", build.overshoot()]
        else:
            command = [sys.executable, "-m", "bench.apps.overshoot", kind, loop]
        found = run_json(command, machine.cores()[1], PATIENCE).data
    except (BenchError, OSError) as error:
        results.fail(f"{figure} of {name}", BenchError(str(error)))
        return
    results.samples.append(Sample(figure, name, number, found["p99_ms"], detail=found))
    words = "P50 {p50_ms:.2f} ms, P99 {p99_ms:.2f} ms, processor {busy:.0%}".format(**found)
    say(f"round {number} {figure} {name:10} {words}")


def _rearm(number: int, results: Results, say: Say) -> None:
    try:
        found = run_json([sys.executable, "-m", "bench.apps.rearm"], machine.cores()[1], PATIENCE).data
    except (BenchError, OSError) as error:
        results.fail("rearm", BenchError(str(error)))
        return
    results.samples.append(Sample("rearm", "sojourn", number, found["us"], detail=found))
    say(f"round {number} rearm {found['us']:.3f} us")
