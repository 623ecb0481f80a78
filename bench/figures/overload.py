"""Three times the load that can be done: what is still answered in time, and how late. See ``bench/overload``."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable

from bench.overload.__main__ import run_round
from bench.process import BenchError
from bench.results import Results, Sample

Say = Callable[[str], None]

SERVERS = ("sojourn", "uvicorn")
#: As the defaults of ``python -m bench.overload``.
PLAN = Namespace(seconds=18.0, warm=8.0, calm=12.0, ms=5.0, factor=3.0, deadline=1.0, connections="fresh")


def run(rounds: int, results: Results, say: Say) -> None:
    """Round by round; goodput is a share of the peak, the P99 a multiple of that at 80 % load."""
    for number in range(1, rounds + 1):
        for name in SERVERS:
            try:
                found = run_round(name, PLAN)
            except (BenchError, OSError) as error:
                results.fail(f"overload of {name}", BenchError(str(error)))
                continue
            goodput = found["overload"]["good"] / found["peak"]["good"]
            late, calm = found["overload"]["p99"], found["80 %"]["p99"]
            detail = {what: {key: seen[key] for key in ("good", "p50", "p99")} for what, seen in found.items()}
            results.samples.append(Sample("goodput", name, number, goodput * 100.0, detail=detail))
            if late and calm:
                results.samples.append(Sample("overload_p99", name, number, late / calm, detail=detail))
            say(f"round {number} overload {name:10} goodput {goodput:.0%} of peak, P99 {(late or 0) * 1000:.0f} ms")
