"""Idle connections: memory of each kind, and the processor time of WebSockets that only answer pings."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass

from bench import clients, machine
from bench.holder import Holder
from bench.process import BenchError
from bench.results import Results, Sample
from bench.servers import Running, Spec

Say = Callable[[str], None]
SETTLE_DEADLINE = 6.0
SETTLE_STEP = 0.4


@dataclass(frozen=True)
class Plan:
    """How many connections, seconds of the processor window, and how often."""

    connections: int = 5000
    window: float = 40.0
    rounds: int = 1

    @property
    def lifetime(self) -> float:
        """An opener ends itself after this, whatever happens to the benchmark."""
        return 600.0 + self.window


def settled(running: Running) -> dict[str, int]:
    """Memory after a collection, once two readings agree within 0.5 %."""
    running.get("/gc")
    until, last = time.monotonic() + SETTLE_DEADLINE, machine.memory_bytes(running.pid)
    while time.monotonic() < until:
        time.sleep(SETTLE_STEP)
        now = machine.memory_bytes(running.pid)
        if abs(now["pss"] - last["pss"]) <= 0.005 * last["pss"]:
            return now
        last = now
    return last


def _open(running: Running, kind: str, number: int, plan: Plan, stack: ExitStack) -> tuple[Sample, Holder]:
    """Opens the connections; memory per connection is the difference of the process tree's Pss."""
    for _ in range(10):
        running.get("/")
    if kind == "ws":
        clients.echo(running.port, 0.2, connections=1)
    before = settled(running)
    holder = stack.enter_context(Holder(kind, running.port, plan.connections, plan.lifetime))
    after = settled(running)
    holder.ask()
    running.alive()
    each = {name: (after[name] - before[name]) / plan.connections / 1024 for name in after}
    detail = {"kib": each, "before": before, "after": after, "connections": plan.connections}
    return Sample(f"idle_{kind}", running.spec.name, number, each["pss"], detail=detail), holder


def _http(specs: Iterable[Spec], number: int, plan: Plan, results: Results, say: Say) -> None:
    for spec in specs:
        try:
            with ExitStack() as stack:
                running = stack.enter_context(Running(spec))
                sample, _ = _open(running, "http", number, plan, stack)
        except BenchError as error:
            results.fail(f"{spec.name}, idle_http", error)
            say(f"{spec.name}, idle_http: {error}")
            continue
        results.samples.append(sample)
        say(f"round {number} idle_http {spec.name:20} {sample.value:8.2f} KiB")


def _websockets(specs: Iterable[Spec], wanted: list[str], number: int, plan: Plan, results: Results, say: Say) -> None:
    for spec in specs:
        with ExitStack() as own:
            try:
                running = own.enter_context(Running(spec))
                sample, holder = _open(running, "ws", number, plan, own)
            except BenchError as error:
                results.fail(f"{spec.name}, idle_ws", error)
                say(f"{spec.name}, idle_ws: {error}")
                continue
            if "idle_ws" in wanted:
                results.samples.append(sample)
            say(f"round {number} idle_ws {spec.name:20} {sample.value:8.2f} KiB")
            if "idle_cpu" in wanted and "idle_cpu" in spec.figures:
                _window(running, holder, number, plan, results, say)


def _window(running: Running, holder: Holder, number: int, plan: Plan, results: Results, say: Say) -> None:
    """Reads a server's processor clock at both ends of a window in which it has the core to itself."""
    name = running.spec.name
    time.sleep(1.0)
    try:
        pings, cpu, start = holder.ask().pings, machine.cpu_seconds(running.pid), time.monotonic()
        time.sleep(plan.window)
        used, took = machine.cpu_seconds(running.pid) - cpu, time.monotonic() - start
        running.alive()
        each = (holder.ask().pings - pings) / plan.connections
    except BenchError as error:
        results.fail(f"{name}, idle_cpu", error)
        return
    if not each:
        results.fail(f"{name}, idle_cpu", BenchError(f"{name} sent no ping within {took:.0f} s: not compared"))
        return
    share = 100 * used / took
    results.samples.append(Sample("idle_cpu", name, number, share, detail={"pings_each": each, "seconds": took}))
    say(f"round {number} idle_cpu {name:20} {share:8.3f} % of a core, {each:.2f} pings per connection")
    results.notes.append(f"{name} idle for {took:.0f} s, alone on its core: {each:.2f} pings per connection.")


def run(specs: list[Spec], wanted: list[str], plan: Plan, results: Results, say: Say) -> None:
    """All rounds of the idle figures; a server that did not start before is left out."""
    usable = [spec for spec in specs if spec.name not in results.errors]
    for number in range(1, plan.rounds + 1):
        if "idle_http" in wanted:
            _http([spec for spec in usable if "idle_http" in spec.figures], number, plan, results, say)
        if "idle_ws" in wanted or "idle_cpu" in wanted:
            chosen = [spec for spec in usable if "idle_ws" in spec.figures]
            _websockets(chosen, wanted, number, plan, results, say)
