"""The durable tasks of a worker, as its metrics and an operator see them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

import pytest

from sojourn.bus import Bus
from sojourn.errors import ErrandError, JournalUnavailable
from sojourn.observe.journal_answers import JournalAnswers
from sojourn.observe.journals import JournalWatch
from sojourn.scopes.journals import Amounts, JournalInfo, Journals, Record, RunInfo, Wanted, met
from sojourn.scopes.used import Figures, Key, Times
from sojourn.typing import Receive, Scope, Send
from tests.observe.metrics.samples import Counted, counting, numbers, run

WAITED = 17


class Shown:
    """A service that is nothing but its numbers and records."""

    def __init__(self, name: str = "tasks", *records: Record) -> None:
        self.name = name
        self.counts: dict[Key, float] = {}
        self.levels: dict[Key, float] = {}
        self.times: dict[Key, Times] = {}
        self.states: dict[str, dict[str, int]] = {"export": {"pending": 3}}
        self.oldest: dict[str, float] = {"export": 7.0}
        self.records = {record.id: record for record in records}
        self.asked = 0
        self.down = False
        self.gate: asyncio.Event | None = None
        self.late: list[tuple[RunInfo, asyncio.Task[Any]]] = []

    def figures(self) -> Figures:
        return Figures(dict(self.counts), dict(self.levels), dict(self.times))

    def look(self, limit: int) -> JournalInfo:
        runs = [RunInfo(f"t{index}", "export", 1, 1, 0, 1.0, 5.0) for index in range(limit)]
        return JournalInfo(
            self.name, "memory", "n", None, ["export"], {"export": 3}, 3, 1, runs, {"completed": 2}, 5, {"drain": 1}, 0
        )

    def runs(self) -> Sequence[RunInfo]:
        return []

    def stuck(self) -> Sequence[tuple[RunInfo, asyncio.Task[Any]]]:
        return self.late

    async def _call(self) -> None:
        self.asked += 1
        if self.gate is not None:
            await self.gate.wait()
        if self.down:
            raise JournalUnavailable("no route to host")

    async def amounts(self) -> Amounts:
        await self._call()
        return Amounts(self.states, self.oldest)

    async def list(self, wanted: Wanted) -> Sequence[Record]:
        await self._call()
        found = [
            record
            for record in sorted(self.records.values(), key=lambda record: -record.created)
            if wanted.state in ("", record.state)
            and wanted.kind in ("", record.kind)
            and (wanted.owner is None or wanted.owner == record.owner)
            and (not wanted.before or record.created < self.records[wanted.before].created)
        ]
        return found[: wanted.limit]

    async def show(self, task: str) -> Record | None:
        await self._call()
        return self.records.get(task)

    async def retry(self, task: str) -> Record | None:
        return await self._change(task, ("failed", "cancelled"), {"state": "pending"})

    async def cancel(self, task: str) -> Record | None:
        runs = task in self.records and self.records[task].state == "running"
        return await self._change(
            task, ("pending", "running"), {"cancelling": True} if runs else {"state": "cancelled"}
        )

    async def _change(self, task: str, states: tuple[str, ...], change: dict[str, Any]) -> Record | None:
        await self._call()
        record = self.records.get(task)
        if record is not None and record.state in states:
            record = self.records[task] = record._replace(**change)
        return record


def record(task: str, state: str = "pending", created: float = 1.0, **more: Any) -> Record:
    return Record("tasks", task, "export", state, created=created, **more)


class Used:
    """Is served, and uses its services when it is asked."""

    def __init__(self, *services: Shown) -> None:
        self.services = list(services)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        for service in self.services:
            met(service)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body"})


async def counted(scene: Callable[[Counted, JournalWatch], Coroutine[Any, Any, None]], *services: Shown) -> None:
    """A scene with a server that counts what its services do, and has used them."""
    async with counting(Used(*services)) as it:
        watch = JournalWatch(it.server.site, it.metrics.meter)
        it.server.connect().get("/")
        await it.server.settle()
        await scene(it, watch)
        watch.close()


def on_page(it: Counted, name: str, **labels: str) -> float | None:
    return numbers(it.page()).get((f"sojourn_journal_{name}", tuple(sorted(labels.items()))))


def test_what_a_service_counts_is_on_the_page_a_second_later() -> None:
    service = Shown()

    async def scene(it: Counted, watch: JournalWatch) -> None:
        assert list(watch.journals) == [service]
        buckets = [0] * WAITED
        buckets[4] = 1
        service.levels["journal_running", "export"] = 3.0
        service.counts = {("journal_claims_total",): 7.0, ("journal_runs_total", "export", "retry"): 1.0}
        service.times["journal_wait_seconds", "export"] = Times(tuple(buckets), 0.04)
        await it.server.advance(1.1)
        assert on_page(it, "running", kind="export") == 3.0
        assert on_page(it, "claims_total") == 7.0
        assert on_page(it, "runs_total", kind="export", outcome="retry") == 1.0
        assert on_page(it, "wait_seconds_count", kind="export") == 1.0
        assert on_page(it, "wait_seconds_sum", kind="export") == pytest.approx(0.04)
        assert on_page(it, "wait_seconds_bucket", kind="export", le="0.05") == 1.0
        assert on_page(it, "wait_seconds_bucket", kind="export", le="0.025") == 0.0
        service.counts["journal_claims_total",] = 8.0
        service.levels = {}
        buckets[4] = 2
        service.times["journal_wait_seconds", "export"] = Times(tuple(buckets), 0.08)
        await it.server.advance(1.1)
        assert on_page(it, "claims_total") == 8.0, "what was told is not counted again"
        assert on_page(it, "running", kind="export") == 0.0, "what nobody tells of is zero"
        assert on_page(it, "wait_seconds_sum", kind="export") == pytest.approx(0.08)

    run(lambda: counted(scene, service))


def test_services_of_a_process_are_added_up_and_of_what_is_highest_the_highest_is_shown() -> None:
    one, other = Shown("one"), Shown("other")

    async def scene(it: Counted, watch: JournalWatch) -> None:
        for service, away in ((one, 5.0), (other, 2.0)):
            service.counts["journal_claims_total",] = 2.0
            service.levels = {("journal_held",): 4.0, ("journal_away_for_seconds",): away}
        await it.server.advance(1.1)
        assert on_page(it, "claims_total") == 4.0
        assert on_page(it, "held") == 8.0
        assert on_page(it, "away_for_seconds") == 5.0

    run(lambda: counted(scene, one, other))


def test_the_last_second_is_counted_when_it_ends() -> None:
    service = Shown()

    async def scene(it: Counted, watch: JournalWatch) -> None:
        service.counts["journal_claims_total",] = 5.0
        watch.close()
        service.counts["journal_claims_total",] = 6.0
        watch.close()
        assert on_page(it, "claims_total") == 5.0

    run(lambda: counted(scene, service))


# -- what there is in the journal


def test_a_journal_is_asked_when_somebody_reads_the_metrics_and_not_again_for_five_seconds() -> None:
    service = Shown()

    async def scene(it: Counted, watch: JournalWatch) -> None:
        await it.server.advance(30.0)
        assert service.asked == 0
        assert await watch.gauges({})
        assert on_page(it, "tasks", kind="export", state="pending") == 3.0
        assert on_page(it, "due_oldest_seconds", kind="export") == 7.0
        service.states, service.oldest = {"export": {"completed": 3}}, {}
        assert await watch.gauges({})
        assert service.asked == 1
        await it.server.advance(5.1)
        assert await watch.gauges({})
        assert service.asked == 2
        assert on_page(it, "tasks", kind="export", state="pending") == 0.0
        assert on_page(it, "tasks", kind="export", state="completed") == 3.0
        assert on_page(it, "due_oldest_seconds", kind="export") == 0.0

    run(lambda: counted(scene, service))


def test_a_slow_journal_makes_the_page_half_a_second_late_and_is_there_for_the_next() -> None:
    service = Shown()

    async def scene(it: Counted, watch: JournalWatch) -> None:
        service.gate = asyncio.Event()
        assert not await watch.gauges({})
        assert on_page(it, "tasks", kind="export", state="pending") is None
        service.gate.set()
        await it.server.settle()
        assert on_page(it, "tasks", kind="export", state="pending") == 3.0
        assert service.asked == 1

    run(lambda: counted(scene, service))


def test_a_journal_that_is_away_leaves_the_others_and_what_was_known_is_not_shown_for_ever() -> None:
    one, other = Shown("one"), Shown("other")

    async def scene(it: Counted, watch: JournalWatch) -> None:
        one.down, other.states = True, {"mail": {"failed": 2}}
        assert await watch.gauges({})
        assert on_page(it, "tasks", kind="mail", state="failed") == 2.0
        await it.server.advance(160.0)
        assert on_page(it, "tasks", kind="mail", state="failed") == 0.0, "another worker is asked, or nobody"

    run(lambda: counted(scene, one, other))


def test_a_server_without_durable_tasks_has_no_gauges_of_them_and_asks_nobody() -> None:
    async def scene(it: Counted, watch: JournalWatch) -> None:
        await it.server.advance(1.1)
        assert await watch.gauges({})
        found = {key for key in numbers(it.page()) if key[0].startswith("sojourn_journal_")}
        assert {name for name, _ in found} <= {
            f"sojourn_journal_{name}_total"
            for name in ("self_fenced", "away_seconds", "losses", "claims", "claimed", "beats")
        }

    run(lambda: counted(scene))


# -- questions


def answering(*services: Shown) -> JournalAnswers:
    journals = Journals(Bus())
    for service in services:
        journals.join(service)
    return JournalAnswers(journals)


def ask(answer: Awaitable[Any]) -> Any:
    async def main() -> Any:
        return await answer

    return asyncio.run(main())


def test_services_are_shown_by_name_with_as_many_runs_as_are_asked_for() -> None:
    services = Shown("b"), Shown("a")
    answers = answering(*services)
    assert [info.name for info in ask(answers.look({}))] == ["a", "b"]
    (info,) = ask(answers.look({"name": "b", "limit": 2}))
    assert [each.id for each in info.runs] == ["t0", "t1"]
    assert ask(answers.look({"name": "c"})) == []
    assert set(ask(answers.amounts({}))) == {"a", "b"}


def test_tasks_of_all_services_are_listed_once_newest_first() -> None:
    shared = record("t2", created=2.0)
    services = (
        Shown("a", record("t1", created=1.0), shared),
        Shown("b", shared, record("t3", "failed", created=3.0)),
    )
    answers = answering(*services)
    assert [each.id for each in ask(answers.list({}))] == ["t3", "t2", "t1"]
    assert [each.id for each in ask(answers.list({"limit": 1}))] == ["t3"]
    assert [each.id for each in ask(answers.list({"state": "failed", "kind": "export"}))] == ["t3"]
    assert [each.id for each in ask(answers.list({"name": "a", "owner": ""}))] == ["t2", "t1"]
    assert ask(answers.show({"id": "t3"})).state == "failed"


@pytest.mark.parametrize(
    ("what", "state", "after"),
    [
        ("cancel", "pending", "cancelled"),
        ("cancel", "running", "running"),
        ("cancel", "cancelled", "cancelled"),
        ("cancel", "completed", None),
        ("cancel", "failed", None),
        ("retry", "failed", "pending"),
        ("retry", "cancelled", "pending"),
        ("retry", "pending", "pending"),
        ("retry", "running", None),
        ("retry", "completed", None),
    ],
)
def test_a_task_is_changed_or_it_is_said_why_not(what: str, state: str, after: str | None) -> None:
    answers = answering(service := Shown("tasks", record("t1", state)))
    if after is None:
        with pytest.raises(ErrandError, match=f"the task is {state}") as caught:
            ask(answers.change({"id": "t1", "what": what}))
        assert (caught.value.status, caught.value.reason) == (409, f"no_{what}")
    else:
        assert ask(answers.change({"id": "t1", "what": what})).state == after
    del service


def test_those_of_a_kind_are_changed_200_at_a_time_and_where_to_go_on_is_said() -> None:
    service = Shown("tasks", *(record(f"t{n}", "failed", created=float(n)) for n in range(250)), record("p", "pending"))
    answers = answering(service)
    assert ask(answers.change_all({"what": "retry", "kind": "export"})) == {"changed": 200, "before": "t50"}
    assert ask(answers.change_all({"what": "retry", "kind": "export", "before": "t50"})) == {
        "changed": 50,
        "before": "",
    }
    assert {each.state for each in service.records.values()} == {"pending"}
    assert ask(answers.change_all({"what": "cancel", "kind": "other"})) == {"changed": 0, "before": ""}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"what": "retry", "kind": ""}, "one kind"),
        ({"what": "retry", "kind": "export", "state": "running"}, "failed or cancelled"),
        ({"what": "cancel", "kind": "export", "state": "failed"}, "pending or running"),
        ({"what": "retry", "kind": "export", "name": "nobody"}, "by its name; there are a, b"),
        ({"what": "retry", "kind": "export"}, "by its name; there are a, b"),
        ({"what": "destroy", "kind": "export"}, "destroy"),
        ({"what": "retry", "kinds": "export"}, "kind"),
    ],
)
def test_nothing_is_changed_when_it_is_not_said_what(arguments: dict[str, Any], told: str) -> None:
    services = Shown("a", record("t1", "failed")), Shown("b")
    with pytest.raises(ErrandError, match=told) as caught:
        ask(answering(*services).change_all(arguments))
    assert caught.value.status == 400
    assert services[0].records["t1"].state == "failed"


def test_what_is_not_there_is_404_and_a_journal_that_is_away_503() -> None:
    answers = answering(service := Shown("tasks", record("t1")))
    for question in (answers.show({"id": "t2"}), answers.change({"id": "t2", "what": "cancel"})):
        with pytest.raises(ErrandError) as caught:
            ask(question)
        assert (caught.value.status, caught.value.reason) == (404, "no_such_task")
    service.down = True
    for question in (answers.list({}), answers.show({"id": "t1"}), answers.amounts({})):
        with pytest.raises(ErrandError, match="no route to host") as caught:
            ask(question)
        assert (caught.value.status, caught.value.reason) == (503, "journal_away")
    with pytest.raises(ErrandError, match="at least 1"):
        ask(answers.list({"limit": 0}))
