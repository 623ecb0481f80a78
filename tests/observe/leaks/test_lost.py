"""Tasks that the collector takes are counted, whatever the application does with the loop's exception handler."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from typing import Any

import pytest
import uvloop

from sojourn.observe.leaks.lost import LostTask, LostTasks
from tests.observe.leaks.scene import Bench


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def loop(request: pytest.FixtureRequest) -> Iterator[asyncio.AbstractEventLoop]:
    loop: asyncio.AbstractEventLoop = request.param()
    yield loop
    loop.close()


def described(task: asyncio.Task[Any]) -> LostTask:
    return LostTask("what", "created", "", "owner", 1.0, [])


def lose(loop: asyncio.AbstractEventLoop) -> None:
    """A task is collected."""

    async def alone() -> None:
        await loop.create_future()

    async def main() -> None:
        asyncio.ensure_future(alone())  # noqa: RUF006 - that is the point
        await asyncio.sleep(0)

    loop.run_until_complete(main())
    gc.collect()


def test_it_is_counted_and_passed_on(loop: asyncio.AbstractEventLoop) -> None:
    bench, heard = Bench(), list[str]()
    loop.set_exception_handler(lambda loop, context: heard.append(context["message"]))
    before = loop.get_exception_handler()
    lost = LostTasks(loop, bench.ledger, described)
    lose(loop)
    lose(loop)
    loop.call_exception_handler({"message": "something else"})
    assert lost.total == 2
    assert heard == ["Task was destroyed but it is pending!"] * 2 + ["something else"]
    (found,) = bench.events
    assert (found.kind, found.what, found.created, found.owner) == ("lost_task", "what", "created", "owner")
    lost.close()
    lost.close()
    assert loop.get_exception_handler() is before


def test_an_application_that_sets_its_own_handler_is_stepped_in_front_of_again(loop: asyncio.AbstractEventLoop) -> None:
    bench, heard = Bench(), list[str]()
    lost = LostTasks(loop, bench.ledger, described)
    loop.set_exception_handler(lambda loop, context: heard.append(context["message"]))
    lost.check()
    lost.check()
    lose(loop)
    assert lost.total == 1
    assert len(heard) == 1
    lost.close()
    lose(loop)
    assert lost.total == 1
    assert len(heard) == 2


def test_handlers_that_chain_each_other_count_once_and_come_to_an_end(loop: asyncio.AbstractEventLoop) -> None:
    bench, heard = Bench(), list[str]()
    loop.set_exception_handler(lambda loop, context: heard.append("first"))
    lost = LostTasks(loop, bench.ledger, described)
    ours = loop.get_exception_handler()
    assert ours is not None

    def chained(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        heard.append("chained")
        ours(loop, context)

    loop.set_exception_handler(chained)
    lost.check()
    lose(loop)
    assert lost.total == 1
    assert heard == ["chained", "first"]
    lost.close()
    assert loop.get_exception_handler() is chained
    lose(loop)
    assert lost.total == 1
    assert heard == ["chained", "first"] * 2
