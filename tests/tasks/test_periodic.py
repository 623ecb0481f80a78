"""Periodic tasks: one for each slot, whoever asks and how often; nothing of an old schedule stays."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar, cast

import msgspec
import pytest

from sojourn.errors import ConfigError, JournalUnavailable
from sojourn.policy.schedule import Every, Schedule
from sojourn.tasks.journal import Journal, Query
from sojourn.tasks.periodic import OWNER, Periodic, Plan, schedule_of
from sojourn.tasks.record import NewTask, State, Submitted, Task
from sojourn.tasks.spec import Spec

T = TypeVar("T")


class Book:
    """Of a journal what periodic tasks need, in memory."""

    def __init__(self) -> None:
        self.tasks: dict[str, tuple[NewTask, State]] = {}
        self.looks = 0

    async def submit(self, tasks: Sequence[NewTask]) -> Sequence[Submitted]:
        answers = []
        for task in tasks:
            new = self.tasks.setdefault(task.id, (task, "pending"))
            answers.append(Submitted(task.id, True, "", new[1]))
        return answers

    async def list(self, query: Query) -> Sequence[Task]:
        self.looks += 1
        return [
            Task(id=task.id, kind=task.kind, state=state, owner=task.owner, spec=task.spec, run_at=task.run_at or 0.0)
            for task, state in self.tasks.values()
            if state in query.states and task.owner == query.owner and query.kind in ("", task.kind)
        ]

    async def cancel(self, task_id: str) -> Task | None:
        task, _ = self.tasks[task_id]
        self.tasks[task_id] = (task, "cancelled")
        return None

    def become(self, slot: float, state: State) -> None:
        """The task of a slot has another state now."""
        (task,) = [task for task, _ in self.tasks.values() if task.run_at == slot]
        self.tasks[task.id] = (task, state)

    def slots(self, state: State = "pending") -> list[float]:
        return sorted(task.run_at or 0.0 for task, now in self.tasks.values() if now == state)


async def _nobody(query: Query) -> Sequence[Task]:
    return []


async def _away(query: Query) -> Sequence[Task]:
    raise JournalUnavailable("away")


def begins(periodic: Periodic, book: Book, slot: float, kind: str = "report") -> bool:
    """Whether the run of a slot may begin."""
    assert [task for task, _ in book.tasks.values() if (task.run_at, task.kind) == (slot, kind)]
    return run(periodic.alone(cast(Journal, book), kind, slot))


def plan(schedule: Schedule | float, kind: str = "report", **more: Any) -> Plan:
    schedule = Every(schedule) if isinstance(schedule, float) else schedule
    return Plan(schedule=schedule, task=NewTask(id="", kind=kind, priority=3, keep=5.0), spec=Spec(attempts=2), **more)


def look(periodic: Periodic, book: Book, now: float) -> int:
    return run(periodic.look(cast(Journal, book), now))


def run(call: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner() as runner:
        return runner.run(call)


def spec(task: NewTask) -> Spec:
    return msgspec.json.decode(task.spec, type=Spec)


def test_the_next_slot_is_written_down_ahead_of_its_time() -> None:
    book = Book()
    assert look(Periodic([plan(60.0)]), book, 70.0) == 1
    ((task, _),) = book.tasks.values()
    assert (task.kind, task.run_at, task.priority, task.owner) == ("report", 120.0, 3, OWNER)
    assert spec(task) == Spec(attempts=2, slot=120.0)
    assert task.keep == 60.0  # long enough to say that it was done


def test_any_number_of_nodes_write_one() -> None:
    book = Book()
    for now in (61.0, 70.0, 119.9):
        look(Periodic([plan(60.0)]), book, now)
    assert book.slots() == [120.0]


def test_nothing_is_written_while_a_slot_waits_or_runs() -> None:
    book, periodic = Book(), Periodic([plan(60.0)])
    look(periodic, book, 70.0)
    book.become(120.0, "running")
    assert look(periodic, book, 500.0) == 0  # its run takes long: no other begins meanwhile
    assert look(Periodic([plan(60.0)]), book, 500.0) == 0
    assert book.slots() == []


def test_of_two_chains_the_later_slot_is_left_out_while_the_earlier_stands() -> None:
    book, one, other = Book(), Periodic([plan(60.0)]), Periodic([plan(60.0)])
    listed = book.list
    book.list = _nobody  # type: ignore[method-assign]  # both look before either has written
    look(one, book, 119.9)
    look(other, book, 120.1)
    book.list = listed  # type: ignore[method-assign]
    assert book.slots() == [120.0, 180.0]
    for state, may in (("pending", False), ("running", False), ("completed", True), ("failed", True)):
        book.become(120.0, cast(State, state))
        assert begins(other, book, 180.0) is may
        assert begins(one, book, 120.0)


def test_what_is_of_another_kind_keeps_no_run_from_beginning() -> None:
    book, periodic = Book(), Periodic([plan(60.0), plan(30.0, "other")])
    look(periodic, book, 70.0)
    assert book.slots() == [90.0, 120.0]
    assert begins(periodic, book, 120.0)


def test_a_run_begins_while_the_journal_is_away() -> None:
    book, periodic = Book(), Periodic([plan(60.0)])
    look(periodic, book, 70.0)
    book.list = _away  # type: ignore[method-assign]
    assert begins(periodic, book, 120.0)


def test_the_end_of_a_run_brings_the_next_slot_and_leaves_out_what_was_missed() -> None:
    periodic = Periodic([plan(60.0)])
    for slot, now, expected in [(120.0, 121.0, 180.0), (120.0, 119.9, 180.0), (120.0, 500.0, 540.0)]:
        after = periodic.after("report", slot, now)
        assert after is not None
        assert after.run_at == expected
    assert periodic.after("report", None, 121.0) is None  # somebody started it by hand
    assert periodic.after("other", 120.0, 121.0) is None  # it has no schedule any more


def test_the_end_and_the_look_write_the_same_task() -> None:
    book, periodic = Book(), Periodic([plan(60.0)])
    look(periodic, book, 130.0)
    after = periodic.after("report", 120.0, 130.0)
    assert after is not None
    assert after.id in book.tasks
    assert len(after.id) >= 32


def test_a_slot_that_was_cancelled_is_left_out() -> None:
    book, periodic = Book(), Periodic([plan(60.0)])
    look(periodic, book, 70.0)
    book.become(120.0, "cancelled")
    assert look(periodic, book, 80.0) == 0  # too early for another look
    assert look(Periodic([plan(60.0)]), book, 111.0) == 1
    assert book.slots() == [180.0]


def test_a_chain_that_broke_is_mended_within_two_looks() -> None:
    book, periodic = Book(), Periodic([plan(60.0)])
    look(periodic, book, 70.0)
    book.become(120.0, "cancelled")
    look(periodic, book, 70.0 + 61.0)
    assert book.slots() == [180.0]


def test_between_two_looks_nobody_is_asked() -> None:
    book, periodic = Book(), Periodic([plan(60.0), plan(7.0, "other")])
    for beat in range(30):
        look(periodic, book, 70.0 + beat)
    assert book.looks == 1
    assert look(Periodic(), book, 70.0) == 0
    assert book.looks == 1


@pytest.mark.parametrize(
    ("before", "after", "left"), [(60.0, 100.0, 100.0), (3600.0, 60.0, 120.0), (60.0, 3600.0, 3600.0)]
)
def test_another_schedule_takes_back_what_waits_for_the_old_one(before: float, after: float, left: float) -> None:
    book = Book()
    look(Periodic([plan(before)]), book, 70.0)
    look(Periodic([plan(after)]), book, 71.0)
    assert book.slots() == [left]


def test_versions_side_by_side_do_not_undo_each_other() -> None:
    book = Book()
    old, new = Periodic([plan(60.0)]), Periodic([plan(100.0)])
    look(old, book, 50.0)
    look(new, book, 51.0)
    for now in (95.0, 160.0, 230.0):
        look(old, book, now)
        look(new, book, now)
    assert book.slots() == [100.0]
    assert book.slots("cancelled") == [60.0]


def test_a_slot_that_is_due_is_made_up_for_also_by_another_schedule() -> None:
    book = Book()
    look(Periodic([plan(60.0)]), book, 70.0)
    assert look(Periodic([plan(100.0)]), book, 5000.0) == 0
    assert book.slots() == [120.0]


def test_a_slot_that_is_not_to_be_made_up_for_is_given_up_when_the_next_is_due() -> None:
    periodic = Periodic([plan(60.0, catch_up=False)])
    book = Book()
    look(periodic, book, 70.0)
    ((task, _),) = book.tasks.values()
    assert spec(task).expires == 60.0  # due at 120, and 180 is the next


def test_a_schedule_is_one_thing() -> None:
    assert schedule_of(None, None) is None
    assert schedule_of(5.0, None) == Every(5.0)
    assert schedule_of(None, "0 3 * * *", "Europe/Berlin") is not None
    with pytest.raises(ConfigError, match="not both"):
        schedule_of(5.0, "0 3 * * *")
    with pytest.raises(ConfigError, match="above zero"):
        schedule_of(0.0, None)


class Cut(Book):
    """A journal whose call of a number is cancelled: before it is done, or after."""

    def __init__(self, at: int, done: bool) -> None:
        super().__init__()
        self._left = at
        self._done = done

    async def submit(self, tasks: Sequence[NewTask]) -> Sequence[Submitted]:
        return cast(Sequence[Submitted], await self._call(super().submit(tasks)))

    async def list(self, query: Query) -> Sequence[Task]:
        return cast(Sequence[Task], await self._call(super().list(query)))

    async def cancel(self, task_id: str) -> Task | None:
        return cast(None, await self._call(super().cancel(task_id)))

    async def _call(self, call: Coroutine[Any, Any, Any]) -> Any:
        self._left -= 1
        if self._left == 0 and not self._done:
            call.close()
            raise asyncio.CancelledError
        answer = await call
        if self._left == 0:
            raise asyncio.CancelledError
        return answer


@pytest.mark.parametrize("done", [False, True])
@pytest.mark.parametrize("at", [1, 2, 3, 4])
def test_a_look_that_was_cancelled_anywhere_is_made_up_for_by_the_next(at: int, done: bool) -> None:
    old, book = Book(), Cut(at, done)
    look(Periodic([plan(60.0)]), old, 50.0)
    book.tasks = old.tasks
    periodic = Periodic([plan(100.0), plan(7.0, "other")])
    with pytest.raises(asyncio.CancelledError):
        look(periodic, book, 51.0)
    look(periodic, book, 52.0)
    assert book.slots() == [56.0, 100.0]
    assert book.slots("cancelled") == [60.0]
