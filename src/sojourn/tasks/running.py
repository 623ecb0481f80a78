"""What a node has: tasks that run here, and those that were claimed ahead."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Final

import msgspec

from sojourn.errors import JournalUnavailable
from sojourn.scopes.pausing import pause
from sojourn.scopes.work import LADDER
from sojourn.tasks.base import Base
from sojourn.tasks.batch import Batch
from sojourn.tasks.journal import Journal, Want
from sojourn.tasks.kinds import Kinds
from sojourn.tasks.record import ENDED, Claim, Outcome, Progress, Settlement
from sojourn.tasks.room import Room
from sojourn.tasks.runner import Cause, Reauthorise, Run, Then, perform
from sojourn.tasks.settings import Settings
from sojourn.tasks.stats import Stats
from sojourn.tasks.telling import Teller

__all__ = ["Running"]

#: Ends that may wait to be written down before no more is begun; and what runs have said that may.
_BEHIND: Final = 1000
_ROOM: Final = 10_000
#: Seconds that what was claimed ahead may wait here before it is handed back for others.
_PATIENCE: Final = 1.0
#: Seconds between two looks at ends that are not written down.
_TURN: Final = 0.05


async def _alone(kind: str, slot: float) -> bool:
    """Nothing comes by a schedule."""
    return True


class Running:
    """All that one node has claimed and not settled.

    Args:
        base: Makes its tasks.
        journal: Where ends are written down.
        kinds: What this process can do.
        settings: How much of it.
        stats: Where it counts.
        then: What is submitted together with the end of a task.
        reauthorise: Asked before each run of a task that acts for somebody.

    Attributes:
        runs: By id of the task: running, waiting to, or ended and not written down yet.
        open: Whether anything new is begun.
        room: Places, and what was claimed ahead of them.
        finished: Runs that came to an end of their own since that was over.
        hungry: Called when there is room for more.
        answered: Called with the name of a call to the journal, and what it comes to.
        teller: Tells observers.
        alone: Asked before a run that stands for a slot: see ``perform``.
    """

    def __init__(  # noqa: PLR0913 - made once, by the node
        self,
        base: Base,
        journal: Journal,
        kinds: Kinds,
        settings: Settings,
        stats: Stats,
        then: Then,
        reauthorise: Reauthorise | None,
    ) -> None:
        self.runs: dict[str, Run] = {}
        self.open = settings.work
        self.finished = 0
        self.hungry: Callable[[], None] = lambda: None
        self.answered: Callable[[str, Exception | None], None] = lambda call, error: None
        self.teller = Teller()
        self.alone: Callable[[str, float], Coroutine[Any, Any, bool]] = _alone
        self.room = Room(kinds, settings)
        self._base = base
        self._kinds = kinds
        self._settings = settings
        self._stats = stats
        self._then = then
        self._reauthorise = reauthorise
        #: Whether too many ends were not written down when it was last looked at.
        self._behind = False
        #: Calls to the journal under way that may bring it more.
        self._coming = 0
        self._quiet = asyncio.Event()
        self._settles: Batch[Settlement, bool] = Batch(
            journal.settle, base.launch, "tasks settle", partial(self._heard, "settle")
        )
        self._says: Batch[Progress, int] = Batch(
            journal.append, base.launch, "tasks progress", partial(self._heard, "append"), room=_ROOM
        )

    def _heard(self, call: str, error: Exception | None) -> None:
        self.answered(call, error)

    # Room

    @property
    def free(self) -> bool:
        """Whether one more may begin at once."""
        return self.open and not self.room.waiting and self.room.free and not self.behind

    @property
    def behind(self) -> bool:
        """Whether so many ends are not written down yet that nothing more should begin."""
        return len(self.runs) - self.room.active - len(self.room.waiting) > _BEHIND

    def wants(self) -> list[Want]:
        """How many of which kinds are to be claimed."""
        self._behind = self.behind
        return self.room.wants() if self.open and not self._behind else []

    # Begin and end

    def take(self, claim: Claim, sent: float) -> None:
        """A task is this node's.

        Args:
            claim: Which.
            sent: When the call that claimed it was sent.
        """
        kind = self._kinds.get(claim.kind)
        assert kind is not None  # it was wanted
        old = self.runs.get(claim.id)
        if old is not None:  # its lease ran out, and nobody else was quicker: that run is no more
            self.lose(old, "lease")
        run = self.runs[claim.id] = Run(claim, kind, sent)
        if claim.crashes:
            self._stats.crashed(kind.name)
        if not self.open or self._base.now() - sent >= self._settings.lease:
            self.give_back(run)  # it is too late: the server stops, or the lease may be over before it has begun
        elif self.room.free and self.room.fits(kind):
            self._begin(run)
        else:
            self.room.waiting.append(run)

    def decline(self, claim: Claim) -> None:
        """A task became this node's that has no place here: it goes back, for whoever has room."""
        kind = self._kinds.get(claim.kind)
        if kind is not None and claim.id not in self.runs:
            run = self.runs[claim.id] = Run(claim, kind, self._base.now())
            self.give_back(run)

    def _begin(self, run: Run) -> None:
        self.room.reserve(run.kind, 1)
        claimed, run.since = run.since, self._base.now()
        self._stats.began(run.kind.name, run.claim.waited + run.since - claimed)
        name = f"task {run.kind.name} {run.claim.id}"
        doing = perform(run, self._sayer(run), self._reauthorise, self.teller.began, self.alone)
        task = run.task = self._base.launch(doing, name)
        task.add_done_callback(lambda done: self._ran(run, done))

    def _sayer(self, run: Run) -> Callable[[Progress], asyncio.Future[int]]:
        def heard(future: asyncio.Future[int]) -> None:
            run.saying -= 1
            if run.last is not None and not run.saying:
                self._settle(run, run.last)
            if not future.cancelled() and future.exception() is None and future.result() == 0:
                self.lose(run, "lease")

        def say(entry: Progress) -> asyncio.Future[int]:
            run.saying += 1
            future = self._says.ask(entry)
            # What follows is nothing of the run's, and must not keep what its context has.
            future.add_done_callback(heard, context=self._base.context)
            return future

        return say

    def _ran(self, run: Run, task: asyncio.Task[Settlement]) -> None:
        self.room.reserve(run.kind, -1)
        seconds = self._base.now() - run.since
        self.room.ran(seconds)
        if run.outcome is None:
            if task.cancelled():  # before its first step
                settlement = _settlement(run, "cancelled" if run.cause == "cancel" else "handover")
            else:
                settlement = task.result()
            run.outcome = settlement.outcome
            self._stats.ended(run.kind.name, settlement.outcome, seconds)
            self.teller.ended(run, settlement, seconds)
            settlement = self._with_then(run, settlement)
            if run.saying:
                run.last = settlement  # what it has said is written down before its end is
            else:
                self._settle(run, settlement)
        run.task = None  # which has its context, and that has the run
        self._next()

    def _with_then(self, run: Run, settlement: Settlement) -> Settlement:
        if settlement.outcome not in ENDED:
            return settlement
        try:
            then = tuple(self._then(run, settlement))
            return msgspec.structs.replace(settlement, then=then) if then else settlement
        except Exception as error:  # noqa: BLE001 - told; its end is written down all the same
            self._base.fail(error)
            return settlement

    def _next(self) -> None:
        """There is room: for what was claimed ahead, and for more."""
        waiting = self.room.waiting
        passed = 0
        while waiting and self.open and self.room.free and passed < len(waiting):
            run = waiting.popleft()
            if self.room.fits(run.kind):
                self._begin(run)
            else:
                waiting.append(run)
                passed += 1
        if self.open and not self.room.stocked:
            self.hungry()

    def look(self, late: float) -> None:
        """The event loop came so many seconds late: requests come first."""
        before = self.room.appetite.limit
        if self.room.appetite.look(late) > before:
            self._next()

    def end(self, run: Run, cause: Cause) -> None:
        """A run is to end: it is cancelled, once more by the ladder if it resists; or it never begins."""
        run.end(cause)
        if run.task is None:
            if run in self.room.waiting:
                self.room.waiting.remove(run)
                self.give_back(run, "cancelled" if cause == "cancel" else "unbegun")
        elif cause != "handover":  # then it has all of the drain's time
            self._base.by_ladder(run.task, cause, f"task {run.kind.name} {run.claim.id}", grace=LADDER[-1])

    def lose(self, run: Run, why: str) -> None:
        """Somebody else has the task of a run, or may have: the run is for nothing.

        Args:
            run: Which.
            why: ``lease``, or ``fenced`` when its lease could not be renewed.
        """
        if run.cause != "fenced" and run.outcome is None:
            self._stats.lost(run.kind.name)
            if why == "fenced":
                self._stats.self_fenced += 1
            self.teller.lost(run, why, self._base.now() - run.since)
            run.cause = ""  # stands before what else may have been the cause
            self.end(run, "fenced")

    def give_back(self, run: Run, outcome: Outcome = "unbegun") -> None:
        """Settle what has not begun."""
        run.outcome = outcome
        self._settle(run, _settlement(run, outcome))

    def give_back_late(self) -> None:
        """Others may have what has waited here for long."""
        now = self._base.now()
        for run in [run for run in self.room.waiting if now - run.since > _PATIENCE]:
            self.room.stall()
            self.room.waiting.remove(run)
            self.give_back(run)

    # Settling

    def _settle(self, run: Run, settlement: Settlement) -> None:
        future = self._settles.ask(settlement)
        future.add_done_callback(lambda done: self._settled(run, settlement, done))

    def _settled(self, run: Run, settlement: Settlement, future: asyncio.Future[bool]) -> None:
        error = future.exception()
        if isinstance(error, JournalUnavailable):  # nobody tries any more: its lease will run out
            return
        if self.runs.get(run.claim.id) is run:
            del self.runs[run.claim.id]
        seconds = self._base.now() - run.since
        name = run.kind.name
        if error is not None:
            self._base.fail(error)
        elif not future.result():
            self._stats.fenced(name)
            if run.cause != "fenced":
                self.teller.lost(run, "settled", seconds)
        elif settlement.outcome == "handover":
            self._stats.handed_over(name)
            self.teller.handed_over(run, seconds)
        elif not self.open and settlement.outcome != "unbegun":
            self.finished += 1
        if self._behind and not self.behind:
            self._behind = False
            self.hungry()
        self._look_quiet()

    # The end

    def expect(self, number: int) -> None:
        """So many calls more are under way that may bring a task, or fewer."""
        self._coming += number
        self._look_quiet()

    @property
    def quiet(self) -> bool:
        """Whether it has nothing, and nothing is coming."""
        return not self.runs and not self._coming

    def _look_quiet(self) -> None:
        if self.quiet:
            self._quiet.set()

    def close(self) -> None:
        """Nothing new; what was claimed ahead goes back."""
        self.open = False
        while self.room.waiting:
            self.give_back(self.room.waiting.popleft())

    async def hand_over(self, seconds: float) -> dict[str, int]:
        """Cancel what runs and hand it back: interrupted, not failed; see ``Node.hand_over``."""
        self.close()
        ends = self._base.now() + seconds
        left = list(self.runs.values())
        for run in left:
            self.end(run, "handover")
        await self.until_quiet(seconds - min(2.0, seconds / 5))
        for run in list(self.runs.values()):
            if run.outcome is None and run.task is not None:  # it resists: it is fenced off, and others may begin
                self.give_back(run, "handover")
                self._base.by_ladder(run.task, "handover", f"task {run.kind.name} {run.claim.id}")
        await self.until_quiet(ends - self._base.now())
        lost = set(self.runs.values())
        for run in lost:
            self.teller.lost(run, "saved", self._base.now() - run.since)
        handed = sum(1 for run in left if run.outcome == "handover" and run not in lost)
        return {"finished": self.finished, "handed_over": handed, "lost": len(lost)}

    async def until_settled(self, seconds: float) -> None:
        """Wait until no end waits to be written down, or for so long. Cancel: safe."""
        ends = self._base.now() + seconds
        while self._base.now() < ends and any(run.outcome is not None for run in self.runs.values()):
            await pause(_TURN)

    async def until_quiet(self, seconds: float) -> None:
        """Wait until nothing is held and nothing is coming, or for so long. Cancel: safe."""
        ends = self._base.now() + seconds
        while not self.quiet and self._base.now() < ends:
            self._quiet.clear()
            timer = self._base.loop.call_later(max(0.001, ends - self._base.now()), self._quiet.set)
            try:
                await self._quiet.wait()
            finally:
                timer.cancel()

    def stop(self) -> None:
        """Write nothing down any more."""
        self._settles.stop()
        self._says.stop()


def _settlement(run: Run, outcome: Outcome) -> Settlement:
    return Settlement(id=run.claim.id, epoch=run.claim.epoch, outcome=outcome)
