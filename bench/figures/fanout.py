"""One message to many: what a fan-out costs the server, how much an idle member holds, what one stalled member does.

All servers of a round are up with their members; they are measured one after the other, forth and back, so that a slow
moment of the machine meets all of them. The value is messages received per second of the server's processor time.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import NamedTuple

from bench import machine
from bench.fan import Fan, Told
from bench.figures.idle import settled
from bench.process import BenchError
from bench.results import Results, Sample
from bench.servers import Running, Spec, fan_catalogue

Say = Callable[[str], None]
CHANNEL = "/fan?ch=fan"
#: One measurement takes at least so many seconds, or so many calls.
LEAST, MOST_CALLS = 0.25, 20
#: Everything that has a row.
NAMES = tuple(fan_catalogue(""))


class Size(NamedTuple):
    """A crowd: its members, how often it is measured, and how many calls of each kind one measurement has at least."""

    members: int
    rounds: int
    sweeps: int
    calls: tuple[tuple[int, int], ...]  # messages of a call, calls
    without: frozenset[str] = frozenset()


SIZES = (
    Size(2000, 3, 4, ((20, 2), (1, 12))),
    Size(5000, 2, 2, ((20, 1), (1, 6)), frozenset({"sojourn-loop", "websockets"})),
)


def figure_of(members: int, messages: int) -> str:
    """Name of the figure."""
    return f"fan{messages}" + ("" if members == SIZES[0].members else f"_{members}")


class Up(NamedTuple):
    """A server with its members."""

    running: Running
    fan: Fan


class Cost(NamedTuple):
    """One measurement, in seconds of a call."""

    cpu: float
    wall: float
    told: Told


def cost(up: Up, calls: int, messages: int, gap: float = 0.0) -> Cost:
    """Processor time of the server's whole process tree, and the time until the last member had the last message."""
    before = machine.cpu_seconds(up.running.pid)
    told = up.fan.call(calls, messages, gap)
    used = machine.cpu_seconds(up.running.pid) - before
    up.running.alive()
    return Cost(used / calls, told.wall / calls, told)


def _start(
    specs: Sequence[Spec], size: Size, number: int, memory: bool, results: Results, say: Say, stack: ExitStack
) -> list[Up]:
    """The servers and their members; what the members hold in memory on the way."""
    found = []
    for spec in specs:
        if spec.name in size.without:
            continue
        try:
            running = stack.enter_context(Running(spec))
            before = settled(running) if memory else {}
            up = Up(running, stack.enter_context(Fan([running.port], CHANNEL, size.members)))
            up.fan.call(1, 1)
            found.append(up)
            if memory:
                after = settled(running)
                each = {name: (after[name] - before[name]) / size.members / 1024 for name in after}
                results.samples.append(Sample("fan_memory", spec.name, number, each["pss"], detail={"kib": each}))
                say(f"round {number} fan_memory {spec.name:13} {each['pss']:8.2f} KiB")
        except BenchError as error:
            results.fail(f"fan-out, {spec.name}", error)
            say(f"fan-out, {spec.name}: {error}")
    return found


def _sweep(up: list[Up], size: Size, messages: int, calls: int, results: Results, say: Say) -> dict[str, list[Cost]]:
    """One kind of call, all servers, forth and back."""
    found: dict[str, list[Cost]] = {each.running.spec.name: [] for each in up}
    often = {}
    for each in list(up):
        first = each.fan.call(1, messages)  # not measured
        often[each.running.spec.name] = max(calls, min(MOST_CALLS, round(LEAST / first.wall)))
    for turn in range(size.sweeps):
        for each in list(up if turn % 2 == 0 else reversed(up)):
            name = each.running.spec.name
            try:
                found[name].append(cost(each, often[name], messages))
            except BenchError as error:
                up.remove(each)
                results.fail(f"fan-out to {size.members}, {name}", error)
                say(f"fan-out to {size.members}, {name}: {error}")
    return found


def _round(specs: Sequence[Spec], size: Size, number: int, wanted: Sequence[str], results: Results, say: Say) -> None:
    memory = size is SIZES[-1] and "fan_memory" in wanted
    details: dict[str, dict[str, float]] = {}
    with ExitStack() as stack:
        up = _start(specs, size, number, memory, results, say, stack)
        for messages, calls in size.calls:
            figure = figure_of(size.members, messages)
            if figure not in wanted:
                continue
            for name, costs in _sweep(up, size, messages, calls, results, say).items():
                if not costs:
                    continue
                cpu, wall = (statistics.median(c[at] for c in costs) for at in (0, 1))
                rate = size.members * messages / cpu
                detail = {"cpu_ms": 1e3 * cpu, "wall_ms": 1e3 * wall, "calls": sum(c.told.calls for c in costs)}
                results.samples.append(Sample(figure, name, number, rate, detail=detail))
                details.setdefault(name, {}).update(
                    {f"cpu_{size.members}_{messages}": 1e3 * cpu, f"wall_{size.members}_{messages}": 1e3 * wall}
                )
                say(f"round {number} {figure:10} {name:13} {1e3 * cpu:8.2f} ms of a core  {1e3 * wall:8.2f} ms of time")
    for name, detail in details.items():
        key = number + 100 * SIZES.index(size)
        results.samples.append(Sample("fan_calls", name, key, 1e3 * size.members, detail=detail))


def run(wanted: Sequence[str], ws: str, most: int, results: Results, say: Say) -> None:
    """All rounds of these figures, `most` at most."""
    specs = list(fan_catalogue(ws).values())
    for size in SIZES:
        if any(figure_of(size.members, messages) in wanted for messages, _ in size.calls) or (
            size is SIZES[-1] and "fan_memory" in wanted
        ):
            for number in range(1, min(most, size.rounds) + 1):
                _round(specs, size, number, wanted, results, say)
