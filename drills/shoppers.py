"""Who orders in the shop of `tasks_shop.py`, what they were answered, and what became of it."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec

from drills.served import ROOT, alive, descendants
from sojourn.tasks.opening import journal_of
from sojourn.tasks.record import Task
from tests.server.processes import COMMAND, Serving, environment

__all__ = ["NUMBERS", "Ledger", "Shop", "admin", "kept", "overlaps", "runs_of", "shop", "until"]

#: A number for each order of a drill.
NUMBERS = itertools.count(1)


class Shop:
    """A node that serves, and a client of it."""

    def __init__(self, served: Serving, client: httpx.AsyncClient) -> None:
        self.served = served
        self.client = client

    async def stop(self, seconds: float = 30.0) -> int:
        """SIGTERM, and its exit code."""
        self.served.signal()
        return await asyncio.to_thread(self.served.ended, seconds)


@asynccontextmanager
async def shop(journal: str, runs: Path, lease: float = 6.0, **more: str) -> AsyncIterator[Shop]:
    """Serve one node.

    Args:
        journal: Where it keeps its tasks.
        runs: Where it notes runs.
        lease: Of its tasks.
        more: Settings of the server in small letters, further variables in capitals.
    """
    settings = {name: text for name, text in more.items() if name.islower()} | {"app_dir": str(ROOT)}
    env = environment(**settings) | {name: text for name, text in more.items() if not name.islower()}
    env |= {"DRILL_JOURNAL": journal, "DRILL_RUNS": str(runs), "DRILL_LEASE": str(lease)}
    # From a thread: its lifespan may connect through a proxy that lives in this loop.
    served = await asyncio.to_thread(Serving, [COMMAND, "serve", "drills.tasks_shop:app", "--port", "0"], env)
    try:
        port = await asyncio.to_thread(lambda: served.port)
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", limits=limits, timeout=120) as client:
            yield Shop(served, client)
    finally:
        family = descendants(served.process.pid)
        served.process.kill()
        for pid in filter(alive, family):
            os.kill(pid, signal.SIGKILL)
        await asyncio.to_thread(served.close)


class Ledger:
    """What clients were answered.

    Attributes:
        accepted: Ids of acknowledged tasks, by number.
        moments: When they were.
        refused: Answers other than that: status, the word, whether they say when to try again.
        plain: When requests that need no task began, and how long they took.
        waited: How long submissions took, whatever they were answered.
    """

    def __init__(self) -> None:
        self.accepted: dict[int, str] = {}
        self.moments: list[float] = []
        self.refused: Counter[tuple[int, str, bool]] = Counter()
        self.plain: list[tuple[float, float]] = []
        self.waited: list[float] = []

    async def plainly(self, client: httpx.AsyncClient, until: asyncio.Event) -> None:
        """Requests that need no task, one after the other."""
        while not until.is_set():
            began = time.monotonic()
            answer = await client.get("/plain")
            assert answer.status_code == 200
            self.plain.append((began, time.monotonic() - began))
            await asyncio.sleep(0.05)

    async def order(self, client: httpx.AsyncClient, until: asyncio.Event, path: str = "/orders", **query: Any) -> None:
        """Orders, one after the other; what is refused is not asked for again."""
        while not until.is_set():
            number, began = next(NUMBERS), time.monotonic()
            answer = await client.post(f"{path}/{number}", params=query)
            self.waited.append(time.monotonic() - began)
            self.note(number, answer)
            await asyncio.sleep(0.05)

    async def orders(self, client: httpx.AsyncClient, count: int, path: str = "/orders", **query: Any) -> None:
        """Some orders at once."""
        numbers = [next(NUMBERS) for _ in range(count)]
        answers = await asyncio.gather(*(client.post(f"{path}/{number}", params=query) for number in numbers))
        for number, answer in zip(numbers, answers, strict=True):
            self.note(number, answer)

    def note(self, number: int, answer: httpx.Response) -> None:
        """One answer."""
        if answer.status_code in (200, 202):
            self.accepted[number] = answer.json()["id"]
            self.moments.append(time.monotonic())
            return
        told = answer.json() if "json" in answer.headers.get("content-type", "") else {}
        word = str(told.get("deadline") or told.get("reason") or told.get("type", ""))
        self.refused[answer.status_code, word, "retry-after" in answer.headers] += 1

    def p99(self, begin: float, end: float) -> float:
        """Of plain requests that began between."""
        took = sorted(seconds for began, seconds in self.plain if begin <= began < end)
        return took[len(took) * 99 // 100]


def runs_of(folder: Path) -> dict[int, list[dict[str, Any]]]:
    """What runs have noted, by number, in order."""
    found: dict[int, list[dict[str, Any]]] = {}
    notes = (json.loads(line) for path in folder.glob("*.jsonl") for line in path.read_text().splitlines())
    for entry in sorted(notes, key=lambda entry: float(entry["at"])):
        found.setdefault(entry["number"], []).append(entry)
    return found


def overlaps(runs: dict[int, list[dict[str, Any]]]) -> list[list[dict[str, Any]]]:
    """Orders that ran twice at the same time."""
    return [notes for notes in runs.values() if any(_pairs(notes))]


def _pairs(notes: Sequence[dict[str, Any]]) -> Iterator[bool]:
    for before, after in itertools.pairwise(notes):
        yield before["what"] == after["what"] == "begun"


@asynccontextmanager
async def _journal(url: str) -> AsyncIterator[Any]:
    journal = journal_of(url)
    await journal.open("drill")
    try:
        yield journal
    finally:
        await journal.aclose()


async def kept(url: str, ledger: Ledger, seconds: float) -> list[Task]:
    """The records of what was acknowledged, when all have ended.

    Each is there, was completed, once, and its result is that of the run which ended it.
    """
    async with _journal(url) as journal:
        end = time.monotonic() + seconds
        while True:
            found = [await journal.get(ident) for ident in ledger.accepted.values()]
            assert None not in found, "an acknowledged task is not there"
            left = [task for task in found if task.state not in ("completed", "failed", "cancelled")]
            if not left:
                break
            assert time.monotonic() < end, f"{len(left)} have not ended, such as {left[0]}"
            await asyncio.sleep(0.2)
    others = [task for task in found if task.state != "completed"]
    assert not others, others[0]
    for number, task in zip(ledger.accepted, found, strict=True):
        assert msgspec.json.decode(task.result)["number"] == number
        assert not task.failures
    return found


async def until(true: Callable[[], object], seconds: float) -> None:
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"not within {seconds} s"
        await asyncio.sleep(0.02)


def admin(*command: str) -> None:
    """Run a command of a server's own tools."""
    subprocess.run(command, check=True, timeout=30, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
