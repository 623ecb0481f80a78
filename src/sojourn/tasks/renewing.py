"""Keeping what a node has: leases are renewed, all together; what could not be renewed in time is given up."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

from sojourn.policy.retry import Backoff
from sojourn.scopes.deadline import deadline
from sojourn.scopes.pausing import pause
from sojourn.tasks.base import Base
from sojourn.tasks.journal import Journal
from sojourn.tasks.lease import BEAT, FENCE, beat_at, fenced, patience
from sojourn.tasks.running import Running
from sojourn.tasks.stats import Stats

__all__ = ["Renewing"]

#: Seconds between two looks, at most.
_LOOK: Final = 1.0
#: Shares of a third of the lease between two tries while the journal is away.
_BACKOFF: Final = Backoff(0.05, 0.3)


class Renewing:
    """The loop of one node that renews.

    Args:
        base: Makes its task.
        journal: Where leases are.
        running: What has them.
        lease: Their length in seconds.
        stats: Where it counts.
        answered: Called with what each call comes to.
    """

    def __init__(
        self,
        base: Base,
        journal: Journal,
        running: Running,
        lease: float,
        stats: Stats,
        answered: Callable[[Exception | None], None],
    ) -> None:
        self._base = base
        self._journal = journal
        self._running = running
        self._lease = lease
        self._stats = stats
        self._answered = answered
        #: When it was last tried without success, and how often in a row.
        self._tried = 0.0
        self._tries = 0

    async def run(self) -> None:
        """Renew until it is cancelled. Cancel: safe."""
        third = self._lease * BEAT
        while True:
            if self._tries:
                again = third * _BACKOFF.delay(self._tries, random.uniform(0.5, 1.0))
                await pause(min(again, self._until_fence()))
                self._fence()
            else:
                await pause(min(third / 4, _LOOK))
            self._running.give_back_late()
            due = beat_at((run.renewed for run in self._running.runs.values()), self._lease)
            if due is not None and due - third / 4 <= self._base.now():
                await self.beat()

    async def beat(self) -> None:
        """Renew all, once; give up what can't be any more. Cancel: safe."""
        self._fence()  # this process was frozen for all of a lease
        held = list(self._running.runs.values())
        sent = self._base.now()
        try:
            async with deadline(patience(self._oldest(), self._lease, sent), "tasks beat"):
                beat = await self._journal.beat(
                    self._base.id, [(run.claim.id, run.claim.epoch) for run in held], self._lease
                )
        except Exception as error:  # noqa: BLE001 - whatever is wrong with it: what can't be renewed is given up
            self._tries += 1
            self._base.odd(error)
            self._tried = self._base.now()
            self._answered(error)
            self._stats.call_failed("beat")
            self._fence()
            return
        self._tries = 0
        self._answered(None)
        self._stats.beats += 1
        for run in held:
            if run.claim.id in beat.lost:
                self._running.lose(run, "lease")
            else:
                run.renewed = sent
                if run.claim.id in beat.cancelled and not run.cause:
                    self._running.end(run, "cancel")

    def _oldest(self) -> float | None:
        """When the lease of a run that has not ended was renewed, the one longest ago."""
        running = (run.renewed for run in self._running.runs.values() if run.outcome is None and run.cause != "fenced")
        return min(running, default=None)

    def _until_fence(self) -> float:
        """Seconds until a run is to be given up, if it can't be renewed before; never none at all."""
        oldest = self._oldest()
        return self._lease if oldest is None else max(0.001, oldest + self._lease * FENCE - self._base.now())

    def _fence(self) -> None:
        now = self._base.now()
        for run in list(self._running.runs.values()):
            if run.outcome is None and fenced(run.renewed, self._lease, now, self._tried):
                self._running.lose(run, "fenced")
