"""``python -m bench.durable``: the table alone, with more rounds or fewer clients."""

from __future__ import annotations

import argparse
import statistics
import sys

from bench import machine
from bench.durable.round import CLIENTS, Plan, Round, measure
from bench.process import BenchError

HEADS = {
    "turn": "submits/s, in turn",
    "together": "submits/s, 100 callers",
    "done": "completions/s",
    "p50": "start, P50 ms",
    "p99": "start, P99 ms",
    "cpu": "processor, us a task",
}


def _cell(rounds: list[Round], key: str) -> str:
    values = [each.values[key] for each in rounds if key in each.values]
    digits = 2 if key.startswith("p") else 0
    if not values:
        return "-"
    return f"{statistics.median(values):,.{digits}f} ({min(values):,.{digits}f} to {max(values):,.{digits}f})"


def _parts(rounds: list[Round]) -> str:
    parts = ("producer_us", "worker_us", "store_us")
    return " + ".join(f"{statistics.median([each.detail[part] for each in rounds]):,.0f}" for part in parts)


def main() -> int:
    """Returns 0."""
    parser = argparse.ArgumentParser(prog="python -m bench.durable")
    parser.add_argument("--clients", default=",".join(CLIENTS))
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    machine.raise_file_limit()
    names = args.clients.split(",")
    found: dict[str, list[Round]] = {name: [] for name in names}
    for number in range(args.rounds):
        for name in names if number % 2 == 0 else reversed(names):
            try:
                found[name].append(measure(name, Plan()))
            except (BenchError, OSError) as error:
                print(f"{name}: {error}", file=sys.stderr)
    print("| client | " + " | ".join(HEADS.values()) + " | producer + worker + store |")
    print("| --- |" + " ---: |" * (len(HEADS) + 1))
    for name, rounds in found.items():
        if rounds:
            print(f"| {name} | " + " | ".join(_cell(rounds, key) for key in HEADS) + f" | {_parts(rounds)} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
