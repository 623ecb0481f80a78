"""One run: for whom it acts, and what becomes of it whatever happens."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from sojourn.errors import TaskFailed
from sojourn.policy.retry import Backoff
from sojourn.scopes.context import SecurityContext, acting_as, security
from sojourn.scopes.deadline import remaining
from sojourn.tasks.current import current_task
from sojourn.tasks.record import NewTask
from tests.tasks.stand_ins import Store, in_a_loop, service, until

ALICE = SecurityContext("alice", roles=frozenset({"editor"}), tenant="acme", authn="jwt", claims={"token": "secret"})


@in_a_loop
async def test_a_task_that_stands_for_no_slot_begins_without_a_look_at_others() -> None:
    store = Store()
    async with service(store) as tasks:

        @tasks.define
        async def act() -> int:
            return 1

        started = await tasks.start(act)
        assert await tasks.result(started.id, 2.0) == 1
        assert "list" not in store.calls


@in_a_loop
async def test_a_task_acts_for_who_started_it_and_no_secret_is_written_down() -> None:
    store = Store()
    async with service(store) as tasks:
        seen: list[SecurityContext] = []

        @tasks.define
        async def act() -> None:
            seen.append(security())

        with acting_as(ALICE):
            started = await tasks.start(act)
        await tasks.result(started.id, 2.0)
        (task,) = store.tasks.values()
        assert (seen[0].principal, seen[0].roles, seen[0].tenant) == ("alice", frozenset({"editor"}), "acme")
        assert task.owner == "@acme/alice"
        assert b"secret" not in task.spec


@pytest.mark.parametrize(
    "answer", [False, True, SecurityContext("alice", roles=frozenset())], ids=["no", "yes", "less"]
)
def test_who_it_acts_for_is_asked_again_before_each_run(answer: Any) -> None:
    @in_a_loop
    async def test() -> None:
        asked = []

        async def reauthorise(context: SecurityContext, kind: str) -> SecurityContext | bool:
            asked.append((context.principal, kind))
            return answer

        async with service(reauthorise=reauthorise) as tasks:

            @tasks.define
            async def act() -> list[str]:
                return sorted(security().roles)

            with acting_as(ALICE):
                started = await tasks.start(act)
            if answer is False:
                with pytest.raises(TaskFailed, match="Denied: alice may not do this any more"):
                    await tasks.result(started.id, 2.0)
            else:
                assert await tasks.result(started.id, 2.0) == ([] if answer is not True else ["editor"])
            assert asked == [("alice", "act")]

    test()


@in_a_loop
async def test_a_task_that_nobody_started_acts_for_nobody() -> None:
    async with service() as tasks:

        @tasks.define(retries=0)
        async def act() -> None:
            security()

        started = await tasks.start(act)
        with pytest.raises(TaskFailed):
            await tasks.result(started.id, 2.0)


@pytest.mark.parametrize(
    "error", [SystemExit(3), KeyboardInterrupt(), BaseException("odd"), asyncio.CancelledError("itself"), ValueError()]
)
def test_whatever_a_task_raises_is_its_own_failure(error: BaseException) -> None:
    @in_a_loop
    async def test() -> None:
        async with service() as tasks:

            @tasks.define(retries=0)
            async def broken() -> None:
                raise error

            @tasks.define
            async def fine() -> int:
                return 1

            started = await tasks.start(broken)
            with pytest.raises(TaskFailed, match=type(error).__name__):
                await tasks.result(started.id, 2.0)
            other = await tasks.start(fine)
            assert await tasks.result(other.id, 2.0) == 1

    test()


@in_a_loop
async def test_a_result_that_is_no_json_is_a_failure_with_its_reason() -> None:
    async with service() as tasks:

        @tasks.define(retries=0)
        async def odd() -> object:
            return object()

        started = await tasks.start(odd)
        with pytest.raises(TaskFailed, match="its result can't be written as JSON"):
            await tasks.result(started.id, 2.0)


@in_a_loop
async def test_arguments_that_this_version_does_not_take_are_a_failure_that_is_tried_again() -> None:
    store = Store()
    async with service(store) as tasks:

        @tasks.define(retries=1, backoff=Backoff(0.001, 0.001))
        async def take(number: int) -> None: ...

        node = await tasks.begin()
        spec = b'{"attempts":2,"first":0.001,"most":0.001}'
        await node.submit(NewTask(id="old", kind="take", payload=b'{"amount":1}', spec=spec))
        with pytest.raises(TaskFailed, match="amount"):
            await tasks.result("old", 2.0)
        assert store.tasks["old"].failures == 1


@in_a_loop
async def test_a_guard_that_says_when_to_come_back_is_heeded() -> None:
    store = Store()

    class Later(Exception):
        retry_after = 7.0

    async with service(store) as tasks:

        @tasks.define(backoff=Backoff(0.001, 5.0))
        async def refused() -> None:
            raise Later

        await tasks.start(refused)
        await until(lambda: store.settled)
        assert store.settled[0].outcome == "retry"
        assert store.settled[0].delay == 7.0


@in_a_loop
async def test_the_deadline_of_an_attempt_is_seen_by_what_it_calls_and_the_request_that_started_it_is_not() -> None:
    async with service() as tasks:

        @tasks.define(deadline=50)
        async def look() -> float | None:
            return remaining()

        from sojourn.scopes.deadline import deadline

        async with deadline(1.0, "the request"):
            started = await tasks.start(look)
        left = await tasks.result(started.id, 2.0)
        assert 49 < left <= 50


@in_a_loop
async def test_what_a_clean_up_raises_when_it_is_interrupted_is_no_failure() -> None:
    store = Store()
    async with service(store) as tasks:

        @tasks.define
        async def messy() -> None:
            try:
                await asyncio.sleep(10)
            finally:
                raise OSError("the file was closed")

        await tasks.start(messy)
        await until(lambda: tasks._node.runs)  # type: ignore[union-attr]
        await asyncio.sleep(0.01)
        await tasks._node.hand_over(1.0)  # type: ignore[union-attr]
        (task,) = store.tasks.values()
        assert (task.state, task.failures, task.interruptions) == ("pending", 0, 1)


@in_a_loop
async def test_outside_of_a_task_there_is_no_current_one() -> None:
    with pytest.raises(LookupError, match="no durable task"):
        current_task()


@in_a_loop
async def test_the_end_of_a_traceback_is_kept_and_no_more() -> None:
    store = Store()
    async with service(store) as tasks:

        @tasks.define(retries=0)
        async def broken() -> None:
            raise ValueError("x" * 100_000)

        started = await tasks.start(broken)
        with pytest.raises(TaskFailed):
            await tasks.result(started.id, 2.0)
        problem = msgspec.json.decode(store.tasks[started.id].error)
        assert len(problem["detail"]) == 1000
        assert len(problem["trace"]) <= 4000
