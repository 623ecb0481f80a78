"""Keeping what a node has: leases are renewed, all together; what could not be renewed in time is given up."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

from sojourn.errors import DeadlineExceeded, JournalUnavailable
from sojourn.policy.retry import Backoff
from sojourn.scopes.deadline import deadline
from sojourn.tasks.base import Base
from sojourn.tasks.journal import Journal
from sojourn.tasks.lease import BEAT, beat_at, fenced
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
                await self._base.pause(third * _BACKOFF.delay(self._tries, random.uniform(0.5, 1.0)))
            else:
                await self._base.pause(min(third / 4, _LOOK))
            self._running.give_back_late()
            due = beat_at((run.renewed for run in self._running.runs.values()), self._lease)
            if due is not None and due - third / 4 <= self._base.now():
                await self.beat()

    async def beat(self) -> None:
        """Renew all, once; give up what can't be any more. Cancel: safe."""
        held = list(self._running.runs.values())
        sent = self._base.now()
        try:
            async with deadline(self._lease * BEAT, "tasks beat"):
                beat = await self._journal.beat(
                    self._base.id, [(run.claim.id, run.claim.epoch) for run in held], self._lease
                )
        except (JournalUnavailable, DeadlineExceeded) as error:
            self._tries += 1
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

    def _fence(self) -> None:
        now = self._base.now()
        for run in list(self._running.runs.values()):
            if run.outcome is None and fenced(run.renewed, self._lease, now, self._tried):
                self._running.lose(run, "fenced")
