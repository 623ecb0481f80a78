"""Durable tasks that run on when their deadline and the ladder of cancellation are over."""

from __future__ import annotations

import asyncio
from contextvars import Context
from typing import Any

from sojourn.config import Config
from sojourn.events import LeakFound
from sojourn.observe.leaks.detector import Leaks
from sojourn.observe.leaks.ledger import KINDS
from sojourn.observe.tasks.census import Tasks
from sojourn.scopes.journals import JOURNALS, Journals, RunInfo
from sojourn.scopes.work import launch
from sojourn.testing.server import MemoryServer
from tests.observe.leaks.scene import answer, requests_only
from tests.observe.test_journals import Shown


async def resists() -> None:
    await asyncio.get_running_loop().create_future()


def test_a_run_that_should_have_ended_is_named_once_with_its_stack_until_it_ends_at_last() -> None:
    async def main() -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await answer(send)

        async with MemoryServer(requests_only(app), Config()) as server:
            journals, service = Journals(server.site.runtime.bus), Shown()
            server.site.runtime.context.run(JOURNALS.set, journals)
            journals.join(service)
            tasks = Tasks(server.site)
            leaks = Leaks(server.site, tasks)
            try:
                await server.advance(6.0)
                assert leaks.ledger.alive()["run"] == 0
                task = launch(resists(), "task export t1", Context())
                await asyncio.sleep(0)
                service.late = [(RunInfo("t1", "export", 3, 1, 0, 64.5, 60.0, stuck=True), task)]
                await server.advance(11.0)
                (found,) = [event for event in server.events if type(event) is LeakFound]
                assert (found.kind, found.what, found.owner, found.age) == ("run", "export", "task export t1", 64.5)
                assert "resists" in found.stack
                assert "resists" in found.waiting
                assert leaks.ledger.alive()["run"] == 1
                task.cancel()
                await server.advance(6.0)
                assert leaks.ledger.alive()["run"] == 0
                assert leaks.ledger.found["run"] == 1
            finally:
                leaks.close()
                tasks.close()

    asyncio.run(main())


def test_its_kind_is_one_of_those_that_metrics_and_pages_know() -> None:
    assert "run" in KINDS
