"""Looks for all that leaks, every few seconds, and answers what was found."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Mapping
from math import ceil
from typing import Any, Final
from weakref import WeakKeyDictionary

import msgspec

from sojourn.asgi.site import Site
from sojourn.errors import ErrandError
from sojourn.observe.answers import Answers
from sojourn.observe.leaks.afterlife import Afterlife
from sojourn.observe.leaks.descriptors import DescriptorCounts, Descriptors
from sojourn.observe.leaks.innocent import Innocent
from sojourn.observe.leaks.leases import LEASES, Leases, OverdueLease
from sojourn.observe.leaks.ledger import LeakRecord, Ledger, Signature
from sojourn.observe.leaks.lost import LostTask, LostTasks
from sojourn.observe.leaks.runs import StuckRuns
from sojourn.observe.leaks.warned import Warned
from sojourn.observe.process import resident_bytes
from sojourn.observe.profiles.model import Frame
from sojourn.observe.tasks.census import TaskInfo, Tasks
from sojourn.observe.tasks.every import references
from sojourn.observe.tasks.factory import origin_of
from sojourn.policy.growth import Growth
from sojourn.scopes.journals import JOURNALS

__all__ = ["GrowthNote", "Leaks", "LeaksReport"]

#: Seconds between two sweeps; and in how manieth of them descriptors are counted, and samples of growth taken.
_SWEEP: Final = 5.0
#: Tasks for each of which a second is added, so that sweeps take some 0.01 % of a core: a task takes a microsecond.
_PER_SECOND: Final = 100
_DESCRIPTORS, _SAMPLES = 3, 6
#: What watches for growth must not take for growth that a few connections come: bytes and tasks of an empty server.
_SPARE: Final = {"memory": 100.0, "tasks": 10.0, "descriptors": 10.0}
_ANYIO: Final = f"{os.sep}anyio{os.sep}"


class GrowthNote(msgspec.Struct, kw_only=True):
    """Something that grows while the load does not, so far without a name.

    Attributes:
        what: ``memory`` (bytes), ``tasks`` or ``descriptors``.
        before: How much there was about two and a half hours ago.
        now: How much there is now, at the lowest.
        slope: Growth in six minutes, as a share.
    """

    what: str
    before: float
    now: float
    slope: float


class LeaksReport(msgspec.Struct, kw_only=True):
    """What is known.

    Attributes:
        leaks: One record for each signature, those with most alive first.
        overdue: Leases that are held for too long now, and those whose request has ended.
        leases: How many leases each pool has lent.
        descriptors: What is open.
        growth: What grows while the load does not.
        retained: Connections that are alive although they ended, held by anything or waiting for the collector.
        left_out: Leaks that were counted only, because there are too many signatures.
    """

    leaks: list[LeakRecord]
    overdue: list[OverdueLease]
    leases: dict[str, int]
    descriptors: DescriptorCounts
    growth: list[GrowthNote]
    retained: int
    left_out: int


class Leaks:
    """Everything that looks for leaks on a worker. Made on the event loop before the application starts.

    Args:
        site: What the worker serves.
        tasks: Knows its tasks.

    Attributes:
        ledger: What was found: ``found`` and ``alive()`` are counts by kind.
        leases: Who holds what: ``counts()`` by pool, ``overdue``.
        lost: Tasks lost to the collector: ``total``.
        answers: The errands it does.
    """

    def __init__(self, site: Site, tasks: Tasks) -> None:
        self._site = site
        self._tasks = tasks
        config = site.config.diagnostics
        runtime = site.runtime
        self._grace = config.leak_grace
        self._innocent = Innocent(config.leak_ignore)
        self.ledger = Ledger(runtime.bus, site.ticker.clock, runtime.loop)
        self.leases = Leases(runtime.bus, site.ticker, self.ledger, config.lease_held)
        runtime.context.run(LEASES.set, self.leases)
        self.lost = LostTasks(runtime.loop, self.ledger, self._described)
        self._runs = StuckRuns(
            runtime.context.get(JOURNALS), self.ledger, lambda task: tasks.describe(task, stacks=True)
        )
        self._warned = Warned(self.ledger, origins=config.origins)
        self._afterlife = Afterlife(site, self.ledger)
        self._descriptors = Descriptors(site, self.ledger, lambda: sum(self.leases.counts().values()))
        self._growth = {what: Growth(spare) for what, spare in _SPARE.items()}
        #: Tasks that have leaked, and as what.
        self._leaked: WeakKeyDictionary[asyncio.Task[Any], Signature] = WeakKeyDictionary()
        self._sweeps = 0
        self._sweeping: asyncio.Task[None] | None = None
        self._closed = False
        self.answers: Answers = {"leaks": self.report}
        self._call = site.ticker.call_together(_SWEEP, self._ring)

    def close(self) -> None:
        """Look no more, and take back every hook. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self._call.cancel()
        if self._sweeping is not None:
            self._sweeping.cancel()
        for part in (self._descriptors, self._afterlife, self._warned, self.lost, self.leases):
            part.close()

    async def report(self, arguments: Mapping[str, Any]) -> LeaksReport:
        """What was found, and what is open now.

        Args:
            arguments: There are none.

        Raises:
            ErrandError: There are some.

        Cancel: safe.
        """
        if arguments:
            raise ErrandError(400, "unknown_argument", f"leaks takes no argument, such as {min(arguments)!r}")
        self._count_tasks()
        return LeaksReport(
            leaks=sorted(self.ledger.records.values(), key=lambda record: (-record.alive, -record.known)),
            overdue=self.leases.late(),
            leases=self.leases.counts(),
            descriptors=await self._descriptors.counts(),
            growth=self.growth(),
            retained=self._afterlife.retained,
            left_out=self.ledger.left_out,
        )

    def growth(self) -> list[GrowthNote]:
        """What grows while the load does not."""
        notes = []
        for what, growth in self._growth.items():
            verdict = growth.verdict()
            if verdict is not None:
                note = GrowthNote(what=what, before=verdict.before, now=verdict.now, slope=round(verdict.slope, 4))
                notes.append(note)
        return notes

    async def sweep(self) -> None:
        """Look everywhere once. The ticker calls it; one sweep ends before the next begins. Cancel: safe."""
        self._sweeps += 1
        self.lost.check()
        self._runs.look()
        await self._look_at_tasks()
        await self._afterlife.look()
        if self._sweeps % _DESCRIPTORS == 0:
            await self._descriptors.look()
        if self._sweeps % _SAMPLES == 0:
            self._sample()

    def _ring(self) -> None:
        if self._sweeping is None or self._sweeping.done():
            self._sweeping = self._site.work.run(self._swept(), "leaks")
        pause = max(_SWEEP, ceil(len(references(self._site.runtime.loop)) / _PER_SECOND))
        self._call = self._site.ticker.call_together(pause, self._ring)

    async def _swept(self) -> None:
        try:
            await self.sweep()
        except Exception as error:  # noqa: BLE001 - whoever looks for faults must not make one: it is told
            context = {"message": "looking for leaks failed", "exception": error}
            self._site.runtime.loop.call_exception_handler(context)

    async def _look_at_tasks(self) -> None:
        """Tasks that outlive their request. The first look behind its end starts their grace, a later one ends it."""
        async for found in self._tasks.outliving(self._grace):
            task = found.task
            if task in self._leaked or self._innocent.is_meant(task, found.created):
                continue
            info = self._tasks.describe(task, stacks=True)
            signature = Signature("task", _runs(task, info), str(found.created), info.waiting)
            self._leaked[task] = signature
            self.ledger.add(signature, owner=info.owner, age=found.age, stack=info.stack)
        self._count_tasks()

    def _count_tasks(self) -> None:
        """Of the tasks that leaked, how many still run."""
        running = Counter(signature for task, signature in self._leaked.items() if not task.done())
        for signature, record in list(self.ledger.records.items()):
            if signature.kind == "task":
                record.alive = running[signature]

    def _described(self, task: asyncio.Task[Any]) -> LostTask:
        """What is known of a task that the collector takes."""
        info = self._tasks.describe(task, stacks=True)
        stack, code = info.stack, getattr(task.get_coro(), "cr_code", None)
        if not stack and code is not None:
            stack = [Frame(code.co_qualname, code.co_filename, code.co_firstlineno)]
        created = info.created if origin_of(task) is not None else ""
        return LostTask(_runs(task, info), created, info.waiting, info.owner, info.age or 0.0, stack)

    def _sample(self) -> None:
        load = len(self._site.runtime.registry)
        self._growth["memory"].add(float(resident_bytes()), load)
        self._growth["tasks"].add(sum(self._tasks.counts().values()), load)
        self._growth["descriptors"].add(self._descriptors.open, load)


def _runs(task: asyncio.Task[Any], info: TaskInfo) -> str:
    """What a task runs. anyio wraps it, and names the task after it.

    Any other name may be one of its own, such as ``Task-12``: with it each task would be another leak.
    """
    code = getattr(task.get_coro(), "cr_code", None)
    return info.name if code is not None and _ANYIO in code.co_filename else info.coroutine
