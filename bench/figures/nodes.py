"""A fan-out over Redis: two nodes with 1,000 members each, beside one node that has all 2,000 and no Redis.

The messages of a call are published at once, or each when Redis has the one before it: then each is a turn of its own,
and a write of its own for every member.
"""

from __future__ import annotations

import shutil
import socket
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from bench import machine, process
from bench.fan import Fan
from bench.figures.fanout import CHANNEL
from bench.process import BenchError
from bench.results import Results, Sample
from bench.servers import Running, fan_catalogue, free_port

Say = Callable[[str], None]
MEMBERS, MESSAGES, CALLS, SWEEPS = 2000, 20, 5, 3
READY = 5.0
ONE = "sojourn-one-node"
NODES: dict[str, tuple[tuple[str, str], ...]] = {"sojourn": (("BENCH_TOGETHER", "1"),), "sojourn-in-turn": ()}
NAMES = (ONE, *NODES)


@contextmanager
def redis() -> Iterator[tuple[str, int]]:
    """A Redis of its own without a disk, on the servers' core: its address and its process id."""
    command = shutil.which("redis-server")
    if command is None:
        raise BenchError("redis-server is not installed (Debian: redis-server)")
    port = free_port()
    words = [command, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    server = process.spawn(words, machine.cores()[1], machine.BUILD / "redis.log")
    try:
        until = time.monotonic() + READY
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1.0).close()
                break
            except OSError as error:
                if time.monotonic() > until:
                    raise BenchError("redis-server was not ready") from error
                time.sleep(0.02)
        yield f"redis://127.0.0.1:{port}/0", server.pid
    finally:
        process.end(server)


def _measure(fan: Fan, pids: list[int]) -> tuple[float, list[float]]:
    """Seconds of time of a call, and of processor time of each process."""
    fan.call(1, MESSAGES)
    walls, used = [], []
    for _ in range(SWEEPS):
        before = [machine.cpu_seconds(pid) for pid in pids]
        walls.append(fan.call(CALLS, MESSAGES).wall / CALLS)
        used.append([(machine.cpu_seconds(pid) - old) / CALLS for pid, old in zip(pids, before, strict=True)])
    return statistics.median(walls), [statistics.median(each) for each in zip(*used, strict=True)]


def _round(number: int, results: Results, say: Say) -> None:
    spec = fan_catalogue("")["sojourn"]
    with Running(spec) as one, Fan([one.port], CHANNEL, MEMBERS) as fan:
        wall, used = _measure(fan, [one.pid])
    _keep(ONE, number, wall, used, results, say)
    with redis() as (address, pid):
        for name, env in NODES.items():
            node = replace(spec, env=(*spec.env, ("BENCH_REDIS", address), *env))
            with Running(node) as a, Running(node) as b, Fan([a.port, b.port], CHANNEL, MEMBERS) as fan:
                wall, used = _measure(fan, [a.pid, b.pid, pid])
            _keep(name, number, wall, used, results, say)


def _keep(name: str, number: int, wall: float, used: list[float], results: Results, say: Say) -> None:
    each = [1e3 * seconds for seconds in used]
    detail = {"wall_ms": 1e3 * wall, "processes_ms": each, "published": MESSAGES / wall}
    results.samples.append(Sample("fan_redis", name, number, MEMBERS * MESSAGES / sum(used), detail=detail))
    parts = " + ".join(f"{ms:.2f}" for ms in each)
    say(f"round {number} fan_redis  {name:18} {parts} ms of a core  {1e3 * wall:8.2f} ms of time")


def run(rounds: int, results: Results, say: Say) -> None:
    """All rounds of this figure."""
    for number in range(1, rounds + 1):
        try:
            _round(number, results, say)
        except (BenchError, OSError) as error:
            results.fail("fan_redis", BenchError(str(error)))
            say(f"fan_redis: {error}")
            return
