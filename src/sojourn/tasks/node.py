"""A node: one process's part of the work. It submits, claims, runs, renews, settles, and hands back.

    claiming    when there is room and something may be due (`claiming.py`)
    running     what it has, and how each run ends (`running.py`, `runner.py`)
    renewing    all it has, each third of a lease (`renewing.py`, `lease.py`)
    watching    who wants to know what becomes of a task (`watching.py`)

This file puts them together, listens to the journal, and ends them.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from functools import partial
from typing import Final

from sojourn.clock import Clock, SystemClock
from sojourn.errors import JournalUnavailable
from sojourn.scopes.failures import tell_own_failure
from sojourn.scopes.journals import Journals
from sojourn.scopes.pausing import pause
from sojourn.tasks.base import Base
from sojourn.tasks.batch import Batch
from sojourn.tasks.claiming import Claiming
from sojourn.tasks.journal import Journal
from sojourn.tasks.kinds import Kind, Kinds
from sojourn.tasks.periodic import Periodic
from sojourn.tasks.record import Claim, NewTask, Submitted
from sojourn.tasks.renewing import Renewing
from sojourn.tasks.runner import Reauthorise, Run, Then
from sojourn.tasks.running import Running
from sojourn.tasks.settings import Settings
from sojourn.tasks.stats import Stats
from sojourn.tasks.telling import Teller
from sojourn.tasks.watching import Watchers

__all__ = ["Node"]

#: Seconds between two looks at how late the event loop comes.
_LOOK: Final = 0.1
#: Seconds between two looks at the schedules, and between two removals of what has been kept long enough: about, so
#: that nodes take turns; and records that one removal takes.
_TURN: Final = 5.0
_SWEEP: Final = 60.0
_PAGE: Final = 1000
#: Submissions that wait for the journal.
_ROOM: Final = 10_000
#: Seconds for what was not handed over in its time.
_ONCE_MORE: Final = 0.5

_wall: Final = SystemClock.wall


def _first(task: NewTask) -> Claim:
    """A task that was this node's from the first."""
    return Claim(id=task.id, kind=task.kind, epoch=1, payload=task.payload, spec=task.spec, owner=task.owner)


class Node:
    """Made in the event loop by ``Tasks``; one for each process. It is the listener of its journal.

    Args:
        name: What the service is called.
        journal: Where tasks are written down.
        kinds: What this process can do.
        settings: How.
        stats: Where it counts.
        then: What is submitted together with the end of a task.
        reauthorise: Asked before each run of a task that acts for somebody.
        clock: Its own time; for nothing that other nodes see.

    Attributes:
        base: Its loop and its own tasks.
        runs: What it has, by id of the task.
        watchers: Who watches tasks here.
        problem: Why the latest submission was in vain; "" when it was not.
    """

    def __init__(  # noqa: PLR0913 - made once, by the service
        self,
        name: str,
        journal: Journal,
        kinds: Kinds,
        settings: Settings,
        stats: Stats,
        then: Then,
        reauthorise: Reauthorise | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.service = name
        self.base = Base(clock)
        self.loop = self.base.loop
        self.watchers = Watchers(journal, self.base)
        self._periodic: Periodic | None = None
        self._journal = journal
        self._kinds = kinds
        self._settings = settings
        self._stats = stats
        self.problem = ""
        self._away_since: float | None = None
        self._handed = False
        self._submits: Batch[NewTask, Submitted] = Batch(
            journal.submit,
            self.base.launch,
            "tasks submit",
            partial(self._called, "submit"),
            room=_ROOM,
            late=self._given_up,
        )
        self._running = Running(self.base, journal, kinds, settings, stats, then, reauthorise)
        self._running.answered = self._called
        loops = (self.base, journal, self._running, settings.lease, stats, self._answered)
        self._claiming = Claiming(*loops)
        self._renewing = Renewing(*loops)

    @property
    def id(self) -> str:
        """What the journal calls it; unique for each start of each process."""
        return self.base.id

    @property
    def runs(self) -> Mapping[str, Run]:
        """What it has, by id of the task."""
        return self._running.runs

    def observed(self, journals: Journals | None) -> None:
        """Tell these what happens here; None tells nobody."""
        self._running.teller = Teller(self.service, self._journal.name, self.id, journals)

    async def begin(self, periodic: Periodic | None = None) -> None:
        """Listen, and claim if it works at all.

        Args:
            periodic: What comes by a schedule; None: nothing does.

        Raises:
            ConfigError: The journal can't be used as it is.
            JournalUnavailable: It can't be reached.
        """
        if periodic is not None:
            self._periodic = periodic
            self._running.alone = partial(periodic.alone, self._journal)
        await self._journal.open(self.base.id)
        self.base.keep(self._listening(), "tasks listen")
        if not self._settings.work:
            return
        self.base.keep(self._renewing.run(), "tasks renew")
        self.base.keep(self._claiming.run(), "tasks claim")
        self.base.keep(self._keeping(), "tasks keep")
        if self._settings.polite and self.base.serving:
            self.loop.call_later(_LOOK, self._look, self.base.now())

    # What the journal tells: its Listener

    @property
    def claims(self) -> bool:
        """Whether it does any work."""
        return self._settings.work

    def due(self) -> None:
        """Something may be claimable."""
        self._claiming.due()

    def changed(self, id: str) -> None:
        """A task has said something or changed its state."""
        self.watchers.changed(id)

    def cancelled(self, id: str) -> None:
        """A task is to end; if it is ours, now."""
        run = self._running.runs.get(id)
        if run is not None and not run.cause:
            self._running.end(run, "cancel")

    def missed(self) -> None:
        """It listens again, and may have missed anything."""
        self._claiming.deaf = False
        self._claiming.due()
        self.watchers.missed()

    def away(self) -> None:
        """It is deaf."""
        self._claiming.deaf = True
        self._claiming.wake()

    def _called(self, call: str, error: Exception | None) -> None:
        """A call that many share has come to this."""
        if error is not None:
            self._stats.call_failed(call)
        if call == "submit":
            self.problem = "" if error is None else getattr(error, "detail", str(error))
        self._answered(error)

    def _answered(self, error: Exception | None) -> None:
        """The journal has answered, or could not be reached."""
        if error is None:
            if self._away_since is not None:
                away, self._away_since = self._away_since, None
                self._stats.away(False)
                self._running.teller.back(self.base.now() - away)
                self._claiming.due()
        elif self._away_since is None:
            self._away_since = self.base.now()
            self._stats.away(True)
            self._running.teller.away(error, len(self.runs))

    # Submitting

    def takes(self, kind: Kind) -> bool:
        """Whether a task that is submitted now would be this node's at once: then it need not be claimed at all."""
        return not self._claiming.more and self._running.free and self._running.room.fits(kind)

    def submit(self, task: NewTask) -> asyncio.Future[Submitted]:
        """Write a task down; answered when it is. It begins here if ``task.node`` says so.

        Who gives it up cancels the future: it may be written down all the same.
        """
        future = self._submits.ask(task)
        if task.node:
            kind, sent = self._kinds.of(task.kind), self.base.now()
            self._running.room.reserve(kind, 1)
            self._running.expect(1)
            # Not in the context of the request that asks: what follows is nothing of its.
            future.add_done_callback(lambda done: self._submitted(done, task, kind, sent), context=self.base.context)
        return future

    def _submitted(self, future: asyncio.Future[Submitted], task: NewTask, kind: Kind, sent: float) -> None:
        self._running.room.reserve(kind, -1)
        if future.cancelled() or future.exception() is not None or not future.result().new:
            self._claiming.wake()  # there is room again
        else:
            self._running.take(_first(task), sent)
        self._running.expect(-1)

    def _given_up(self, task: NewTask, submitted: Submitted) -> None:
        """Its caller has left while it was written down, and its place here was given to another."""
        if task.node and submitted.new and submitted.state == "running":
            self._running.decline(_first(task))

    # Regular work

    async def _listening(self) -> None:
        while True:  # engines come back by themselves; what they should not raise must not leave it deaf
            try:
                await self._journal.listen(self)
            except Exception as error:  # noqa: BLE001 - told, and tried again
                self.base.odd(error)
                self._answered(error)
            self.away()
            await pause(_TURN * random.uniform(0.1, 0.2))

    async def _keeping(self) -> None:
        sweep = self.base.now() + _SWEEP * random.random()
        while True:
            try:
                if self._periodic is not None and self._running.open:
                    await self._periodic.look(self._journal, _wall())
                if self.base.now() >= sweep:
                    sweep = self.base.now() + _SWEEP * random.uniform(0.5, 1.5)
                    while await self._journal.sweep(_PAGE) >= _PAGE:
                        await pause(0.05)
            except JournalUnavailable as error:
                self._answered(error)
            except Exception as error:  # noqa: BLE001 - told; what else is to be kept goes on
                tell_own_failure(error, "durable tasks")
            await pause(_TURN * random.uniform(0.8, 1.2))

    def _look(self, before: float) -> None:
        """How late does the event loop come? Requests come first."""
        if self._running.open:
            now = self.base.now()
            self._running.look(max(0.0, now - before - _LOOK))
            self.loop.call_later(_LOOK, self._look, now)

    # The end

    def stop_claiming(self) -> None:
        """Nothing new from now on; what was claimed ahead goes back."""
        self._running.close()

    async def finish(self, seconds: float) -> None:
        """Wait for what runs to come to its end, at most so long. Cancel: safe."""
        await self._running.until_quiet(seconds)

    async def hand_over(self, seconds: float) -> dict[str, int]:
        """Cancel what runs and hand it back: interrupted, not failed. All is done when this returns.

        Args:
            seconds: For all of it. The last fifth, at most 2 s, is for writing down; who has not ended by then is
                handed back as it is, and fenced off.

        Returns:
            How many have ``finished`` since the drain began, were ``handed_over``, and were ``lost``: could not be
            handed back; they will be found when their leases run out.

        Cancel: the rest is lost.
        """
        self._handed = True
        return await self._running.hand_over(seconds)

    async def aclose(self, seconds: float) -> None:
        """Hand over what runs, and end. Cancel: what is left is lost."""
        try:
            self._running.close()
            if not self._running.quiet:
                # What could not be written down in the drain has had its time.
                await self.hand_over(min(seconds, _ONCE_MORE) if self._handed else seconds)
            await self._submits.drain(min(1.0, seconds))
        finally:
            self._submits.stop()
            self._running.stop()
            self.watchers.stop()
            await self.base.stop()
            await self._journal.aclose()
