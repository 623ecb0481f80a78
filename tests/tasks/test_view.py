"""How a service of durable tasks looks from outside, and what it tells observers of its runs."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from sojourn.bus import Bus
from sojourn.clock import ManualClock
from sojourn.errors import JournalUnavailable
from sojourn.events import StoreAway, StoreBack, TaskBegan, TaskEnded, TaskHandedOver, TaskLost
from sojourn.scopes.journals import JOURNALS, Journals, Shown, Wanted
from sojourn.tasks.current import current_task
from sojourn.tasks.kinds import Kind
from sojourn.tasks.record import Claim, NewTask, Progress, Settlement
from sojourn.tasks.runner import Run
from sojourn.tasks.spec import Problem, Spec
from sojourn.tasks.stats import Stats
from sojourn.tasks.tasks import Tasks
from sojourn.tasks.telling import Teller
from sojourn.tasks.view import View
from tests.tasks.stand_ins import MemoryJournal, Store, in_a_loop, service, until

EVENTS = (TaskBegan, TaskEnded, TaskHandedOver, TaskLost, StoreAway, StoreBack)


class Watched:
    """Services are known to it, and it hears what they tell."""

    def __init__(self) -> None:
        bus = Bus()
        self.journals = Journals(bus)
        self.heard: list[Any] = []
        for kind in EVENTS:
            bus.observe(kind, self.heard.append)
        JOURNALS.set(self.journals)

    @property
    def view(self) -> Shown:
        (view,) = self.journals
        return view

    def of(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.heard if type(event) is kind]


def watched(test: Callable[[Watched, Tasks], Any]) -> Callable[[], None]:
    """A test of a service that is watched, in a context of its own."""

    @in_a_loop
    async def main() -> None:
        watch = Watched()
        async with service(concurrency=4) as tasks:
            await test(watch, tasks)

    def run() -> None:
        contextvars.copy_context().run(main)

    run.__name__ = test.__name__
    run.__doc__ = test.__doc__
    return run


@watched
async def test_what_runs_is_shown_with_its_age_and_what_there_is_by_kind(watch: Watched, tasks: Tasks) -> None:
    go = asyncio.Event()

    @tasks.define(name="export", deadline=60.0)
    async def export() -> None:
        await go.wait()

    await tasks.start(export)
    await until(lambda: watch.view.runs())
    (run,) = watch.view.runs()
    assert (run.kind, run.attempt, run.interruptions, run.deadline, run.stuck) == ("export", 1, 0, 60.0, False)
    info = watch.view.look(5)
    assert (info.name, info.engine, info.kinds, info.running, info.room) == (
        "tasks",
        "memory",
        ["export"],
        {"export": 1},
        3,
    )
    assert info.runs == [run._replace(age=info.runs[0].age)]
    assert watch.view.look(0).runs == []
    assert watch.view.figures().levels["journal_running", "export"] == 1.0
    assert (await watch.view.amounts()).states == {"export": {"running": 1}}
    go.set()
    await until(lambda: not watch.view.runs())
    assert watch.view.figures().levels["journal_running", "export"] == 0.0
    assert watch.view.look(5).ended["completed"] == 1
    assert watch.view.look(5).submitted == 1


@watched
async def test_a_service_that_has_ended_is_not_shown_any_more(watch: Watched, tasks: Tasks) -> None:
    await tasks.begin()
    assert len(watch.journals) == 1
    await tasks.aclose()
    assert len(watch.journals) == 0


@watched
async def test_tasks_are_listed_shown_cancelled_and_tried_again(watch: Watched, tasks: Tasks) -> None:
    @tasks.define(name="export", retries=0)
    async def export(pages: int) -> None:
        await current_task().progress({"page": pages})
        await current_task().save({"at": pages})
        raise ValueError("no such page")

    failed = (await tasks.start(export, 7)).id
    waiting = (await tasks.start(export, 8, delay=60.0)).id
    await until(lambda: watch.of(TaskEnded))
    await until(lambda: watch.view.figures().levels["journal_held",] == 0.0)
    listed = await watch.view.list(Wanted(state="failed", kind="export"))
    assert [(record.id, record.problem, record.payload, record.service) for record in listed] == [
        (failed, "ValueError: no such page", None, "tasks")
    ]
    assert await watch.view.list(Wanted(state="nonsense")) == ()
    record = await watch.view.show(failed)
    assert record is not None
    assert (record.payload, record.checkpoint, record.result) == ({"pages": 7}, {"at": 7}, None)
    assert record.error["type"] == "ValueError"
    assert [(said.seq, said.data) for said in record.said] == [(1, {"page": 7})]
    assert await watch.view.show("nobody") is None
    assert await watch.view.cancel("nobody") is await watch.view.retry("nobody") is None
    cancelled = await watch.view.cancel(waiting)
    assert cancelled is not None
    assert cancelled.state == "cancelled"
    again = await watch.view.retry(failed)
    assert again is not None
    assert again.state == "pending"


@in_a_loop
async def test_of_much_that_a_task_has_said_the_last_is_shown() -> None:
    store = Store()
    journal = MemoryJournal(store)
    await journal.submit([NewTask(id="t1", kind="export", node="n", lease=9.0, payload=b"no json \xff")])
    await journal.append([Progress("t1", 1, str(number).encode()) for number in range(1, 51)])
    record = await View("tasks", journal, Stats()).show("t1")
    assert record is not None
    assert [said.seq for said in record.said] == list(range(31, 51))
    assert record.payload == "no json \ufffd", "an operator wants to see what is wrong"


@in_a_loop
async def test_a_journal_that_is_away_is_said_and_nothing_else_is_asked_of_it() -> None:
    store = Store()
    view = View("tasks", MemoryJournal(store), Stats())
    store.down = "no route to host"
    for ask in (view.amounts(), view.list(Wanted()), view.show("t1"), view.cancel("t1"), view.retry("t1")):
        with pytest.raises(JournalUnavailable):
            await ask
    store.calls.clear()
    view.figures(), view.look(3), view.runs(), view.stuck()
    assert store.calls == []


# -- runs that should have ended


def a_run(deadline: float | None = 10.0, **claim: Any) -> Run:
    async def function() -> None:
        pass

    kind = Kind(function, name="export")
    spec = msgspec.json.encode(Spec(deadline=deadline, trace="00-" + "a" * 32 + "-" + "b" * 16 + "-01"))
    return Run(Claim(id="t1", kind="export", epoch=3, spec=spec, **claim), kind, 1000.0)


@pytest.mark.parametrize(
    ("deadline", "age", "stuck"), [(10.0, 13.9, False), (10.0, 14.1, True), (None, 1e6, False), (0.5, 4.6, True)]
)
def test_a_run_is_stuck_when_its_deadline_and_the_ladder_are_over(
    deadline: float | None, age: float, stuck: bool
) -> None:
    async def main() -> None:
        clock = ManualClock()
        view = View("tasks", MemoryJournal(), Stats(), clock=clock)
        run = a_run(deadline)

        view.node = SimpleNamespace(id="n", runs={"t1": run})
        clock.advance(age)
        assert view.runs() == [], "what was claimed ahead does not run"
        run.task = asyncio.current_task()  # type: ignore[assignment]
        assert [each.stuck for each in view.runs()] == [stuck]
        assert [task for _, task in view.stuck()] == [run.task] * stuck

    asyncio.run(main())


# -- what observers are told


@watched
async def test_a_run_tells_of_its_beginning_in_its_own_context_and_of_its_end(watch: Watched, tasks: Tasks) -> None:
    mark: contextvars.ContextVar[str] = contextvars.ContextVar("mark", default="")
    watch.journals._bus.observe(TaskBegan, lambda event: mark.set(event.id))
    seen = []

    @tasks.define(name="export")
    async def export() -> None:
        seen.append(mark.get())

    task = (await tasks.start(export)).id
    await until(lambda: watch.of(TaskEnded))
    (began,) = watch.of(TaskBegan)
    (ended,) = watch.of(TaskEnded)
    assert (began.id, began.kind, began.epoch, began.attempt) == (task, "export", 1, 1)
    assert (ended.id, ended.state, ended.epoch, ended.problem) == (task, "completed", 1, "")
    assert seen == [task], "what an observer has set there, such as a span, is there in the run"
    assert mark.get() == ""


@watched
async def test_a_failure_is_told_with_its_problem_and_stack(watch: Watched, tasks: Tasks) -> None:
    @tasks.define(name="export", retries=0)
    async def export() -> None:
        raise ValueError("no such page")

    await tasks.start(export)
    await until(lambda: watch.of(TaskEnded))
    (ended,) = watch.of(TaskEnded)
    assert (ended.state, ended.problem) == ("failed", "ValueError: no such page")
    assert "in export" in ended.stack


@watched
async def test_a_hand_over_is_told(watch: Watched, tasks: Tasks) -> None:
    @tasks.define(name="export")
    async def export() -> None:
        await asyncio.get_running_loop().create_future()

    await tasks.start(export)
    await until(lambda: watch.of(TaskBegan))
    await tasks.aclose()
    assert [event.state for event in watch.of(TaskEnded)] == ["handover"]
    assert [event.kind for event in watch.of(TaskHandedOver)] == ["export"]
    assert watch.of(TaskLost) == []


def test_without_observers_nothing_is_made_and_nothing_fails() -> None:
    run = a_run()
    for teller in (Teller(), Teller("tasks", "memory", "n", Journals(Bus()))):
        teller.began(run)
        teller.ended(run, Settlement(id="t1", epoch=3, outcome="failed", error=b"not even json"), 1.0)
        teller.handed_over(run, 1.0)
        teller.lost(run, "lease", 1.0)
        teller.away(OSError("no"), 1)
        teller.back(1.0)


def test_a_teller_tells_all_that_is_known() -> None:
    bus, heard = Bus(), []
    for kind in EVENTS:
        bus.observe(kind, heard.append)
    teller = Teller("tasks", "memory", "n", Journals(bus))
    run = a_run(failures=1, interruptions=2, waited=0.5)
    error = msgspec.json.encode(Problem("OSError", "full", "the stack", 2))
    teller.began(run)
    teller.ended(run, Settlement(id="t1", epoch=3, outcome="retry", error=error, delay=4.0), 1.0)
    teller.lost(run, "fenced", 1.5)
    teller.handed_over(run, 1.5)
    teller.away(JournalUnavailable("no route to host"), 7)
    teller.back(2.0)
    trace = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
    assert heard == [
        TaskBegan("export", "t1", 3, 2, 2, 0.5, trace, "n"),
        TaskEnded("export", "t1", "retry", 2, 1.0, "OSError: full", 3, 4.0, "the stack"),
        TaskLost("export", "t1", "fenced", 1.5, 3),
        TaskHandedOver("export", "t1", 1.5, 3),
        StoreAway("tasks", "tasks", "memory", "no route to host", 7),
        StoreBack("tasks", "tasks", "memory", 2.0),
    ]
