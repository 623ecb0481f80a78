"""`python -m bench`: one command, all servers, one report."""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from bench import build, machine, report
from bench.figures import (
    ASKED,
    DEADLINES,
    FANOUT,
    IDLE,
    LIFE,
    THROUGHPUT,
    collector,
    deadlines,
    diagnostics,
    dumps,
    durable,
    fanout,
    idle,
    life,
    nodes,
    overload,
    routers,
    stalled,
    throughput,
)
from bench.gates import GATES
from bench.process import BenchError
from bench.results import Results
from bench.servers import UVICORN_WS, Spec, catalogue


def _names(text: str, known: list[str], what: str) -> list[str]:
    chosen = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in chosen if name not in known]
    if unknown:
        raise SystemExit(f"bench: unknown {what} {', '.join(unknown)}; known: {', '.join(known)}")
    return [name for name in known if name in chosen]


def parse(argv: list[str]) -> argparse.Namespace:
    """The command line."""
    servers = list(catalogue(UVICORN_WS[0]))
    parser = argparse.ArgumentParser(prog="python -m bench", description="Sojourn beside its peers.")
    parser.add_argument("--rounds", type=int, help="rounds of the throughput figures (5; quick: 1)")
    parser.add_argument("--seconds", type=float, help="seconds per throughput measurement (3; quick: 2)")
    parser.add_argument("--idle-rounds", type=int, default=2, help="rounds of the idle figures (2)")
    parser.add_argument("--idle-connections", type=int, default=5000, help="idle connections (5000)")
    parser.add_argument("--idle-window", type=float, default=40.0, help="seconds of idle processor time (40)")
    parser.add_argument("--only", default="", help=f"figures: {','.join(ASKED)}")
    parser.add_argument("--servers", default="", help=f"servers: {','.join(servers)}")
    parser.add_argument("--uvicorn-ws", choices=UVICORN_WS, help="skip the choice of uvicorn's WebSocket code")
    parser.add_argument("--quick", action="store_true", help="get and echo, sojourn and uvicorn, one round, no files")
    parser.add_argument("--write", action="store_true", help="write the report even for a part of the figures")
    parser.add_argument("--out", type=Path, default=machine.BENCH, help="folder of the report (bench)")
    parser.add_argument("--deadline", type=int, default=2700, help="seconds after which the run is given up (2700)")
    args = parser.parse_args(argv)
    args.whole = not (args.quick or args.only or args.servers)
    args.only = _names(args.only or ("get,echo" if args.quick else ",".join(ASKED)), list(ASKED), "figure")
    args.servers = _names(args.servers or ("sojourn,uvicorn" if args.quick else ",".join(servers)), servers, "server")
    args.rounds = args.rounds or (1 if args.quick else 5)
    args.seconds = args.seconds or (2.0 if args.quick else 3.0)
    return args


class TimeUp(Exception):
    """The deadline of the whole run has passed; what is measured so far is reported."""


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit("bench: terminated")


def _time_up(number: int, frame: FrameType | None) -> NoReturn:
    raise TimeUp("the deadline of the run has passed")


def _versions(specs: list[Spec], results: Results) -> dict[str, str]:
    found: dict[str, str] = {}
    for spec in specs:
        if spec.name not in results.errors:
            try:
                found[spec.name] = spec.version()
            except (BenchError, OSError, subprocess.TimeoutExpired, IndexError) as error:
                found[spec.name] = f"unknown ({error})"
    try:
        told = subprocess.run([build.wrk(), "-v"], check=False, capture_output=True, text=True, timeout=10).stdout
        found["wrk"] = " ".join(told.split()[1:2])
    except (BenchError, OSError, subprocess.TimeoutExpired) as error:
        found["wrk"] = str(error)
    return found


def measure(args: argparse.Namespace, results: Results, say: Callable[[str], None], specs: list[Spec]) -> None:
    """Measures what was asked for; fills `specs` with the servers of this run."""
    ws = args.uvicorn_ws or UVICORN_WS[0]
    if "uvicorn" in args.servers and not args.uvicorn_ws and {"echo", "idle_ws", "idle_cpu"} & set(args.only):
        ws = throughput.best_uvicorn_ws(min(args.seconds, 2.0), results, say)
    specs += [spec for name, spec in catalogue(ws).items() if name in args.servers]
    wanted = [name for name in THROUGHPUT if name in args.only]
    for number in range(1, args.rounds + 1 if wanted else 1):
        throughput.run_round(specs, wanted, number, args.seconds, results, say)
    if set(args.only) & set(IDLE):
        plan = idle.Plan(args.idle_connections, args.idle_window, args.idle_rounds)
        idle.run(specs, [name for name in IDLE if name in args.only], plan, results, say)
    if "diagnostics" in args.only:
        diagnostics.run(catalogue(ws)["sojourn"], args.rounds, args.seconds, results, say)
    if "dumps" in args.only:
        dumps.run(catalogue(ws)["sojourn"], args.idle_rounds, results, say)
    if set(args.only) & set(DEADLINES):
        deadlines.run(args.only, 3, results, say)
    if {"goodput", "overload_p99"} & set(args.only):
        overload.run(args.idle_rounds, results, say)
    if {"route", "route_flat"} & set(args.only):
        routers.run(results, say)
    if "collector" in args.only:
        collector.run(catalogue(ws)["sojourn"], args.idle_rounds, results, say)
    if set(args.only) & set(FANOUT):
        fanout.run(args.only, ws, args.rounds, results, say)
    if "fan_stalled" in args.only:
        stalled.run(args.idle_rounds, results, say)
    if "fan_redis" in args.only:
        nodes.run(args.idle_rounds, results, say)
    if "durable" in args.only:
        durable.run(min(args.rounds, 3), results, say)
    life.run(specs, [name for name in LIFE if name in args.only], args.idle_connections, args.idle_rounds, results, say)


def main(argv: list[str] | None = None) -> int:
    """Returns 0 when the run was complete, gates met or not."""
    args = parse(sys.argv[1:] if argv is None else argv)
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGALRM, _time_up)
    signal.alarm(args.deadline)
    machine.raise_file_limit()
    results, start = Results(), time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - start:5.0f} s  {text}", flush=True)

    specs: list[Spec] = []
    try:
        measure(args, results, say, specs)
    except TimeUp as error:
        results.fail("the rest", error)
    finally:
        signal.alarm(0)
    load_core, server_core = machine.cores()
    results.notes.append(f"Load pinned to core {load_core}, each server to core {server_core}.")
    facts: dict[str, Any] = {
        "command": " ".join(["python -m bench", *sys.argv[1:]]),
        "machine": machine.describe(),
        "versions": _versions(specs, results),
    }
    names = [spec.name for spec in specs]
    if args.whole or args.write:
        report.write(results, facts, names, args.out)
        met = [gate.met(results) for gate in GATES]
        say(
            f"wrote {args.out}/RESULTS.md; gates: {met.count(True)} met, {met.count(False)} missed, "
            f"{met.count(None)} not measured"
        )
    else:
        print(report.markdown(results, facts, names))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("bench: interrupted")
