"""What one member that reads nothing costs the other 999: P99 of delivery with it and without it, in turns."""

from __future__ import annotations

import http.client
import json
import statistics
from collections.abc import Callable
from dataclasses import replace

from bench import machine
from bench.fan import Fan
from bench.figures.fanout import CHANNEL, Cost, Up, cost
from bench.process import BenchError
from bench.results import Results, Sample
from bench.servers import Running, Spec, fan_catalogue

Say = Callable[[str], None]
MEMBERS = 1000
#: Calls of one message, so many seconds apart, of one measurement; and so many measurements of each kind.
CALLS, GAP, TURNS = 70, 0.015, 4
#: Calls and messages of a call, again and again until the hub drops something: until the kernel's buffers (some 4 MB)
#: and the outbox of the one that is stalled are full.
FILL, FILLS = (10, 240), 60


def _lossy() -> Spec:
    sojourn = fan_catalogue("")["sojourn"]
    return replace(sojourn, env=(*sojourn.env, ("BENCH_LOSSY", "1")))


def _dropped(running: Running) -> int:
    """Messages that the hub has not kept for somebody."""
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=10)
    try:
        connection.request("GET", "/stats", headers={"Connection": "close"})
        return int(json.load(connection.getresponse())["dropped"]["drop_oldest"])
    finally:
        connection.close()


def _stall(up: Up) -> None:
    """One member reads nothing from now on, and nothing more can be kept for it."""
    before = _dropped(up.running)
    up.fan.stall(1)
    for _ in range(FILLS):
        up.fan.call(*FILL)
        if _dropped(up.running) > before:
            return
    raise BenchError("nothing was dropped: nobody is stalled")


def _turns(up: Up) -> tuple[list[Cost], list[Cost], int]:
    """Without and with the stalled member, in turns; bytes that the process has grown by while it was stalled."""
    alone, beside, grown = [], [], 0
    for _ in range(4):
        up.fan.call(*FILL)  # memory that all members need is there before the first look at it
    for _ in range(TURNS):
        alone.append(cost(up, CALLS, 1, GAP))
        before = machine.memory_bytes(up.running.pid)["pss"]
        _stall(up)
        beside.append(cost(up, CALLS, 1, GAP))
        grown = max(grown, machine.memory_bytes(up.running.pid)["pss"] - before)
        up.fan.unstall()
    return alone, beside, grown


def _round(number: int, results: Results, say: Say) -> None:
    with Running(_lossy()) as running, Fan([running.port], CHANNEL + "&since=", MEMBERS) as fan:
        alone, beside, grown = _turns(Up(running, fan))
        missed = fan.look().missed
    ratio = statistics.median(b.told.p99_us / a.told.p99_us for a, b in zip(alone, beside, strict=True))
    p99 = [statistics.median(c.told.p99_us for c in found) / 1e3 for found in (alone, beside)]
    cpu = [statistics.median(c.cpu for c in found) * 1e3 for found in (alone, beside)]
    detail = {
        "p99_alone_ms": p99[0], "p99_beside_ms": p99[1], "cpu_alone_ms": cpu[0], "cpu_beside_ms": cpu[1],
        "grown": grown, "missed": missed,
    }  # fmt: skip
    results.samples.append(Sample("fan_stalled", "sojourn", number, ratio, detail=detail))
    told = (
        f"999 members got a message within {p99[0]:.2f} ms (P99), beside a stalled one within {p99[1]:.2f} ms; "
        f"{cpu[0]:.2f} and {cpu[1]:.2f} ms of processor time a message, {grown / 1024:,.0f} KiB more memory, "
        f"{missed:,} messages not kept for the stalled one."
    )
    say(f"round {number} fan_stalled: {told}")
    results.notes.append(told)


def run(rounds: int, results: Results, say: Say) -> None:
    """All rounds of this figure."""
    for number in range(1, rounds + 1):
        try:
            _round(number, results, say)
        except (BenchError, OSError) as error:
            results.fail("fan_stalled", BenchError(str(error)))
            say(f"fan_stalled: {error}")
            return
