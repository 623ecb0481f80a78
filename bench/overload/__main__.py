"""`python -m bench.overload`: peak, 80 % of it, and three times it, side by side with uvicorn."""

from __future__ import annotations

import argparse
import statistics
import sys
from typing import Any

from bench import machine, process
from bench.servers import BIN, Running, Spec

_SOJOURN = "serve {app} --host 127.0.0.1 --port {port} --app-dir . --access-log off --drain-delay 0"
_UVICORN = (
    "{app} --host 127.0.0.1 --port {port} --app-dir . --no-access-log --log-level warning --loop uvloop"
    " --http httptools --backlog 8192 --timeout-keep-alive 75"
)
_SERVERS = {
    "sojourn": ("sojourn", _SOJOURN + " --admission adaptive"),
    "sojourn-off": ("sojourn", _SOJOURN),
    "sojourn-fixed": ("sojourn", _SOJOURN + " --max-concurrent-requests 4"),
    "uvicorn": ("uvicorn", _UVICORN),
    "uvicorn-limit": ("uvicorn", _UVICORN + " --limit-concurrency 100"),
}


def _spec(name: str) -> Spec:
    tool, arguments = _SERVERS[name]

    def command(port: int) -> list[str]:
        return [str(BIN / tool), *arguments.format(app="bench.overload.app:app", port=port).split()]

    return Spec(name, command, lambda: "")


def _load(running: Running, rate: str, args: argparse.Namespace, seconds: float, warm: float) -> dict[str, Any]:
    words = [
        str(running.port),
        f"/?ms={args.ms:g}",
        rate,
        str(seconds),
        str(args.deadline),
        str(warm),
        args.connections,
    ]
    core = machine.cores()[1]
    before, own = machine.busy_seconds(core), machine.cpu_seconds(running.pid)
    command = [process.PYTHON, "-m", "bench.overload.load", *words]
    data = process.run_json(command, machine.cores()[0], seconds + args.deadline + 20.0).data
    own = machine.cpu_seconds(running.pid) - own
    #: Of the time in which the core was busy, what the server had.
    data["core"] = own / max(own, machine.busy_seconds(core) - before)
    return data


def run_round(name: str, args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """The three loads on one fresh server each: what one leaves behind does not become the next one's."""
    found: dict[str, dict[str, Any]] = {}
    with Running(_spec(name)) as running:
        found["peak"] = _load(running, "closed:4", args, 4.0, 1.0)
        peak = found["peak"]["good"]
        found["80 %"] = _load(running, f"{0.8 * peak:.1f}", args, args.calm, 1.0)
    with Running(_spec(name)) as running:
        found["overload"] = _load(running, f"{args.factor * peak:.1f}", args, args.seconds, args.warm)
    return found


def _ms(value: float | None) -> str:
    return f"{1000 * value:7.0f}" if value is not None else "      -"


def _say(number: int, name: str, found: dict[str, dict[str, Any]]) -> tuple[float, float]:
    for what, seen in found.items():
        outcomes = " ".join(f"{word}:{count}" for word, count in sorted(seen["outcomes"].items()))
        print(
            f"round {number} {name:13} {what:9} offered {seen['offered']:6.0f}/s good {seen['good']:6.0f}/s "
            f"p50 {_ms(seen['p50'])} p99 {_ms(seen['p99'])} refused p99 {_ms(seen['refused_p99'])} ms  {outcomes}  "
            f"connects {seen['connects']} client late {_ms(seen['behind'])} ms, busy {seen['busy']:.0%}, "
            f"core {seen['core']:.0%}{'' if seen['core'] >= 0.95 else ' (shared)'}",
            flush=True,
        )
    goodput = found["overload"]["good"] / found["peak"]["good"]
    late, calm = found["overload"]["p99"], found["80 %"]["p99"]
    slower = late / calm if late and calm else float("inf")
    print(f"round {number} {name:13} goodput {goodput:.0%} of its peak, p99 of served {slower:.1f} x that at 80 %")
    return goodput, slower


def main() -> int:
    """Returns 1 when Sojourn misses a gate."""
    parser = argparse.ArgumentParser(prog="python -m bench.overload", description=__doc__)
    parser.add_argument("--servers", default="sojourn,uvicorn", help=f"of {', '.join(_SERVERS)}")
    parser.add_argument("--rounds", type=int, default=3, help="rounds; the median counts (3)")
    parser.add_argument("--seconds", type=float, default=18.0, help="seconds of overload (18)")
    parser.add_argument("--warm", type=float, default=8.0, help="of which so many at the beginning do not count (8)")
    parser.add_argument("--calm", type=float, default=12.0, help="seconds of 80 %% load (12)")
    parser.add_argument("--ms", type=float, default=5.0, help="milliseconds of processor time a request takes (5)")
    parser.add_argument("--factor", type=float, default=3.0, help="overload, as a multiple of the peak (3)")
    parser.add_argument("--deadline", type=float, default=1.0, help="seconds a client waits (1)")
    parser.add_argument("--connections", choices=("kept", "fresh"), default="fresh", help="used again, or not (fresh)")
    args = parser.parse_args()
    machine.raise_file_limit()
    seen: dict[str, list[tuple[float, float]]] = {}
    for number in range(1, args.rounds + 1):
        for name in args.servers.split(","):
            seen.setdefault(name, []).append(_say(number, name, run_round(name, args)))
    for name, rounds in seen.items():
        goodput, slower = (statistics.median(column) for column in zip(*rounds, strict=True))
        gate = "" if name != "sojourn" else " gates met" if goodput >= 0.85 and slower <= 3.0 else " GATES MISSED"
        print(f"{name:13} median: goodput {goodput:.0%} of peak (>= 85 %), p99 {slower:.1f} x (<= 3){gate}")
    missed = [name for name in seen if name == "sojourn" and not _met(seen[name])]
    return 1 if missed else 0


def _met(rounds: list[tuple[float, float]]) -> bool:
    goodput, slower = (statistics.median(column) for column in zip(*rounds, strict=True))
    return goodput >= 0.85 and slower <= 3.0


if __name__ == "__main__":
    sys.exit(main())
