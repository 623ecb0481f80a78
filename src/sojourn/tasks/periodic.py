"""Tasks that come again by a schedule: one for each slot, whichever node thinks of it first.

A slot's task has an id of its kind and its slot, so that submitting it again does nothing. It is written down ahead of
its time, and its successor together with its end: that keeps the chain going, and no two slots of a kind run together.
A look at the journal begins the chain, mends it when it broke (somebody cancelled what waited),
and at the start of a node takes back what waits for a slot that the schedule no longer has. Nodes that look at the same
moment may begin two chains; a run that finds an earlier slot standing is left out, and its chain ends.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Collection, Iterable
from typing import Final

import msgspec

from sojourn.errors import ConfigError, JournalUnavailable
from sojourn.policy.schedule import Every, Schedule, stands
from sojourn.tasks.cron import Cron
from sojourn.tasks.journal import Journal, Query
from sojourn.tasks.record import ENDED, NewTask, Task
from sojourn.tasks.spec import Spec

__all__ = ["OWNER", "Periodic", "Plan", "schedule_of"]

#: Who starts them: no principal is called so, and nobody asks for them over HTTP.
OWNER: Final = "sojourn:periodic"
#: Seconds between two looks, at least; at most twice that.
_LOOK: Final = 30.0
#: Seconds that the record of a slot is kept at least: it is what says that the slot was done.
_KEPT: Final = 60.0
#: Slots that are tried in one look, where somebody cancelled the next ones.
_TRIES: Final = 20
#: Waiting and running tasks that one look reads.
_MOST: Final = 1000

_encode: Final = msgspec.json.Encoder().encode
_spec: Final = msgspec.json.Decoder(Spec).decode


def schedule_of(every: float | None, cron: str | None, timezone: str = "UTC") -> Schedule | None:
    """The schedule that a definition asks for; None when it asks for none.

    Args:
        every: Seconds from slot to slot; slots are their multiples since 1970.
        cron: A cron expression.
        timezone: What ``cron`` is meant in.

    Raises:
        ConfigError: There are both, or one that can't be meant.
    """
    if every is not None and cron is not None:
        raise ConfigError(f"a task comes every {every:g} s or by the cron expression {cron!r}, not both")
    if cron is not None:
        return Cron(cron, timezone)
    if every is None:
        return None
    try:
        return Every(every)
    except ValueError as error:
        raise ConfigError(f"a periodic task can't come {error}") from None


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A kind that comes again.

    Attributes:
        schedule: When.
        task: What each slot's task is like: kind, payload, priority, keep. Its id, owner, run_at and spec are not read.
        spec: How each is to be run.
        catch_up: Whether a slot that nobody was there for is made up for, once for all that were missed. Else it is
            given up when the next is due.
    """

    schedule: Schedule
    task: NewTask
    spec: Spec
    catch_up: bool = True

    def at(self, slot: float) -> NewTask:
        """The task of a slot.

        Args:
            slot: When it is due, in seconds since 1970.
        """
        late = None if self.catch_up else max(0.0, self.schedule.next(slot) - slot)
        return msgspec.structs.replace(
            self.task,
            id=_id(self.task.kind, slot),
            owner=OWNER,
            run_at=slot,
            keep=max(self.task.keep, _KEPT),
            spec=_encode(msgspec.structs.replace(self.spec, slot=slot, expires=late)),
        )


class Periodic:
    """All kinds of a service that come again.

    Args:
        plans: How.
    """

    __slots__ = ("_begun", "_next_look", "_plans")

    def __init__(self, plans: Iterable[Plan] = ()) -> None:
        self._plans = {plan.task.kind: plan for plan in plans}
        #: Whether this node has had its first look.
        self._begun = False
        self._next_look = 0.0

    def add(self, plan: Plan) -> None:
        """One more kind; before the first look."""
        self._plans[plan.task.kind] = plan

    def after(self, kind: str, slot: float | None, now: float) -> NewTask | None:
        """The successor of a slot's task, to be submitted with its end (``Settlement.then``).

        Args:
            kind: Of the task that ends.
            slot: Of ``Spec.slot``; None where it is of no slot.
            now: The time, in seconds since 1970.

        Returns:
            The task; None when the kind has no schedule any more, or the task was of no slot.
        """
        plan = self._plans.get(kind)
        if plan is None or slot is None:
            return None
        # What was missed meanwhile is not made up for one by one.
        return plan.at(plan.schedule.next(max(slot, now)))

    async def look(self, journal: Journal, now: float) -> int:
        """See that one slot of each kind is waiting or running. Does nothing most of the time: call it at every beat.

        Args:
            journal: Where they are.
            now: The time, in seconds since 1970.

        Returns:
            How many slots were submitted.

        Raises:
            JournalUnavailable: It can't be reached; the next call looks again.

        Cancel: safe; the next call looks again.
        """
        if not self._plans or (self._begun and now < self._next_look):
            return 0
        query = Query(states=("pending", "running"), owner=OWNER, limit=_MOST)
        held = await journal.list(query)
        if not self._begun:
            held = await self._take_back(journal, held, now)
        standing = {task.kind for task in held}
        submitted = 0
        for kind, plan in self._plans.items():
            if kind not in standing:
                submitted += await self._submit(journal, plan, now)
        self._begun = True
        # Nodes that began together shall not look together.
        self._next_look = now + _LOOK * (1.0 + random.random())
        return submitted

    async def alone(self, journal: Journal, kind: str, slot: float) -> bool:
        """Whether the run of a slot may begin: no earlier slot of its kind waits or runs.

        Two stand at the same time when two nodes began a chain at the same moment, or had different schedules. The
        later one is left out, and with it the second chain ends.

        Args:
            journal: Where they are. While it is away, a run may begin: it has its lease.
            kind: Of the run.
            slot: What it stands for, in seconds since 1970.

        Cancel: safe.
        """
        query = Query(states=("pending", "running"), kind=kind, owner=OWNER, limit=_MOST)
        try:
            held = await journal.list(query)
        except JournalUnavailable:
            return True
        slots = (_spec(task.spec).slot for task in held)
        return not any(other is not None and other < slot for other in slots)

    async def _take_back(self, journal: Journal, held: Collection[Task], now: float) -> list[Task]:
        """Cancel what waits for a slot that its kind does not have, and return the rest.

        Only a node that begins does so: where versions with different schedules run side by side, the newest decides,
        and they do not undo each other's slots for as long as both are there.
        """
        left = []
        for task in held:
            plan, slot = self._plans.get(task.kind), _spec(task.spec).slot
            if plan is None or slot is None or task.state != "pending" or stands(plan.schedule, slot, now):
                left.append(task)
            else:
                await journal.cancel(task.id)
        return left

    async def _submit(self, journal: Journal, plan: Plan, now: float) -> int:
        slot = now
        for _ in range(_TRIES):
            slot = plan.schedule.next(slot)
            (answer,) = await journal.submit([plan.at(slot)])
            if answer.state not in ENDED:
                return 1
            # Somebody has cancelled that one: so it is left out, and the one after it is next.
        return 0


def _id(kind: str, slot: float) -> str:
    return "every-" + hashlib.sha256(f"{kind}\0{slot:.3f}".encode()).hexdigest()[:40]
