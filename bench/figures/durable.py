"""Durable tasks beside other task queues on the same stores. See ``bench/durable``."""

from __future__ import annotations

from collections.abc import Callable

from bench.durable.round import CLIENTS, Plan, measure
from bench.process import BenchError
from bench.results import Results, Sample
from scripts.peers import REQUIREMENTS

Say = Callable[[str], None]

#: huey-default flushes as huey does: it is for ``python -m bench.durable`` only.
NAMES = tuple(name for name in CLIENTS if name != "huey-default")


def run(rounds: int, results: Results, say: Say) -> None:
    """Round by round, forth and back; each client has a store and processes of its own."""
    failed: set[str] = set()
    for number in range(1, rounds + 1):
        for name in NAMES if number % 2 else reversed(NAMES):
            if name not in failed:
                try:
                    _one(name, number, results, say)
                except (BenchError, OSError) as error:
                    failed.add(name)
                    results.fail(f"durable tasks of {name}", BenchError(str(error)))
                    say(f"round {number} durable {name}: {error}")
    peers = " ".join(each for each in REQUIREMENTS["modern"] if "==" in each)
    results.notes.append(f"Durable tasks: peers of {peers}; Redis with appendfsync everysec, PostgreSQL as it comes.")


def _one(name: str, number: int, results: Results, say: Say) -> None:
    store, found = CLIENTS[name].store, measure(name, Plan())
    server = "sojourn" if name.startswith("sojourn-") else name
    detail = found.values | found.detail
    results.samples.append(Sample(f"durable_{store}", server, number, found.values["done"], detail=detail))
    for key, value in found.values.items():
        results.samples.append(Sample(f"durable_{store}_{key}", server, number, value))
    say(
        f"round {number} durable {name:16} {found.values['turn']:7,.0f} submits/s {found.values['done']:7,.0f} done/s "
        f"{found.values['p50']:6.2f} ms to start {found.values['cpu']:6,.0f} us a task"
    )
