"""Who holds what, since when, and who never gives it back."""

from __future__ import annotations

import asyncio
import gc
import threading
from contextvars import copy_context
from pathlib import Path
from typing import Any

import pytest

from sojourn.events import LeakFound, LeaseOverdue, LeaseReturned
from sojourn.observe.leaks.leases import LEASES, Lease, lease
from tests.observe.leaks.scene import Bench, answer, memory
from tests.server.serving import until

HERE = str(Path(__file__))


class Thing:
    """Something of a pool."""


def take(bench: Bench, *arguments: Any, **options: Any) -> Lease:
    context = copy_context()
    context.run(LEASES.set, bench.leases)
    return context.run(lambda: lease(*arguments, **options))


def test_what_is_held_for_too_long_is_told_once_with_who_took_it_and_again_when_it_is_back() -> None:
    bench = Bench()
    held = take(bench, "pg")
    bench.advance(9)
    assert bench.events == []
    bench.advance(20)
    (overdue,) = bench.events
    assert isinstance(overdue, LeaseOverdue)
    assert overdue.pool == "pg"
    assert 10 <= overdue.seconds < 11.5
    assert f"{HERE}:" in overdue.stack
    assert " in take" in overdue.stack
    (late,) = bench.leases.late()
    assert (late.pool, late.leaked, late.stack[0].file) == ("pg", False, HERE)
    held.give_back()
    held.give_back()
    bench.advance(2)
    (returned,) = bench.seen(LeaseReturned)
    assert 29 <= returned.seconds < 31
    assert bench.leases.counts() == {"pg": 0}
    assert bench.leases.late() == []


def test_what_is_given_back_in_time_is_told_to_nobody() -> None:
    bench = Bench()
    with take(bench, "pg"), take(bench, "redis"):
        assert bench.leases.counts() == {"pg": 1, "redis": 1}
        bench.advance(5)
    bench.advance(20)
    assert bench.events == []
    assert bench.leases.taken == {"pg": 1, "redis": 1}


def test_a_lease_can_have_a_patience_of_its_own_or_be_endless() -> None:
    bench = Bench()
    quick, endless = take(bench, "quick", patience=1.0), take(bench, "endless", patience=None)
    bench.advance(100)
    assert [event.pool for event in bench.seen(LeaseOverdue)] == ["quick"]
    assert [late.pool for late in bench.leases.late()] == ["quick"]
    quick.give_back()
    endless.give_back()


def test_when_a_database_stands_still_its_leases_are_told_by_place_once_a_minute_and_counted_all() -> None:
    bench = Bench()
    held = [take(bench, "pg") for _ in range(50)]
    bench.advance(15)
    assert len(bench.seen(LeaseOverdue)) == 1
    assert bench.leases.overdue == {"pg": 50}
    assert len(bench.leases.late()) == 50
    for each in held:
        each.give_back()
    bench.advance(2)
    assert len(bench.seen(LeaseReturned)) == 1  # of what was told


def test_a_lease_whose_resource_is_collected_has_leaked() -> None:
    bench = Bench()
    thing = Thing()
    kept = take(bench, "pg", thing)
    assert bench.leases.counts() == {"pg": 1}
    del thing
    gc.collect()
    bench.advance(2)
    (found,) = bench.events
    assert isinstance(found, LeakFound)
    assert (found.kind, found.what, found.waiting) == ("lease", "pg", "collected before it was given back")
    assert found.created.startswith(HERE)
    assert bench.leases.counts() == {"pg": 0}
    kept.give_back()
    bench.advance(2)
    assert len(bench.events) == 1


def test_a_resource_that_is_collected_after_its_return_is_no_leak() -> None:
    bench = Bench()
    thing = Thing()
    with take(bench, "pg", thing):
        pass
    del thing
    gc.collect()
    bench.advance(2)
    assert bench.events == []


def test_threads_take_and_give_back_and_events_stay_on_the_loop() -> None:
    bench = Bench()
    told_in: list[int] = []
    bench.bus.observe(LeaseReturned, lambda _: told_in.append(threading.get_ident()))
    held = take(bench, "pg")
    bench.advance(12)
    threads = [threading.Thread(target=held.give_back)]
    threads += [threading.Thread(target=lambda: take(bench, "pg").give_back()) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert told_in == []
    bench.advance(2)
    assert told_in == [threading.get_ident()]
    assert bench.leases.counts() == {"pg": 0}


def test_where_no_server_runs_the_code_nothing_is_counted() -> None:
    with lease("pg") as held:
        assert held.owner == ""
    held.give_back()


def test_a_lease_of_a_request_that_has_ended_has_leaked_at_once_and_its_late_return_is_told() -> None:
    kept: list[Lease] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        kept.append(lease("pg"))
        await answer(send)

    async def main() -> None:
        async with memory(app) as (server, watched):
            client = server.connect()
            client.get("/a")
            await server.advance(1.5)
            (found,) = watched.found
            assert (found.kind, found.owner) == ("lease", "connection 1 GET /a")
            assert found.created.startswith(HERE)
            (late,) = watched.leaks.leases.late()
            assert late.leaked
            assert server.seen(LeaseOverdue) == []
            kept.pop().give_back()
            await server.advance(1.5)
            (returned,) = server.seen(LeaseReturned)
            assert returned.owner == "connection 1 GET /a"
            assert (await watched.report()).leaks[0].alive == 0

    asyncio.run(main())


def test_a_lease_taken_by_a_task_that_outlives_its_request_is_not_lost_while_the_task_runs() -> None:
    done = asyncio.Event

    async def main() -> None:
        finish = done()
        tasks: list[asyncio.Task[None]] = []

        async def work() -> None:
            with lease("pg"):
                await finish.wait()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            tasks.append(asyncio.create_task(work()))
            await asyncio.sleep(0)
            await answer(send)

        async with memory(app) as (server, watched):
            server.connect().get("/a")
            await server.advance(2)
            assert watched.found == []
            assert watched.leaks.leases.counts() == {"pg": 1}
            finish.set()
            await server.advance(2)
            assert watched.leaks.leases.counts() == {"pg": 0}
            assert watched.found == []

    asyncio.run(main())


@pytest.mark.parametrize("steps", range(6))
def test_a_request_that_is_cancelled_at_any_await_while_it_holds_a_lease_gives_it_back(steps: int) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(0)
        with lease("pg"):
            await asyncio.sleep(0)
            with lease("redis"):
                await asyncio.sleep(0)
                await asyncio.create_task(asyncio.sleep(0))
            await asyncio.sleep(0)
        await asyncio.get_running_loop().create_future()

    running: list[Any] = []

    async def remembered(scope: Any, receive: Any, send: Any) -> None:
        running.append(asyncio.current_task())
        await app(scope, receive, send)

    async def main() -> None:
        async with memory(remembered) as (server, watched):
            server.connect().get("/a")
            await until(lambda: running)
            for _ in range(steps):
                await asyncio.sleep(0)
            running[0].cancel()
            await server.advance(15)
            assert not any(watched.leaks.leases.counts().values())
            assert watched.found == []
            assert server.seen(LeaseOverdue) == []

    asyncio.run(main())
