"""Requests and messages per second: all servers up, one measured at a time, round after round."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack

from bench import clients, machine
from bench.process import BenchError, Finished
from bench.results import Results, Sample
from bench.servers import Running, Spec, uvicorn_candidates

WARM_SECONDS = 1.0

CLIENTS: dict[str, Callable[[int, float], Finished]] = {
    "get": lambda port, seconds: clients.wrk(port, "/", seconds),
    "get7": lambda port, seconds: clients.wrk(port, "/", seconds, headers=clients.BROWSER_HEADERS),
    "post": lambda port, seconds: clients.wrk(port, "/post", seconds, post=clients.POST_BYTES),
    "echo": clients.echo,
    "get1000": lambda port, seconds: clients.wrk(port, "/", seconds, connections=1000),
}


def measure(running: Running, figure: str, number: int, seconds: float) -> Sample:
    """One figure of one server, with the use of both cores over the same time."""
    load_core, server_core = machine.cores()
    start, cpu = time.monotonic(), machine.cpu_seconds(running.pid)
    busy = [machine.busy_seconds(core) for core in (load_core, server_core)]
    done = CLIENTS[figure](running.port, seconds)
    took, used = time.monotonic() - start, machine.cpu_seconds(running.pid) - cpu
    busy = [machine.busy_seconds(core) - old for core, old in zip((load_core, server_core), busy, strict=True)]
    running.alive()
    others = None
    if load_core != server_core:
        others = max(0.0, busy[0] / took - done.core, (busy[1] - used) / took)
    return Sample(figure, running.spec.name, number, done.data["rate"], used / took, done.core, others, done.data)


def run_round(
    specs: Iterable[Spec], figures: list[str], number: int, seconds: float, results: Results, say: Callable[[str], None]
) -> None:
    """Starts every server afresh, then measures figure by figure, server by server."""
    with ExitStack() as stack:
        up: list[Running] = []
        for spec in specs:
            if spec.name in results.errors:
                continue
            try:
                up.append(stack.enter_context(Running(spec)))
            except BenchError as error:
                results.fail(spec.name, error)
                say(f"{spec.name}: {error}")
        for running in up:
            _warm(running, results)
        for figure in figures:
            for running in up:
                if figure not in running.spec.figures:
                    continue
                try:
                    sample = measure(running, figure, number, seconds)
                except BenchError as error:
                    results.fail(f"{running.spec.name}, {figure}", error)
                    say(f"{running.spec.name}, {figure}: {error}")
                    continue
                results.samples.append(sample)
                say(
                    f"round {number} {figure:8} {sample.server:20} {sample.value:>10,.0f}/s   server "
                    f"{sample.server_core or 0:4.0%}  client {sample.client_core or 0:4.0%}  "
                    f"others {sample.others or 0:4.0%}"
                )


def _warm(running: Running, results: Results) -> None:
    """The first second of a process is not measured."""
    try:
        clients.wrk(running.port, "/", WARM_SECONDS)
    except BenchError as error:
        results.fail(f"{running.spec.name}, warm-up", error)


def best_uvicorn_ws(seconds: float, results: Results, say: Callable[[str], None]) -> str:
    """Measures echo once per WebSocket implementation of uvicorn; the name of the fastest."""
    rates: dict[str, float] = {}
    for name, spec in uvicorn_candidates().items():
        try:
            with Running(spec) as running:
                rates[name] = measure(running, "echo", 0, seconds).value
        except BenchError as error:
            results.fail(f"uvicorn --ws {name}", error)
    best = max(rates, key=lambda name: rates[name], default="websockets-sansio")
    told = ", ".join(f"{name} {rate:,.0f}/s" for name, rate in rates.items()) or "none could be measured"
    results.notes.append(f"uvicorn's WebSocket implementations, echo, one run each: {told}; used: `{best}`.")
    say(results.notes[-1])
    return best
