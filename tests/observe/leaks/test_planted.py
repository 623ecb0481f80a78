"""Faults planted in an application that really is served: each is named, and an innocent application is left alone."""

from __future__ import annotations

import asyncio
import gc
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

from sojourn.events import LeakFound, LeaseOverdue
from sojourn.observe.leaks.ledger import Signature
from tests.observe.leaks import planted
from tests.observe.leaks.scene import Watched, real
from tests.server.serving import Run, both_loops, until


@pytest.fixture(autouse=True)
def _tidy() -> Iterator[None]:
    yield
    planted.KEPT.clear()


async def _sweeps(watched: Watched, times: int = 2) -> None:
    for _ in range(times):
        await watched.leaks.sweep()
        await asyncio.sleep(0.06)
    await watched.leaks.sweep()


def _one(watched: Watched, kind: str) -> LeakFound:
    (found,) = [event for event in watched.found if event.kind == kind]
    return found


@both_loops
def test_a_leaked_task_per_request_is_one_finding_with_its_line_and_where_it_waits(run: Run) -> None:
    async def main() -> None:
        async with real(planted.app, leak_grace=0.05) as (served, watched):
            for _ in range(3):
                assert b"ok" in await served.get("/task")
            await _sweeps(watched)
            found = _one(watched, "task")
            assert found.created.startswith(planted.line("makes") + " in app")
            assert found.waiting.startswith(planted.line("waits") + " in forever")
            assert found.what == "forever"
            assert found.owner.startswith("connection ")
            (record,) = (await watched.report()).leaks
            assert (record.known, record.alive) == (3, 3)
            planted.forget()
            await asyncio.sleep(0)
            assert (await watched.report()).leaks[0].alive == 0

    run(main())


@both_loops
def test_a_lease_that_is_never_returned_is_named_when_its_request_has_ended(run: Run) -> None:
    async def main() -> None:
        async with real(planted.app) as (served, watched):
            await served.get("/lease")
            await until(lambda: watched.found)
            found = _one(watched, "lease")
            assert found.what == "pg"
            assert found.created.startswith(planted.line("takes") + " in app")
            assert found.owner == "connection 1 GET /lease"
            assert not served.of(LeaseOverdue)
            assert watched.leaks.leases.counts() == {"pg": 1}

    run(main())


@both_loops
def test_a_coroutine_that_nobody_awaits_is_named_with_the_line_that_made_it(run: Run) -> None:
    async def main() -> None:
        with warnings.catch_warnings(record=True):
            warnings.resetwarnings()
            async with real(planted.app) as (served, watched):
                await served.get("/coroutine")
                await served.get("/coroutine")
                (found,) = [event for event in watched.found if event.what == "unwanted"]
                assert found.kind == "coroutine"
                assert found.created == planted.line("forgets")
                assert watched.leaks.ledger.records[Signature("coroutine", "unwanted", found.created)].known == 2

    run(main())


@both_loops
def test_a_task_that_the_collector_takes_is_named_with_the_line_that_made_it(run: Run) -> None:
    async def main() -> None:
        async with real(planted.app) as (served, watched):
            asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
            await watched.leaks.sweep()  # goes in front of it
            await served.get("/lost")
            gc.collect()
            found = _one(watched, "lost_task")
            assert found.created.startswith(planted.line("loses") + " in lose")
            assert found.what == "lose.<locals>.alone"
            # The collector may have ended the coroutine before the task.
            assert not found.waiting or found.waiting.startswith(planted.line("lost"))
            assert "planted.py" in found.stack

    run(main())


@both_loops
def test_descriptors_that_pile_up_are_named_with_the_line_that_opened_them(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sojourn.observe.leaks.descriptors._SETTLED", 0.0)

    async def main() -> None:
        async with real(planted.app) as (served, watched):
            look = watched.leaks._descriptors.look
            for _ in range(11):
                await look()
                for _ in range(4):
                    await served.get("/descriptor")
            found = _one(watched, "fd")
            assert found.what == "socket"
            assert found.created.startswith(planted.line("opens") + " in app")
            planted.forget()
            await look()
            assert (await watched.report()).leaks[0].alive == 0

    run(main())


@both_loops
def test_a_connection_that_is_kept_alive_is_named_with_what_holds_it(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sojourn.observe.leaks.afterlife._GRACE", 0.0)

    async def main() -> None:
        async with real(planted.app) as (served, watched):
            watched.leaks._afterlife._patience = 0.0
            await watched.leaks.sweep()  # from here on it listens
            for _ in range(6):
                await served.get("/connection")
            await asyncio.sleep(0.15)
            await watched.leaks.sweep()  # they have ended
            await watched.leaks.sweep()  # and are still there
            found = _one(watched, "connection")
            assert found.created == f"{planted.line('keeps')} in <module>"
            assert found.holder.startswith("tests.observe.leaks.planted.KEPT -> list -> dict[")
            assert found.holder.endswith("Connection")
            assert watched.leaks.ledger.found["connection"] == 6

    run(main())


@both_loops
def test_an_innocent_application_under_load_is_left_alone(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sojourn.observe.leaks.descriptors._SETTLED", 0.0)
    monkeypatch.setattr("sojourn.observe.leaks.afterlife._GRACE", 0.0)

    async def main() -> None:
        async with real(planted.app, leak_grace=0.05) as (served, watched):
            watched.leaks._afterlife._patience = 0.0
            watched.leaks._descriptors._openings.begin()

            async def client() -> None:
                for _ in range(25):
                    await served.get("/tidy")

            async def watch(load: list[asyncio.Task[Any]]) -> None:
                while not all(task.done() for task in load):
                    await watched.leaks.sweep()
                    await asyncio.sleep(0.01)

            load = [asyncio.create_task(client()) for _ in range(8)]
            await watch(load)
            await asyncio.gather(*load)
            await _sweeps(watched, 3)
            report = await watched.report()
            assert watched.found == []
            assert report.leaks == []
            assert report.overdue == []
            assert report.leases == {"pg": 0}
            assert watched.leaks.leases.taken == {"pg": 200}

    run(main())
