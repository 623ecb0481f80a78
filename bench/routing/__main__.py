"""What finding a route costs with 10 to 10,000 routes: ``python -m bench.routing``, about a minute on a quiet machine.

Each figure is the best of some rounds, in processor time, because what disturbs one only ever adds to it. Requests are
spread over the whole table and hardly repeat. Prints tables, or one line of JSON; ends with 1 when a gate is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import sys
import time
from collections.abc import Callable
from typing import Any, Final

import uvloop

from bench import machine
from bench.routing.peers import MAKERS, Peer, versions
from bench.routing.tables import Request, misses, requests, rows

COUNTS: Final = (10, 100, 1_000, 10_000)
#: Seconds of processor time of one round, and rounds.
ROUND: Final = 0.04
ROUNDS: Final = 4
#: Milliseconds of making an application after which ten times the routes are not tried.
SLOW: Final = 400.0
#: Times slower that a lookup may be with 10,000 routes than with 10; times faster than Starlette with 1,000.
FLAT: Final = 1.5
FASTER: Final = 10.0
#: Different requests whose routes the processor's caches hold. Beyond them a lookup also waits for memory.
WARM: Final = 100

Figures = dict[tuple[str, str, int], float]


def found(peer: Peer, wanted: list[Request]) -> float:
    """Microseconds of finding a route."""
    find = peer.find
    assert find is not None
    for request in wanted[:3]:
        assert find(request) is not None, request

    def run(count: int) -> None:
        for request in wanted[:count]:
            find(request)

    return _best(run, len(wanted))


def answered(peer: Peer, wanted: list[Request], status: int) -> float:
    """Microseconds of a whole call of the application, with the scope that a server makes."""
    statuses = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        if "status" in message:
            statuses.append(message["status"])

    def scope(request: Request) -> dict[str, Any]:
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.5"},
            "http_version": "1.1",
            "method": request.method,
            "scheme": "http",
            "path": request.path,
            "raw_path": request.path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [(b"host", b"localhost")],
            "server": ("127.0.0.1", 80),
            "client": ("127.0.0.1", 5),
            "state": {},
            "extensions": {},
        }

    async def calls(count: int) -> None:
        for request in wanted[:count]:
            await peer.app(scope(request), receive, send)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        figure = _best(lambda count: runner.run(calls(count)), len(wanted))
    assert set(statuses) == {status}, set(statuses)
    return figure


def _best(run: Callable[[int], Any], most: int) -> float:
    """Microseconds a call, of the best round."""
    run(5)
    began = time.thread_time()
    run(20)
    each = (time.thread_time() - began) / 20
    count = max(20, min(most, int(ROUND / each)))
    times = []
    gc.collect()
    gc.disable()
    try:
        for _ in range(ROUNDS):
            began = time.thread_time()
            run(count)
            times.append((time.thread_time() - began) / count * 1e6)
    finally:
        gc.enable()
    return min(times)


def measure(names: list[str], counts: list[int], say: Callable[[str], None]) -> Figures:
    """Every router with every number of routes."""
    figures: Figures = {}
    for count in counts:
        table, wanted, nowhere = rows(count), requests(count), misses()
        for name in names:
            if figures.get(("made", name, counts[counts.index(count) - 1]), 0.0) > SLOW:
                say(f"{name}, {count} routes: left out, making it would take minutes")
                continue
            began = time.thread_time()
            peer = MAKERS[name](table)
            figures["made", name, count] = (time.thread_time() - began) * 1e3
            if peer.find is not None:
                figures["found", name, count] = found(peer, wanted[:WARM] * (len(wanted) // WARM))
                figures["spread", name, count] = found(peer, wanted)
            figures["answered", name, count] = answered(peer, wanted, 200)
            figures["missed", name, count] = answered(peer, nowhere, 404)
            say(
                f"{name}, {count} routes: "
                + ", ".join(
                    f"{kind} {figures[kind, name, count]:.2f}" for kind in KINDS if (kind, name, count) in figures
                )
            )
            del peer
            gc.collect()
    return figures


KINDS: Final = {
    "found": f"Finding the route, {WARM} different requests again and again, microseconds",
    "spread": "Finding the route, requests that hardly repeat, microseconds",
    "answered": "A whole call of the application, microseconds",
    "missed": "A whole call that ends with 404, microseconds",
    "made": "Making the application, milliseconds",
}


def markdown(figures: Figures, names: list[str], counts: list[int]) -> str:
    """The report."""
    facts = machine.describe()
    parts = [
        "# Routing\n\nMade by `python -m bench.routing`. How it is measured: its docstring, `peers.py`, `tables.py`.",
        f"{versions()}. {facts['processor']}, Python {facts['python']}, {facts['date']}.",
        "A dash: making the application with a tenth of the routes was slow already.",
    ]
    for kind, title in KINDS.items():
        lines = [f"## {title}", "", "| routes | " + " | ".join(f"{count:,}" for count in counts) + " |"]
        lines.append("| --- |" + " ---: |" * len(counts))
        for name in names:
            cells = [figures.get((kind, name, count)) for count in counts]
            lines.append(f"| {name} | " + " | ".join("-" if cell is None else f"{cell:,.2f}" for cell in cells) + " |")
        parts.append("\n".join(lines))
    parts.append("## Gates\n\n" + "\n".join(f"- {text}: {'met' if met else 'MISSED'}" for text, met in gates(figures)))
    return "\n\n".join(parts) + "\n"


def gates(figures: Figures) -> list[tuple[str, bool]]:
    """What is promised, as far as it was measured."""
    found = []
    for name, beside in (
        ("Sojourn", "Starlette"),
        ("Starlette, fast_routes", "Starlette"),
        ("FastAPI, fast_routes", "FastAPI"),
    ):
        few, many = figures.get(("found", name, 10)), figures.get(("found", name, 10_000))
        if few and many:
            found.append(
                (f"{name}: {many / few:.2f} times the cost with 10,000 routes (at most {FLAT:g})", many <= few * FLAT)
            )
        fast, slow = figures.get(("found", name, 1_000)), figures.get(("found", beside, 1_000))
        if fast and slow:
            times = slow / fast
            found.append(
                (f"{name}: {times:.0f} times as fast as {beside} with 1,000 (at least {FASTER:g})", times >= FASTER)
            )
    return found


def _row(figures: Figures, name: str, counts: list[int]) -> dict[str, float]:
    return {
        f"{kind}_{count}": figures[kind, name, count]
        for kind in KINDS
        for count in counts
        if (kind, name, count) in figures
    }


def main() -> int:
    """Returns 1 when a gate is missed."""
    parser = argparse.ArgumentParser(prog="python -m bench.routing", description="Routers, by the number of routes.")
    parser.add_argument("--counts", default=",".join(map(str, COUNTS)), help="numbers of routes")
    parser.add_argument("--only", default=",".join(MAKERS), help="routers, separated by semicolons")
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    args = parser.parse_args()
    counts = [int(count) for count in args.counts.split(",")]
    names = [name for name in MAKERS if name in args.only]
    if args.json:
        figures = measure(names, counts, lambda text: None)
        print(json.dumps({name: _row(figures, name, counts) for name in names}))
        return 0
    figures = measure(names, counts, lambda text: print(text, flush=True))
    print(markdown(figures, names, counts))
    missed = [text for text, met in gates(figures) if not met]
    print(*(f"missed: {text}" for text in missed), sep="\n")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
