"""One round of one client: submit in turn and together, work it all off, then be prompt at low load."""

from __future__ import annotations

import json
import select
import statistics
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from bench import machine, process
from bench.durable.stores import STORES, Store
from bench.process import BenchError
from scripts.peers import PeerError, python_of

__all__ = ["CLIENTS", "Peer", "Plan", "Round", "measure"]


class Peer(NamedTuple):
    """A task queue on a store.

    Attributes:
        store: The name of its store.
        module: In ``bench.durable.clients``.
        venv: Of `scripts/peers`; "" is our own.
        callers: Whether it has an asyncio interface, so that 100 callers mean something.
        env: Of its processes.
    """

    store: str
    module: str
    venv: str = "modern"
    callers: bool = True
    env: tuple[tuple[str, str], ...] = ()


CLIENTS = {
    "saq": Peer("redis", "saq_redis"),
    "streaq": Peer("redis", "streaq_redis"),
    "sojourn-redis": Peer("redis", "sojourn_all", ""),
    "procrastinate": Peer("postgres", "procrastinate_postgres"),
    "sojourn-postgres": Peer("postgres", "sojourn_all", ""),
    "huey": Peer("sqlite", "huey_sqlite", callers=False, env=(("BENCH_FSYNC", "on"),)),
    "huey-thread": Peer("sqlite", "huey_sqlite", env=(("BENCH_FSYNC", "on"), ("BENCH_THREAD", "1"))),
    "huey-default": Peer("sqlite", "huey_sqlite", callers=False),
    "sojourn-sqlite": Peer("sqlite", "sojourn_all", ""),
}


@dataclass(frozen=True)
class Plan:
    """How much of everything: tasks in turn and together, callers; tasks a second at low load, and how many."""

    turn: int = 1500
    together: int = 3500
    callers: int = 100
    rate: float = 20.0
    prompt: int = 60
    patience: float = 90.0


@dataclass
class Round:
    """What a round found. Rates are per second, lateness in milliseconds, processor time in microseconds per task."""

    values: dict[str, float] = field(default_factory=dict)
    detail: dict[str, float] = field(default_factory=dict)
    late: list[float] = field(default_factory=list)


class _Child:
    """A producer or a worker: a command in, a line of JSON out."""

    def __init__(self, peer: Peer, role: str, store: Store, patience: float) -> None:
        python = python_of(peer.venv) if peer.venv else sys.executable
        command = [python, "-m", f"bench.durable.clients.{peer.module}", role, store.address]
        self._name, self._patience = f"{role} of {peer.module}", patience
        self._process = process.spawn(command, machine.cores()[0], env=dict(peer.env), pipes=True)
        try:
            self.ready = int(self._answer()["ready"])
        except BenchError:
            self.end()
            raise

    def ask(self, command: str) -> dict[str, Any]:
        """Send a command and wait for its answer."""
        self.tell(command)
        return self._answer()

    def tell(self, command: str) -> None:
        """Send a command."""
        assert self._process.stdin is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        until, line = time.monotonic() + self._patience, ""
        while not line.startswith("{"):
            if not select.select([self._process.stdout], [], [], max(0.0, until - time.monotonic()))[0]:
                raise BenchError(f"{self._name}: no answer within {self._patience:.0f} s")
            line = self._process.stdout.readline()
            if not line:
                raise BenchError(f"{self._name}: {self._complaint()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _complaint(self) -> str:
        try:
            said = self._process.communicate(timeout=5)[1].strip().splitlines()
        except (subprocess.TimeoutExpired, ValueError):
            said = []
        return said[-1] if said else "it ended"

    def end(self) -> None:
        """End it."""
        process.end(self._process, 1.0)


@contextmanager
def _child(peer: Peer, role: str, store: Store, patience: float) -> Any:
    child = _Child(peer, role, store, patience)
    try:
        yield child
    finally:
        child.end()


def _timed(child: _Child, store: Store, command: str, count: int) -> tuple[float, float, float]:
    """Tasks a second, and microseconds of the child's and of the store's processor time for each."""
    before = store.cpu()
    took = child.ask(command)
    return count / took["wall"], 1e6 * took["cpu"] / count, 1e6 * (store.cpu() - before) / count


def measure(name: str, plan: Plan) -> Round:
    """A round of a client, with a store and processes of its own."""
    peer, found = CLIENTS[name], Round()
    try:
        with (
            STORES[peer.store](machine.cores()[1]) as store,
            _child(peer, "producer", store, plan.patience) as producer,
            _child(peer, "worker", store, plan.patience) as worker,
        ):
            _submit(peer, producer, store, plan, found)
            _work(producer.ready, worker, store, plan, found)
            worker_late = _prompt(producer, worker, plan)
    except PeerError as error:
        raise BenchError(str(error)) from error
    found.late = [1e3 * late for late in worker_late]
    found.values["p50"] = statistics.median(found.late)
    found.values["p99"] = sorted(found.late)[int(0.99 * len(found.late))]
    found.values["cpu"] = sum(found.detail[part] for part in ("producer_us", "worker_us", "store_us"))
    return found


def _submit(peer: Peer, producer: _Child, store: Store, plan: Plan, found: Round) -> None:
    found.values["turn"], own, stores = _timed(producer, store, f"turn {plan.turn}", plan.turn)
    found.detail |= {"turn_us": own, "turn_store_us": stores, "producer_us": own, "store_us": stores}
    if not peer.callers:
        producer.ask(f"turn {plan.together}")
        return
    words = f"together {plan.together} {plan.callers}"
    found.values["together"], own, stores = _timed(producer, store, words, plan.together)
    found.detail |= {"producer_us": own, "store_us": stores}


def _work(before: int, worker: _Child, store: Store, plan: Plan, found: Round) -> None:
    count = before + plan.turn + plan.together
    found.values["done"], own, stores = _timed(worker, store, f"work {count}", count)
    found.detail["worker_us"] = own
    found.detail["store_us"] += stores


def _prompt(producer: _Child, worker: _Child, plan: Plan) -> list[float]:
    producer.ask(f"paced {plan.rate} {plan.prompt}")
    late: list[float] = worker.ask(f"late {plan.prompt}")["late"]
    if len(late) < plan.prompt:
        raise BenchError(f"only {len(late)} of {plan.prompt} tasks were begun within 15 s")
    return late
