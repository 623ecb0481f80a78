"""When a node asks the journal for work: when there is room, and something may be due."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Final

from sojourn.clock import NEVER
from sojourn.policy.retry import Backoff
from sojourn.scopes.pausing import pause
from sojourn.tasks.base import Base
from sojourn.tasks.journal import Claimed, Journal, Want
from sojourn.tasks.kinds import Kind
from sojourn.tasks.running import Running
from sojourn.tasks.stats import Stats

__all__ = ["Claiming"]

#: Seconds after which it looks though nobody has told it of anything; and while nobody can.
_POLL: Final = 5.0
_DEAF: Final = 1.0
#: Between tries while the journal is away.
_BACKOFF: Final = Backoff(0.1, 5.0)
#: Seconds before it asks again where the journal had more and gave nothing: another node was quicker.
_TURN: Final = 0.01
#: Seconds that ends have to be written down, after the journal was away, before anything is claimed again.
_SETTLED: Final = 3.0


class Claiming:
    """The loop of one node that claims.

    Args:
        base: Makes its task.
        journal: Where work is.
        running: What takes it.
        lease: Seconds of a claim.
        stats: Where it counts.
        answered: Called with what each call comes to.

    Attributes:
        more: Whether more is due than was wanted last, or may be.
        deaf: Whether nobody tells what is due.
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
        self.more = False
        self.deaf = True
        self._base = base
        self._journal = journal
        self._running = running
        self._lease = lease
        self._stats = stats
        self._answered = answered
        self._wake = asyncio.Event()
        #: Kinds for which there was no room when it asked last: what is due of them it was not told.
        self._left: list[Kind] = []
        running.hungry = self._hungry

    def due(self) -> None:
        """Something may be claimable."""
        self.more = True
        self._wake.set()

    def wake(self) -> None:
        """Look again when to ask."""
        self._wake.set()

    def _hungry(self) -> None:
        if self.more or (self._left and any(map(self._running.room.fits, self._left))):
            self._wake.set()

    async def run(self) -> None:
        """Claim until it is cancelled. Cancel: safe; what was claimed at that moment waits for its lease to run out."""
        tries = 0
        while True:
            wants = self._running.wants()
            if not wants:
                self.more = True  # it would have asked: it does when there is room
                await self._waked(NEVER)
                continue
            self.more = False
            self._left = self._running.room.left(wants)
            sent = self._base.now()
            try:
                claimed = await self._ask(wants)
            except Exception as error:  # noqa: BLE001 - whatever is wrong with it: nobody else claims here
                tries += 1
                self.more = True
                self._base.odd(error)
                self._answered(error)
                self._stats.call_failed("claim")
                await pause(_BACKOFF.delay(tries, random.uniform(0.5, 1.0)))
                # What was given up meanwhile goes back as an interruption, before it is found as a lost lease.
                await self._running.until_settled(_SETTLED)
                continue
            tries = 0
            self._answered(None)
            self._stats.claims += 1
            self._stats.claimed += len(claimed.claims)
            for claim in claimed.claims:
                self._running.take(claim, sent)
            await self._until_next(claimed, wants)

    async def _ask(self, wants: list[Want]) -> Claimed:
        """Who ends waits for the answer, so that what it brings is handed back."""
        self._running.expect(1)
        try:
            return await self._journal.claim(self._base.id, wants, self._lease)
        finally:
            self._running.expect(-1)

    async def _until_next(self, claimed: Claimed, wants: list[Want]) -> None:
        if claimed.after == 0.0:
            self.more = True
            if claimed.claims:
                self._wake.clear()
                if self._running.room.stocked or not self._running.wants():
                    await self._waked(NEVER)
                else:
                    await pause(0.0)
            else:
                await pause(_TURN)
            return
        poll = (_DEAF if self.deaf else _POLL) * random.uniform(0.8, 1.2)
        await self._waked(poll if claimed.after is None else min(poll, claimed.after))

    async def _waked(self, seconds: float) -> None:
        """Wait until something may be claimable, or for so long."""
        timer = self._base.loop.call_later(seconds, self._wake.set) if seconds < NEVER else None
        try:
            await self._wake.wait()
        finally:
            if timer is not None:
                timer.cancel()
        self._wake.clear()
