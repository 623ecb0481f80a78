"""What finding one of many routes costs, router by router. See ``bench/routing``."""

from __future__ import annotations

import sys
from collections.abc import Callable

from bench import machine
from bench.process import BenchError, run_json
from bench.results import Results, Sample

Say = Callable[[str], None]

COUNTS = (10, 100, 1_000, 10_000)
PATIENCE = 240.0


def run(results: Results, say: Say) -> None:
    """One round, each figure the best of several in processor time; on the server's core."""
    command = [sys.executable, "-m", "bench.routing", "--json", "--counts", ",".join(map(str, COUNTS))]
    try:
        found = run_json(command, machine.cores()[1], PATIENCE).data
    except (BenchError, OSError) as error:
        results.fail("routers", BenchError(str(error)))
        return
    for name, row in found.items():
        if "found_1000" in row:
            results.samples.append(Sample("route", name.lower(), 1, row["found_1000"], detail=row))
    ours = found["Sojourn"]
    flat = ours["found_10000"] / ours["found_10"]
    results.samples.append(Sample("route_flat", "sojourn", 1, flat))
    say(f"routers: {ours['found_1000']:.2f} us with 1,000 routes, {flat:.2f} times as long with 10,000 as with 10")
