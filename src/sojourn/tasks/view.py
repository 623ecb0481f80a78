"""How a service of durable tasks stands, for who looks from outside: the metrics of its server, and an operator."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Final, Protocol, get_args

import msgspec

from sojourn.clock import Clock, SystemClock
from sojourn.scopes.journals import Amounts, JournalInfo, Moment, Record, RunInfo, Wanted
from sojourn.scopes.used import Figures, Key
from sojourn.scopes.work import LADDER
from sojourn.tasks.cancelling import cancel
from sojourn.tasks.journal import Journal, Query
from sojourn.tasks.record import Event, State, Task
from sojourn.tasks.runner import Run
from sojourn.tasks.spec import Problem
from sojourn.tasks.stats import Stats

__all__ = ["STATES", "Holding", "View"]

STATES: Final[tuple[State, ...]] = get_args(State)
#: Seconds after its deadline at which a run should be gone: the whole ladder of cancellation, and a little.
_PATIENCE: Final = LADDER[-1] + 1.0
#: Of what a task has said, so many of the last are shown.
_SAID: Final = 20


class Holding(Protocol):
    """The node of a service, as far as it is shown."""

    @property
    def id(self) -> str:
        """What the journal calls it."""

    @property
    def runs(self) -> Mapping[str, Run]:
        """What it holds, by the task's id."""


class View:
    """What ``scopes.journals`` asks of a service.

    Args:
        name: What the service is called.
        journal: Where it keeps its tasks.
        stats: Its numbers.
        kinds: Says which kinds it knows.
        concurrency: How many it runs at most; 0 where it runs none.
        clock: That of ``Run.since``; None takes the system's.

    Attributes:
        node: Its part of this process; None until it has begun.
    """

    def __init__(
        self,
        name: str,
        journal: Journal,
        stats: Stats,
        *,
        kinds: Callable[[], Iterable[str]] = tuple,
        concurrency: int = 0,
        clock: Clock | None = None,
    ) -> None:
        self.name = name
        self.node: Holding | None = None
        self._journal = journal
        self._stats = stats
        self._kinds = kinds
        self._concurrency = concurrency
        self._now = (clock or SystemClock()).monotonic

    def figures(self) -> Figures:
        """What it has done and has. Asks nobody."""
        counts, levels, times = self._stats.figures()
        held = self._held()
        running = Counter(run.claim.kind for run in held if run.task is not None)  # the others were claimed ahead
        mine: dict[Key, float] = {("journal_running", kind): float(running[kind]) for kind in self._stats.kinds}
        mine.update({("journal_running", kind): float(number) for kind, number in running.items()})
        mine["journal_held",] = float(len(held))
        mine["journal_room",] = float(max(0, self._concurrency - len(held)))
        return Figures(counts, {**levels, **mine}, times)

    def look(self, limit: int) -> JournalInfo:
        """How it stands here, with at most so many runs. Asks nobody."""
        node, stats, held = self.node, self._stats, self._held()
        return JournalInfo(
            name=self.name,
            engine=self._journal.name,
            node="" if node is None else node.id,
            away=stats.away_for,
            kinds=sorted(self._kinds()),
            running=dict(Counter(run.claim.kind for run in held if run.task is not None)),
            held=len(held),
            room=max(0, self._concurrency - len(held)),
            runs=self.runs()[:limit],
            ended=stats.outcomes(),
            submitted=stats.total("submitted"),
            interrupted={"drain": stats.total("handed_over"), "crash": stats.total("crashed")},
            lost=stats.total("lost"),
        )

    def runs(self) -> Sequence[RunInfo]:
        """What runs here, oldest first."""
        now = self._now()
        found = [_run(run, now) for run in self._held() if run.task is not None]
        return sorted(found, key=lambda run: -run.age)

    def stuck(self) -> Sequence[tuple[RunInfo, asyncio.Task[Any]]]:
        """What runs here although its deadline is over, and the ladder by which it was cancelled."""
        now = self._now()
        running = [(run, run.task) for run in self._held() if run.task is not None and not run.task.done()]
        found = [(_run(run, now), task) for run, task in running]
        return [(info, task) for info, task in found if info.stuck]

    async def amounts(self) -> Amounts:
        """What there is in its journal. Raises ``JournalUnavailable``. Cancel: safe."""
        counts = await self._journal.counts()
        return Amounts({kind: dict(states) for kind, states in counts.states.items()}, dict(counts.oldest))

    async def list(self, wanted: Wanted) -> Sequence[Record]:
        """Tasks, newest first. Raises ``JournalUnavailable``. Cancel: safe."""
        states = tuple(state for state in STATES if state == wanted.state)
        if wanted.state and not states:
            return ()
        query = Query(
            states=states, kind=wanted.kind, owner=wanted.owner, before=wanted.before, limit=max(1, wanted.limit)
        )
        return [_record(self.name, task) for task in await self._journal.list(query)]

    async def show(self, task: str) -> Record | None:
        """A task with all that is known of it; None when there is none. Raises ``JournalUnavailable``. Cancel: safe."""
        found = await self._journal.get(task)
        if found is None:
            return None
        reading = await self._journal.read(task, max(0, found.seq - _SAID), _SAID)
        events = () if reading is None else reading.events
        return _whole(self.name, found if reading is None else reading.task, events)

    async def retry(self, task: str) -> Record | None:
        """Make one that failed or was cancelled pending again. Raises ``JournalUnavailable``. Cancel: may be done."""
        found = await self._journal.retry(task)
        return None if found is None else _record(self.name, found)

    async def cancel(self, task: str) -> Record | None:
        """End one that has not ended. Raises ``JournalUnavailable``. Cancel: may be done."""
        found = await cancel(self._journal, task)
        return None if found is None else _record(self.name, found)

    def _held(self) -> Collection[Run]:
        return () if self.node is None else list(self.node.runs.values())


def _run(run: Run, now: float) -> RunInfo:
    claim, deadline = run.claim, run.spec.deadline
    age = max(0.0, now - run.since)
    return RunInfo(
        id=claim.id,
        kind=claim.kind,
        epoch=claim.epoch,
        attempt=claim.failures + 1,
        interruptions=claim.interruptions,
        age=round(age, 3),
        deadline=deadline,
        owner=claim.owner,
        stuck=deadline is not None and age > deadline + _PATIENCE,
    )


def _record(service: str, task: Task) -> Record:
    return Record(
        service=service,
        id=task.id,
        kind=task.kind,
        state=task.state,
        owner=task.owner,
        key=task.key,
        priority=task.priority,
        failures=task.failures,
        interruptions=task.interruptions,
        crashes=task.crashes,
        epoch=task.epoch,
        node=task.node,
        cancelling=task.cancelling,
        run_at=task.run_at,
        created=task.created,
        begun=task.begun,
        updated=task.updated,
        ended=task.ended,
        lease_until=task.lease_until,
        problem=_problem(task.error),
    )


def _whole(service: str, task: Task, events: Iterable[Event]) -> Record:
    return _record(service, task)._replace(
        payload=_plain(task.payload),
        spec=_plain(task.spec),
        result=_plain(task.result),
        error=_plain(task.error),
        checkpoint=_plain(task.checkpoint),
        said=[Moment(event.seq, _plain(event.data), event.at) for event in events],
    )


def _plain(data: bytes) -> Any:
    """A plain value of JSON; None for nothing. What is no JSON comes as text: an operator wants to see it."""
    if not data:
        return None
    try:
        return msgspec.json.decode(data)
    except msgspec.DecodeError:
        return data.decode("utf-8", "replace")


def _problem(data: bytes) -> str:
    if not data:
        return ""
    try:
        problem = msgspec.json.decode(data, type=Problem)
    except msgspec.MsgspecError:
        return data[:200].decode("utf-8", "replace")
    return f"{problem.type}: {problem.detail}" if problem.detail else problem.type
