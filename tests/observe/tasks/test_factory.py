"""Every way to make a task leaves a note of where, when and by which request."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Awaitable, Callable
from contextvars import ContextVar, copy_context
from typing import Any

import anyio
import pytest

from sojourn.clock import ManualClock
from sojourn.observe.tasks.chain import Places
from sojourn.observe.tasks.factory import Attribution, origin_of
from tests.observe.tasks.loops import line_of, on_both_loops, run, turns

WHO: ContextVar[Any] = ContextVar("WHO", default=None)


async def nothing() -> str:
    return "done"


async def by_create_task(loop: asyncio.AbstractEventLoop) -> list[asyncio.Task[str]]:
    return [asyncio.create_task(nothing(), name="named")]  # HERE


async def by_the_loop(loop: asyncio.AbstractEventLoop) -> list[asyncio.Task[str]]:
    return [loop.create_task(nothing(), name="named", context=copy_context())]  # HERE


async def by_ensure_future(loop: asyncio.AbstractEventLoop) -> list[asyncio.Task[str]]:
    return [asyncio.ensure_future(nothing())]  # HERE


async def by_task_group(loop: asyncio.AbstractEventLoop) -> list[asyncio.Task[str]]:
    async with asyncio.TaskGroup() as group:
        return [group.create_task(nothing(), name="named")]  # HERE


async def by_gather(loop: asyncio.AbstractEventLoop) -> list[asyncio.Task[str]]:
    before = asyncio.all_tasks()
    together = asyncio.gather(nothing(), nothing())  # HERE
    made = asyncio.all_tasks() - before
    await together
    return list(made)


async def by_anyio(loop: asyncio.AbstractEventLoop) -> list[asyncio.Task[str]]:
    before = asyncio.all_tasks()
    async with anyio.create_task_group() as group:
        group.start_soon(nothing, name="named")  # HERE
        return list(asyncio.all_tasks() - before)


WAYS = [by_create_task, by_the_loop, by_ensure_future, by_task_group, by_gather, by_anyio]
Way = Callable[[asyncio.AbstractEventLoop], Awaitable[list[asyncio.Task[str]]]]


@on_both_loops
@pytest.mark.parametrize("way", WAYS)
def test_a_task_knows_the_line_of_the_application_that_made_it(way: Way, loop: str) -> None:
    async def main() -> None:
        running = asyncio.get_running_loop()
        clock = ManualClock(start=50.0)
        attribution = Attribution(running, clock, WHO.get)
        WHO.set(request := object())
        made = await way(running)
        assert made
        for task in made:
            origin = origin_of(task)
            assert origin is not None
            place = Places().of_code(origin.code, origin.instruction)
            assert (place.function, place.line) == (getattr(way, "__qualname__", ""), line_of(way, "# HERE"))
            assert origin.request is request
            assert origin.born == 50.0
        await asyncio.gather(*made)
        attribution.close()

    run(main(), loop)


@on_both_loops
def test_name_and_context_arrive_at_the_task(loop: str) -> None:
    async def main() -> None:
        running = asyncio.get_running_loop()
        attribution = Attribution(running, ManualClock(), lambda: None)
        context = copy_context()
        context.run(WHO.set, "inside")
        seen: list[object] = []

        async def look() -> None:
            seen.append(WHO.get())

        task = running.create_task(look(), name="mine", context=context)
        assert task.get_name() == "mine"
        assert type(task) is asyncio.Task  # a subclass is awaited on the slow path
        await task
        assert seen == ["inside"]
        assert asyncio.create_task(nothing()).get_name().startswith("Task-")
        await turns()
        attribution.close()

    run(main(), loop)


def test_a_task_made_by_a_callback_of_the_loop_names_what_the_loop_called() -> None:
    async def main() -> None:
        running = asyncio.get_running_loop()
        attribution = Attribution(running, ManualClock(), lambda: None)
        made: list[asyncio.Task[str]] = []

        def called() -> None:
            made.append(running.create_task(nothing()))

        running.call_soon(called)
        await turns()
        origin = origin_of(made[0])
        assert origin is not None
        assert origin.code is called.__code__
        attribution.close()

    run(main())


def test_a_server_of_asyncios_own_names_its_protocol_and_not_who_runs_the_loop() -> None:
    async def main() -> None:
        running = asyncio.get_running_loop()
        attribution = Attribution(running, ManualClock(), lambda: None)
        made: list[asyncio.Task[Any] | None] = []

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            made.append(asyncio.current_task())
            writer.close()

        server = await asyncio.start_server(talk, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
        await reader.read()
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()
        assert made[0] is not None
        origin = origin_of(made[0])
        assert origin is not None
        assert origin.code.co_filename.endswith("asyncio/streams.py")
        attribution.close()

    run(main())


def test_the_applications_own_factory_wins_and_is_named() -> None:
    def own(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
        return asyncio.Task(coroutine, loop=loop, **options)

    async def main() -> None:
        running = asyncio.get_running_loop()
        running.set_task_factory(own)
        attribution = Attribution(running, ManualClock(), lambda: None)
        assert not attribution.active
        assert own.__qualname__ in str(attribution)
        assert origin_of(asyncio.create_task(nothing())) is None
        attribution.close()
        assert running.get_task_factory() is own
        await turns()

    run(main())


def test_a_factory_that_the_application_sets_later_is_noticed_and_kept() -> None:
    async def main() -> None:
        running = asyncio.get_running_loop()
        attribution = Attribution(running, ManualClock(), lambda: None)
        assert str(attribution) == "on"
        running.set_task_factory(lambda loop, coroutine, **options: asyncio.Task(coroutine, loop=loop, **options))
        assert str(attribution).startswith("off: the application")
        attribution.close()
        assert running.get_task_factory() is not None

    run(main())


def test_closed_it_leaves_the_loop_as_it_was() -> None:
    async def main() -> None:
        running = asyncio.get_running_loop()
        attribution = Attribution(running, ManualClock(), lambda: None)
        attribution.close()
        attribution.close()
        assert running.get_task_factory() is None
        assert str(attribution) == "off"

    run(main())


def test_what_is_noted_keeps_no_request_longer_than_the_tasks_context_does() -> None:
    class Request:
        pass

    async def main() -> None:
        attribution = Attribution(asyncio.get_running_loop(), ManualClock(), WHO.get)

        async def inside() -> weakref.ref[Request]:
            request = Request()
            WHO.set(request)
            task = asyncio.create_task(nothing())
            await task
            return weakref.ref(request)

        reference = await asyncio.create_task(inside())
        await turns()
        gc.collect()
        assert reference() is None
        attribution.close()

    run(main())
