"""Where tasks are written down: a file of this host, PostgreSQL, or Redis.

The contract. ``sojourn.testing.task_journal`` tests any journal for it:

1. What ``submit`` has returned outlives the process, and the machine as far as the engine's own settings go.
2. Time is the journal's: leases, delays and ages are measured by one clock, never by that of who asks.
3. A claim is one step: no two nodes ever hold one epoch of a task. Pending and due, and running with a lease that ran
   out, are claimed by the same statement; the second is an interruption and a crash. Each claim adds one to the epoch.
4. What was said under an earlier epoch changes nothing and is answered by False, 0, or "lost".
5. Every call may be repeated, also when it is not known whether it was done: the result is that of one call.
6. A batch is one step: all of it is done or none. Each entry is answered for itself, in the order of the batch.
7. Who listens is told within a moment of what may be due and what is to be cancelled, if it claims, and of changes of
   what is followed; or that it may have missed something. Told once, it may be told no more of what is due until
   somebody has claimed. It is only a hint: nothing is lost without it.
8. A call that can't reach the engine raises ``JournalUnavailable`` in bounded time, and nothing else of the engine's.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

import msgspec

from sojourn.tasks.record import (
    Claim,
    NewTask,
    Progress,
    Reading,
    Settlement,
    State,
    Submitted,
    Task,
)

__all__ = ["Beat", "Claimed", "Counts", "Journal", "Listener", "Query", "Want"]


class Want(msgspec.Struct, frozen=True):
    """How many of which kinds a node has room for.

    Attributes:
        kinds: Any of these.
        n: As many of them together.
    """

    kinds: tuple[str, ...]
    n: int


class Claimed(msgspec.Struct, frozen=True):
    """What a node got.

    Attributes:
        claims: At most as many as it wanted, most urgent first.
        after: Seconds until something of these kinds is due or a lease of theirs runs out; None when nothing is
            known. 0 when more is due than it wanted.
    """

    claims: tuple[Claim, ...] = ()
    after: float | None = None


class Beat(msgspec.Struct, frozen=True):
    """What became of what a node holds.

    Attributes:
        lost: Ids that are not its any more, or not under that epoch.
        cancelled: Ids that are to end.
    """

    lost: frozenset[str] = frozenset()
    cancelled: frozenset[str] = frozenset()


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """Which tasks to list. None and "" leave a question out.

    Attributes:
        states: In one of these states.
        kind: Of this kind.
        owner: Of this principal.
        before: Those made before the task of this id (which may be gone): the next page.
        limit: At most so many, newest first.
    """

    states: tuple[State, ...] = ()
    kind: str = ""
    owner: str | None = None
    before: str = ""
    limit: int = 50


class Counts(msgspec.Struct, frozen=True):
    """What there is, by kind.

    Attributes:
        states: By kind, then state: how many.
        oldest: By kind: seconds that the oldest due task has waited. Kinds with none are missing.
    """

    states: Mapping[str, Mapping[str, int]]
    oldest: Mapping[str, float]


class Listener(Protocol):
    """A node's ears. Called in its event loop; raises nothing."""

    @property
    def claims(self) -> bool:
        """Whether it claims. Who does not need not be told of what is due, nor of what is to end."""

    def due(self) -> None:
        """Something may be claimable."""

    def changed(self, id: str) -> None:
        """A task that is followed, or any other, has said something or changed its state."""

    def cancelled(self, id: str) -> None:
        """A task that runs somewhere is to end."""

    def missed(self) -> None:
        """From now on it is told of all; of what was before it may not have been."""

    def away(self) -> None:
        """From now on it is told of nothing, until ``missed`` is called."""


class Journal(Protocol):
    """Keeps tasks. Calls raise ``JournalUnavailable`` while the engine can't be reached, in bounded time.

    Cancel: safe everywhere; what was asked may have been done.

    Attributes:
        name: Of the engine: ``sqlite``, ``postgres``, ``redis``.
    """

    @property
    def name(self) -> str:
        """Of the engine: ``sqlite``, ``postgres``, ``redis``."""

    async def open(self, node: str) -> None:
        """Make ready: connect, make or check tables. Called again, it does nothing.

        Args:
            node: Who uses it: unique for each start of each process.

        Raises:
            ConfigError: It can't be used as it is: a missing package, a wrong address, tables of a newer version.
        """

    async def submit(self, tasks: Sequence[NewTask]) -> Sequence[Submitted]:
        """Write tasks down. A key that its owner has used already is answered with the task it was used for."""

    async def claim(self, node: str, wants: Sequence[Want], lease: float) -> Claimed:
        """Take what is due, and what others have lost, for so many seconds."""

    async def beat(self, node: str, held: Sequence[tuple[str, int]], lease: float) -> Beat:
        """Renew the leases of tasks by id and epoch, from now on."""

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[bool]:
        """Write down how runs ended. False: somebody else has the task by now, and this run does not count."""

    async def append(self, progress: Sequence[Progress]) -> Sequence[int]:
        """Write down what running tasks say. Returns the number of each event: 0 when the task is no more theirs.

        The last 1,000 events of a task are kept. An entry without data is answered by the latest number, or by -1
        when there is none yet.
        """

    async def cancel(self, id: str) -> Task | None:
        """End a task: at once when it is pending, as soon as its node hears of it when it runs. None: there is none.

        What has ended stays as it is. A run that is to end and is settled as ``retry``, ``handover`` or ``unbegun``, or
        is lost, does not begin again: the task is cancelled.
        """

    async def retry(self, id: str) -> Task | None:
        """Make a task that failed or was cancelled pending again; its failures and crashes are forgotten.

        None: there is none. Other states stay as they are.
        """

    async def get(self, id: str) -> Task | None:
        """A task; None when there is none, or no more."""

    async def read(self, id: str, after: int, limit: int = 1000) -> Reading | None:
        """A task and its events after a number, in one step; None when there is none."""

    async def list(self, query: Query) -> Sequence[Task]:
        """Tasks, newest first, without payload, result and checkpoint (b"")."""

    async def counts(self, kinds: Collection[str] = ()) -> Counts:
        """How many there are; of these kinds only, if any are named."""

    async def sweep(self, limit: int = 1000) -> int:
        """Remove ended records whose time is over, at most so many. Returns how many. Any node may do it."""

    async def listen(self, listener: Listener) -> None:
        """Tell somebody until it is cancelled. Goes on by itself when the engine was away."""

    async def follow(self, id: str) -> None:
        """Tell who listens of changes of a task: from when this returns, if it can be told of anything at all.

        Each call needs its own ``unfollow``. An engine that tells of all tasks does nothing.
        """

    def unfollow(self, id: str) -> None:
        """It needs not be told of them any more."""

    async def aclose(self) -> None:
        """Give back what it holds. What is held by this node is not released by it."""
