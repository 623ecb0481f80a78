"""A node: what it claims, runs, renews, settles and hands back."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from sojourn.errors import DeadlineExceeded, JournalUnavailable, TaskFailed
from sojourn.policy.retry import Backoff
from sojourn.scopes.budget import BUDGETS, Budgets
from sojourn.scopes.deadline import deadline
from sojourn.tasks.current import current_task
from sojourn.tasks.record import Event
from sojourn.tasks.tasks import Tasks
from tests.tasks.stand_ins import MemoryJournal, Store, in_a_loop, service, until

QUICK = Backoff(0.001, 0.002)


def only(store: Store) -> Any:
    (task,) = store.tasks.values()
    return task


@in_a_loop
async def test_what_is_started_is_done_and_its_result_is_kept() -> None:
    store = Store()
    async with service(store) as tasks:

        @tasks.define
        async def add(a: int, b: int = 2) -> int:
            return a + b

        started = await tasks.start(add, 40)
        assert started.new
        assert started.status == 202
        assert await tasks.result(started.id, 2.0) == 42
        assert only(store).state == "completed"


@in_a_loop
async def test_a_task_that_is_due_now_begins_where_it_was_submitted_without_being_claimed() -> None:
    store = Store()
    async with service(store) as tasks:

        @tasks.define
        async def quick() -> None: ...

        await tasks.begin()
        await until(lambda: "claim" in store.calls)
        await until(lambda: not tasks._node._claiming.more)  # type: ignore[union-attr]
        before = store.calls.count("claim")
        started = await tasks.start(quick)
        await tasks.result(started.id, 2.0)
        assert store.tasks[started.id].epoch == 1
        assert store.calls.count("claim") <= before + 1  # told by its own submission


@in_a_loop
async def test_a_failure_is_tried_again_after_a_while_and_then_stays() -> None:
    store = Store()
    async with service(store) as tasks:
        attempts = []

        @tasks.define(retries=2, backoff=QUICK)
        async def broken() -> None:
            attempts.append(current_task().attempt)
            raise ValueError("no such order")

        started = await tasks.start(broken)
        with pytest.raises(TaskFailed, match="ValueError: no such order"):
            await tasks.result(started.id, 3.0)
        assert attempts == [1, 2, 3]
        task = only(store)
        assert (task.state, task.failures, task.interruptions) == ("failed", 2, 0)
        assert msgspec.json.decode(task.error)["attempt"] == 3


@in_a_loop
async def test_an_error_that_is_final_is_not_tried_again() -> None:
    async with service() as tasks:

        @tasks.define(retries=5, final=(KeyError,))
        async def broken() -> None:
            raise KeyError("gone")

        started = await tasks.start(broken)
        with pytest.raises(TaskFailed, match="KeyError"):
            await tasks.result(started.id, 2.0)


@in_a_loop
async def test_a_task_that_misses_its_deadline_has_failed_by_its_name() -> None:
    store = Store()
    async with service(store) as tasks:

        @tasks.define(deadline=0.05, retries=0)
        async def slow() -> None:
            await asyncio.sleep(10)

        started = await tasks.start(slow)
        with pytest.raises(TaskFailed, match="task slow"):
            await tasks.result(started.id, 2.0)


@in_a_loop
async def test_a_drain_hands_back_what_runs_as_an_interruption_and_not_as_an_attempt() -> None:
    store = Store()
    async with service(store) as tasks:

        @tasks.define
        async def slow() -> None:
            try:
                await asyncio.sleep(10)
            except asyncio.CancelledError:
                await current_task().save({"at": 7})
                raise

        await tasks.start(slow)
        await until(lambda: tasks._node.runs)  # type: ignore[union-attr]
        await asyncio.sleep(0.01)
        counts = await tasks._node.hand_over(1.0)  # type: ignore[union-attr]
        assert counts == {"finished": 0, "handed_over": 1, "lost": 0}
        task = only(store)
        assert (task.state, task.failures, task.interruptions, task.crashes) == ("pending", 0, 1, 0)
        assert task.checkpoint == b'{"at":7}'


@in_a_loop
async def test_another_node_takes_up_what_was_handed_back_from_its_checkpoint() -> None:
    store = Store()
    seen = []

    def defined(tasks: Tasks) -> Any:
        @tasks.define
        async def steps() -> str:
            task = current_task()
            if task.checkpoint is None:
                await task.save(3)
                await asyncio.sleep(10)
            seen.append((task.checkpoint, task.interruptions, task.attempt))
            return "done"

        return steps

    async with service(store) as first, service(store) as second:
        steps = defined(first)
        defined(second)
        started = await first.start(steps)
        await until(lambda: only(store).checkpoint)
        await second.begin()
        await first.aclose()
        assert await second.result(started.id, 2.0) == "done"
        assert seen == [(3, 1, 1)]


@in_a_loop
async def test_a_task_that_resists_its_cancellation_is_handed_back_all_the_same() -> None:
    store = Store()
    async with service(store) as tasks:
        let = asyncio.Event()

        @tasks.define
        async def stubborn() -> None:
            while not let.is_set():
                try:
                    await let.wait()
                except asyncio.CancelledError:
                    continue

        await tasks.start(stubborn)
        await until(lambda: tasks._node.runs)  # type: ignore[union-attr]
        await asyncio.sleep(0.01)
        try:
            counts = await tasks._node.hand_over(1.5)  # type: ignore[union-attr]
            assert counts["handed_over"] == 1
            assert only(store).state == "pending"
        finally:
            let.set()
        await asyncio.sleep(0.01)
        assert only(store).state == "pending"  # what it says now does not count


@in_a_loop
async def test_leases_are_renewed_for_as_long_as_a_run_lasts() -> None:
    store = Store()
    async with service(store, lease=0.3) as tasks:

        @tasks.define
        async def slow() -> str:
            await asyncio.sleep(0.7)
            return "done"

        started = await tasks.start(slow)
        assert await tasks.result(started.id, 3.0) == "done"
        task = only(store)
        assert (task.epoch, task.interruptions) == (1, 0)
        assert store.calls.count("beat") >= 4


@in_a_loop
async def test_a_node_that_cannot_renew_cancels_its_own_runs_before_the_lease_is_over() -> None:
    store = Store()
    async with service(store, lease=1.5) as tasks:
        cut: list[float] = []

        @tasks.define
        async def slow() -> None:
            try:
                await asyncio.sleep(10)
            except asyncio.CancelledError:
                cut.append(asyncio.get_running_loop().time())
                raise

        await tasks.start(slow)
        await until(lambda: tasks._node.runs)  # type: ignore[union-attr]
        await asyncio.sleep(0.01)
        store.down = "gone"
        began = asyncio.get_running_loop().time()
        await until(lambda: cut)
        assert 0.5 <= cut[0] - began < 1.5
        assert tasks.stats.self_fenced == 1
        store.down = ""
        await until(lambda: only(store).state == "pending" or only(store).epoch == 2)
        assert only(store).failures == 0


@in_a_loop
async def test_a_journal_that_hangs_does_not_keep_a_node_from_giving_up_in_time() -> None:
    store = Store()
    async with service(store, lease=2.4) as tasks:
        cut: list[float] = []

        @tasks.define
        async def slow() -> None:
            try:
                await asyncio.sleep(10)
            except asyncio.CancelledError:
                cut.append(asyncio.get_running_loop().time())
                raise

        async def hang(call: str) -> None:
            await asyncio.sleep(0.65 if call == "beat" else 0.0)

        await tasks.start(slow)
        await until(lambda: tasks._node.runs)  # type: ignore[union-attr]
        began = asyncio.get_running_loop().time()
        store.before, store.down = hang, "gone"
        await until(lambda: cut)
        assert 1.4 <= cut[0] - began < 2.1  # two thirds of the lease, not when the try under way has failed
        store.before, store.down = None, ""
        await until(lambda: only(store).state == "pending" or only(store).epoch == 2)


@in_a_loop
async def test_a_result_that_could_not_be_written_is_written_when_the_journal_is_back() -> None:
    store = Store()
    async with service(store) as tasks:

        @tasks.define
        async def short() -> int:
            store.down = "gone"
            return 5

        started = await tasks.start(short)
        await until(lambda: "settle" in store.calls)
        await asyncio.sleep(0.1)
        store.down = ""
        assert await tasks.result(started.id, 3.0) == 5


@in_a_loop
async def test_a_submission_while_the_journal_is_away_waits_for_its_budget_and_says_when_to_come_back() -> None:
    store = Store()
    async with service(store) as tasks:

        @tasks.define
        async def short() -> int:
            return 5

        await tasks.begin()
        store.down = "gone"
        BUDGETS.set(Budgets({"tasks": 0.2}))
        with pytest.raises(JournalUnavailable) as raised:
            async with asyncio.timeout(1):
                await tasks.start(short)
        assert raised.value.retry_after > 0
        assert raised.value.detail == "it has not answered in 0.2 s: gone"


@in_a_loop
async def test_a_deadline_of_the_caller_is_no_outage_and_who_leaves_waits_no_more() -> None:
    store = Store()
    async with service(store) as tasks:

        @tasks.define
        async def short() -> int:
            return 5

        await tasks.begin()
        store.down = "gone"
        with pytest.raises(DeadlineExceeded) as raised:
            async with deadline(0.1, "handler"):
                await tasks.start(short)
        assert raised.value.deadline == "handler"
        leaving = asyncio.ensure_future(tasks.start(short))
        await asyncio.sleep(0.02)
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        store.down, store.calls = "", []
        await tasks.result((await tasks.start(short)).id, 3.0)
        assert len(store.tasks) == 1  # what nobody waited for any more was not written


@in_a_loop
async def test_a_submission_that_meets_a_short_outage_is_written_once() -> None:
    store = Store()
    async with service(store) as tasks:

        @tasks.define
        async def short() -> int:
            return 5

        await tasks.begin()
        store.down = "gone"
        asyncio.get_running_loop().call_later(0.2, setattr, store, "down", "")
        started = await tasks.start(short)
        assert await tasks.result(started.id, 2.0) == 5
        assert len(store.tasks) == 1


@in_a_loop
async def test_a_running_task_is_cancelled_at_once_when_somebody_says_so() -> None:
    store = Store()
    async with service(store) as tasks:

        @tasks.define
        async def slow() -> None:
            await asyncio.sleep(10)

        started = await tasks.start(slow)
        await until(lambda: tasks._node.runs)  # type: ignore[union-attr]
        await tasks.cancel(started.id)
        with pytest.raises(TaskFailed, match="cancelled"):
            await tasks.result(started.id, 1.0)


@in_a_loop
async def test_no_more_run_at_once_than_may_and_none_of_a_kind_above_its_own_limit() -> None:
    store = Store()
    async with service(store, concurrency=4) as tasks:
        most = {"wide": 0, "narrow": 0}
        now = {"wide": 0, "narrow": 0}

        async def count(name: str) -> None:
            now[name] += 1
            most[name] = max(most[name], now[name])
            await asyncio.sleep(0.002)
            now[name] -= 1

        @tasks.define
        async def wide() -> None:
            await count("wide")
            assert sum(now.values()) <= 4

        @tasks.define(limit=1)
        async def narrow() -> None:
            await count("narrow")
            assert sum(now.values()) <= 4

        for _ in range(30):
            await tasks.start(wide)
            await tasks.start(narrow)
        await until(lambda: all(task.state in ("completed", "failed") for task in store.tasks.values()), 8.0)
        assert {task.state for task in store.tasks.values()} == {"completed"}
        assert most["narrow"] == 1
        assert 2 <= most["wide"] <= 4


@in_a_loop
async def test_a_process_that_does_not_work_only_starts_and_watches() -> None:
    store = Store()

    def defined(tasks: Tasks) -> Any:
        @tasks.define
        async def add(a: int) -> int:
            return a + 1

        return add

    async with service(store, work=False) as serving, service(store) as working:
        add = defined(serving)
        defined(working)
        started = await serving.start(add, 1)
        await asyncio.sleep(0.05)
        assert only(store).state == "pending"
        await working.begin()
        assert await serving.result(started.id, 2.0) == 2


@in_a_loop
async def test_who_watches_gets_every_event_in_order_from_any_place_and_the_end() -> None:
    async with service() as tasks:
        go = asyncio.Event()

        @tasks.define
        async def steps() -> str:
            task = current_task()
            for number in range(5):
                await task.progress({"n": number})
            await go.wait()
            task.tell({"n": 5})
            return "done"

        started = await tasks.start(steps)
        seen: list[Any] = []
        async with asyncio.timeout(3):
            async for each in tasks.watch(started.id, 2):
                seen.append(each.seq if isinstance(each, Event) else each.state)
                if seen[-1] == "running":
                    go.set()
        assert [each for each in seen if isinstance(each, int)] == [3, 4, 5, 6]
        assert seen[-1] == "completed"


@in_a_loop
async def test_a_task_that_was_lost_with_its_node_too_often_has_failed_without_being_run() -> None:
    store = Store()
    ran = []
    async with service(store) as tasks:

        @tasks.define(crashes=1)
        async def deadly() -> None:
            ran.append(1)

        await tasks.submit("deadly", {}, delay=1000)
        task = only(store)
        store.tasks[task.id] = msgspec.structs.replace(task, state="running", epoch=2, crashes=1, interruptions=1)
        store.tell("due")
        with pytest.raises(TaskFailed, match="Crashed"):
            await tasks.result(task.id, 2.0)
        assert not ran


@in_a_loop
async def test_a_task_that_was_not_begun_in_time_has_expired() -> None:
    store = Store()
    async with service(store) as tasks:

        @tasks.define
        async def late() -> None: ...

        started = await tasks.start(late, delay=0.05, expires=5)
        store.added += 10
        with pytest.raises(TaskFailed, match="Expired"):
            await tasks.result(started.id, 2.0)
        await tasks.retry(started.id)  # from now on it has its time again
        await tasks.result(started.id, 2.0)


@in_a_loop
async def test_a_run_whose_task_somebody_else_has_is_cancelled_and_its_end_does_not_count() -> None:
    store = Store()
    async with service(store, lease=0.3) as tasks:
        cut = []

        @tasks.define
        async def slow() -> str:
            try:
                await asyncio.sleep(10)
            except asyncio.CancelledError:
                cut.append(1)
                return "too late"
            return ""

        await tasks.start(slow)
        await until(lambda: tasks._node.runs)  # type: ignore[union-attr]
        task = only(store)
        store.tasks[task.id] = msgspec.structs.replace(task, epoch=9, node="another", lease_until=store.now + 100)
        await until(lambda: cut)
        await until(lambda: not tasks._node.runs)  # type: ignore[union-attr]
        assert only(store).state == "running"
        assert tasks.stats.total("lost") == 1


@in_a_loop
async def test_plain_functions_run_in_threads_and_can_say_how_far_they_are() -> None:
    store = Store()
    async with service(store) as tasks:

        @tasks.define
        def compute(number: int) -> int:
            current_task().tell({"half": number // 2})
            return number * 2

        started = await tasks.start(compute, 21)
        assert await tasks.result(started.id, 3.0) == 42
        assert [event.data for event in store.events[started.id]] == [b'{"half":10}']


@in_a_loop
async def test_the_end_of_a_service_closes_its_journal_and_leaves_no_task() -> None:
    journal = MemoryJournal()
    tasks = Tasks(journal)
    async with tasks:
        pass
    assert journal.closed


@in_a_loop
async def test_what_was_given_up_while_the_journal_was_away_is_an_interruption_and_no_crash() -> None:
    store = Store()
    async with service(store, lease=0.4) as tasks:
        runs: list[int] = []

        @tasks.define(crashes=0)
        async def slow() -> str:
            runs.append(1)
            if len(runs) == 1:
                await asyncio.sleep(10)
            return "done"

        started = await tasks.start(slow)
        await until(lambda: runs)
        store.down = "gone"
        await asyncio.sleep(0.6)  # the lease is over, the run was given up
        store.down = ""
        assert await tasks.result(started.id, 6.0) == "done"
        assert (only(store).interruptions, only(store).crashes) == (1, 0)
