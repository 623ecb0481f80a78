"""What the drills of durable tasks play with: engines that can be killed, nodes that can be killed, and the books."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg
from redis.asyncio import Redis

from drills.served import ROOT, alive, report_of, until
from drills.tasks_node import KINDS, WITNESS
from sojourn.tasks.journal import Journal, Query
from sojourn.tasks.record import Task
from tests.databases import PostgresServer, RedisServer
from tests.server.processes import COMMAND, Serving, environment

__all__ = ["Engine", "Entry", "Fleet", "Node", "balanced", "engine_of", "everything"]

_PAGE = 1000


class Engine:
    """An engine; each drill has a new store in it.

    Attributes:
        name: ``sqlite``, ``postgres`` or ``redis``.
        server: What can be stopped; None for a file.
    """

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self._folder = folder
        self.server: PostgresServer | RedisServer | None = None
        if name == "postgres":
            self.server = PostgresServer()
        elif name == "redis":
            self.server = RedisServer("--appendonly", "yes", "--appendfsync", "always", "--dir", str(folder))
        self._stores = 0

    async def store(self) -> str:
        """A new store; its URL."""
        self._stores += 1
        if isinstance(self.server, PostgresServer):
            dsn = f"postgresql://postgres@127.0.0.1:{self.server.port}"
            sql: Any = await asyncpg.connect(f"{dsn}/postgres?sslmode=disable")
            await sql.execute(f"CREATE DATABASE drill{self._stores}")
            await sql.close()
            return f"{dsn}/drill{self._stores}?sslmode=disable"
        if isinstance(self.server, RedisServer):
            async with Redis.from_url(self.server.url) as client:
                await client.flushall()
            return self.server.url
        return str(self._folder / f"tasks{self._stores}.db")

    def crash(self) -> None:
        """End it as if the power had gone, for what it has in memory."""
        if isinstance(self.server, PostgresServer):
            self.server.stop(signal.SIGQUIT)
        elif self.server is not None:
            self.server.stop()


@contextmanager
def engine_of(name: str, folder: Path) -> Iterator[Engine]:
    """An engine that runs."""
    engine = Engine(name, folder)
    if engine.server is not None:
        engine.server.start()
    try:
        yield engine
    finally:
        if isinstance(engine.server, PostgresServer):
            engine.server.remove()
        elif engine.server is not None:
            engine.server.stop()


class Entry(NamedTuple):
    """A line of the diary: what happened, to which task, in which process, when."""

    what: str
    id: str
    pid: int
    at: float


class Node:
    """``sojourn work`` as a process.

    Args:
        fleet: Whose it is.
        number: Of the node.
        settings: Of ``sojourn work``.
    """

    def __init__(self, fleet: Fleet, number: int, settings: dict[str, str]) -> None:
        self.report = fleet.folder / f"report{number}.json"
        given = {"app_dir": str(ROOT), "app_workers": "0", "app_factory": "1", "drain_report": str(self.report)}
        env = environment(**(given | settings)) | fleet.env
        self.served = Serving([COMMAND, "work", "drills.tasks_node:made"], env)
        self.frozen = False

    @property
    def pid(self) -> int:
        return self.served.process.pid

    @property
    def ready(self) -> bool:
        """Whether it works, and goes on to."""
        return not self.frozen and alive(self.pid) and "running tasks" in self.served.stderr

    def send(self, number: int) -> None:
        self.frozen = number == signal.SIGSTOP or (self.frozen and number != signal.SIGCONT)
        self.served.signal(number)

    async def ended(self, seconds: float = 30.0) -> int:
        """Wait for its end; the exit code."""
        return await asyncio.to_thread(self.served.ended, seconds)

    def counted(self) -> dict[str, int]:
        """What the drain report says of tasks."""
        participants = report_of(self.report)["participants"]
        (saved,) = [each for each in participants if (each["name"], each["phase"]) == ("tasks", "persist")]
        return dict(saved["counts"])


class Fleet:
    """The nodes of one drill.

    Args:
        folder: For their diary and reports.
        url: Of their journal.
        lease: In seconds.
        concurrency: Of each.
        env: More of their environment.
    """

    def __init__(self, folder: Path, url: str, lease: float, concurrency: int = 10, **env: str) -> None:
        self.folder = folder
        self.lease = lease
        self.env = {
            "DRILL_JOURNAL": url,
            "DRILL_LEASE": f"{lease}",
            "DRILL_CONCURRENCY": f"{concurrency}",
            "DRILL_DIARY": str(folder / "diary"),
            **env,
        }
        self.nodes: list[Node] = []

    def launch(self, **settings: str) -> Node:
        """One more, which may not be ready yet."""
        self.nodes.append(Node(self, len(self.nodes), settings))
        return self.nodes[-1]

    async def start(self, **settings: str) -> Node:
        """One more, which is."""
        node = self.launch(**settings)
        await until(lambda: node.ready, 30, "a node is ready", node.served)
        return node

    def diary(self, what: str = "", task: str = "", pid: int = 0) -> list[Entry]:
        """Lines of the diary; of one word, one task or one process."""
        try:
            lines = (self.folder / "diary").read_text().splitlines()
        except FileNotFoundError:
            return []
        entries = [
            Entry(said, of, int(process), float(at)) for said, of, process, at in (line.split(" ") for line in lines)
        ]
        return [
            entry for entry in entries if what in ("", entry.what) and task in ("", entry.id) and pid in (0, entry.pid)
        ]

    async def noted(self, what: str, task: str, pid: int = 0, seconds: float = 15.0) -> Entry:
        """Wait for a line of the diary."""
        log = self.nodes[-1].served
        await until(lambda: self.diary(what, task, pid), seconds, f"{what} {task} in {pid}", log)
        return self.diary(what, task, pid)[0]

    async def close(self) -> None:
        """Kill those that are left."""
        for node in self.nodes:
            await asyncio.to_thread(node.served.close)


async def everything(journal: Journal, kind: str) -> list[Task]:
    """All tasks of a kind."""
    found: list[Task] = []
    while True:
        before = found[-1].id if found else ""
        page = await journal.list(Query(kind=kind, limit=_PAGE, before=before))
        found += page
        if len(page) < _PAGE:
            return found


async def balanced(journal: Journal, kinds: tuple[str, ...] = KINDS) -> tuple[list[Task], Counter[str]]:
    """See that the books are right when all is over.

    Each claim is one epoch, and has come to exactly one end: one that a witness tells of, or a lease that ran out. So
    epochs are witnesses and crashes together; interruptions are hand-overs and crashes; and one witness tells of the
    end that lasts.

    Returns:
        All tasks, and how many ends of each sort there were.
    """
    tasks = [task for kind in kinds for task in await everything(journal, kind)]
    ends: dict[str, Counter[str]] = {task.id: Counter() for task in tasks}
    told: dict[str, str] = {}
    for witness in await everything(journal, WITNESS):
        outcome, epoch, task_id = witness.id.split(".", 2)
        ends[task_id][outcome] += 1
        if outcome in ("completed", "failed", "cancelled"):
            told[task_id] = epoch
    for task in tasks:
        end = ends[task.id]
        assert task.state != "running", task
        if task.state == "pending":
            continue
        assert task.state == "completed", task
        assert end["completed"] + end["failed"] + end["cancelled"] == 1, (task, end)
        assert told[task.id] == f"{task.epoch}", (task, told[task.id])
        assert task.epoch == sum(end.values()) + task.crashes, (task, end)
        assert task.interruptions == end["handover"] + task.crashes, (task, end)
        assert task.failures == end["retry"] + end["failed"], (task, end)
        assert task.lease_until == 0.0, task
    total: Counter[str] = sum(ends.values(), Counter())
    total["crash"] = sum(task.crashes for task in tasks)
    return tasks, +total
