"""Which services of durable tasks there are, and what each shows: for the metrics of their server, and for an operator.

A service is often made before there is a server, so it tells who it is when it is used: ``met(service)``. Without a
server of Sojourn's around it that does nothing. What they have to tell goes to the server's bus.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from typing import Any, Final, NamedTuple, Protocol

from sojourn.scopes.used import Figures, Used

__all__ = [
    "JOURNALS",
    "Amounts",
    "JournalInfo",
    "Journals",
    "Moment",
    "Record",
    "RunInfo",
    "Shown",
    "Wanted",
    "met",
]


class Amounts(NamedTuple):
    """What there is in a journal, of all nodes.

    Attributes:
        states: By kind, then state: how many tasks.
        oldest: By kind: seconds that the oldest due task has waited. Kinds with none are missing.
    """

    states: Mapping[str, Mapping[str, int]]
    oldest: Mapping[str, float]


class RunInfo(NamedTuple):
    """A task that runs in this process.

    Attributes:
        id: The task.
        kind: Its kind.
        epoch: Of the claim it runs under.
        attempt: Which attempt it is, from 1.
        interruptions: Runs before it that did not come to an end of their own.
        age: Seconds since it began here.
        deadline: Seconds that it has; None for no limit.
        owner: Principal who started it; "" for nobody.
        stuck: Whether it was to end, and does not.
    """

    id: str
    kind: str
    epoch: int
    attempt: int
    interruptions: int
    age: float
    deadline: float | None
    owner: str = ""
    stuck: bool = False


class JournalInfo(NamedTuple):
    """A service in one process.

    Attributes:
        name: What it is called.
        engine: Where it keeps its tasks: ``sqlite``, ``postgres``, ``redis``.
        node: What the journal calls this process; "" before it has begun.
        away: Seconds since the journal can't be reached; None while it can.
        kinds: What it runs here.
        running: How many run here, by kind.
        held: How many leases it has; more than run: those were claimed ahead.
        room: How many more it could run; 0 where it runs none.
        runs: Those that run, oldest first.
        ended: Runs that have ended here, by outcome.
        submitted: Tasks that were started here.
        interrupted: Runs that were handed over (``drain``), and those taken up because their node was lost (``crash``).
        lost: Runs whose lease went to somebody else, or could not be renewed in time.
    """

    name: str
    engine: str
    node: str
    away: float | None
    kinds: Sequence[str]
    running: Mapping[str, int]
    held: int
    room: int
    runs: Sequence[RunInfo]
    ended: Mapping[str, int]
    submitted: int
    interrupted: Mapping[str, int]
    lost: int


class Wanted(NamedTuple):
    """Which tasks are meant. "" leaves a question out.

    Attributes:
        state: In this state.
        kind: Of this kind.
        owner: Of this principal; None leaves it out, "" is nobody.
        before: Those made before the task of this id: the next page.
        limit: At most so many, newest first.
    """

    state: str = ""
    kind: str = ""
    owner: str | None = None
    before: str = ""
    limit: int = 50


class Moment(NamedTuple):
    """Something that a task has said.

    Attributes:
        seq: Its number in its task.
        data: What it said: a plain value.
        at: When, in seconds since 1970.
    """

    seq: int
    data: Any
    at: float


class Record(NamedTuple):
    """A task as it is written down. Moments are seconds since 1970 by the journal's clock, 0 for what has not been.

    Attributes:
        service: Name of the service it belongs to.
        id: The task.
        kind: Its kind.
        state: Where it is: ``pending``, ``running``, ``completed``, ``failed``, ``cancelled``.
        owner: Principal who started it; "" for nobody.
        key: Its idempotency key; "" for none.
        priority: Higher ones are claimed first.
        failures: Attempts that failed.
        interruptions: Runs that did not come to an end of their own.
        crashes: Those of them that were lost with their node.
        epoch: How often it was claimed.
        node: Who has it, or had it last.
        cancelling: Whether it runs and is to end.
        run_at: When it is, or was, due.
        created: When it was submitted.
        begun: When it was claimed first.
        updated: When it last changed.
        ended: When it ended.
        lease_until: Until when its node has it; 0 when it does not run.
        problem: Why it, or its last attempt, failed: the error's name, and what it said; "" when nothing did.
        payload: Its arguments. None in lists.
        spec: How it is to be run. None in lists.
        result: What it returned; None before, and in lists.
        error: The whole of its error; None without, and in lists.
        checkpoint: What it has saved for its next run; None without, and in lists.
        said: The last of what it has said; none in lists.
    """

    service: str
    id: str
    kind: str
    state: str
    owner: str = ""
    key: str = ""
    priority: int = 0
    failures: int = 0
    interruptions: int = 0
    crashes: int = 0
    epoch: int = 0
    node: str = ""
    cancelling: bool = False
    run_at: float = 0.0
    created: float = 0.0
    begun: float = 0.0
    updated: float = 0.0
    ended: float = 0.0
    lease_until: float = 0.0
    problem: str = ""
    payload: Any = None
    spec: Any = None
    result: Any = None
    error: Any = None
    checkpoint: Any = None
    said: Sequence[Moment] = ()


class Shown(Protocol):
    """A service of durable tasks, as who looks at it sees it. Called in its loop.

    What asks the journal raises ``JournalUnavailable`` while that can't be reached, in bounded time.
    """

    @property
    def name(self) -> str:
        """What it is called. Chosen by the code."""

    def figures(self) -> Figures:
        """What it has done and has. Asks nobody."""

    def look(self, limit: int) -> JournalInfo:
        """How it stands here, with at most so many runs. Asks nobody."""

    def runs(self) -> Sequence[RunInfo]:
        """What runs here, oldest first."""

    def stuck(self) -> Sequence[tuple[RunInfo, asyncio.Task[Any]]]:
        """What runs here although its deadline is over, and the ladder by which it was cancelled."""

    async def amounts(self) -> Amounts:
        """What there is in its journal. Cancel: safe."""

    async def list(self, wanted: Wanted) -> Sequence[Record]:
        """Tasks, newest first. Cancel: safe."""

    async def show(self, task: str) -> Record | None:
        """A task with all that is known of it; None when there is none. Cancel: safe."""

    async def retry(self, task: str) -> Record | None:
        """Make one that failed or was cancelled pending again; others stay as they are. None: there is none."""

    async def cancel(self, task: str) -> Record | None:
        """End one that has not ended. None: there is none."""


class Journals(Used[Shown]):
    """The services that were used by what a server runs."""

    __slots__ = ()


#: The services of the server that runs the present context; None when no server does.
JOURNALS: Final[ContextVar[Journals | None]] = ContextVar("sojourn_journals", default=None)


def met(service: Shown) -> Journals | None:
    """A service that is used tells those of the present context, if there are any. Returns them, for its events."""
    journals = JOURNALS.get()
    if journals is not None:
        journals.join(service)
    return journals
