"""The way from a task down to what it waits for, and from a task up to who waits for it."""

from __future__ import annotations

import asyncio
import types
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator
from typing import Any

import anyio
import pytest

from sojourn.observe.tasks.chain import Places, awaited_by, frames_of_task
from sojourn.scopes.work import attend, stack_of
from tests.observe.tasks.loops import on_both_loops, run, turns

Wait = Callable[[Awaitable[None]], Coroutine[Any, Any, None]]


async def leaf(future: Awaitable[None]) -> None:
    await future


async def plain(future: Awaitable[None]) -> None:
    await leaf(future)


async def generator(future: Awaitable[None]) -> AsyncIterator[int]:
    await leaf(future)
    yield 1


async def by_async_for(future: Awaitable[None]) -> None:
    async for _ in generator(future):
        pass


async def by_anext(future: Awaitable[None]) -> None:
    steps = generator(future)
    await anext(steps, 0)
    await steps.aclose()  # type: ignore[attr-defined]


class Waitable:
    def __init__(self, future: Awaitable[None]) -> None:
        self.future = future

    def __await__(self) -> Generator[Any, None, None]:
        return leaf(self.future).__await__()


async def by_await_method(future: Awaitable[None]) -> None:
    await Waitable(future)


@types.coroutine
def old_style(future: Awaitable[None]) -> Generator[Any, None, None]:
    yield from leaf(future).__await__()


async def by_generator(future: Awaitable[None]) -> None:
    await old_style(future)


async def by_context(future: Awaitable[None]) -> None:
    class Context:
        async def __aenter__(self) -> None:
            await leaf(future)

        async def __aexit__(self, *error: object) -> None:
            pass

    async with Context():
        pass


WAITS: list[Wait] = [plain, by_async_for, by_anext, by_await_method, by_generator, by_context]


@on_both_loops
@pytest.mark.parametrize("wait", WAITS)
def test_the_chain_reaches_the_innermost_await(wait: Wait, loop: str) -> None:
    async def main() -> None:
        future = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(wait(future))
        await turns()
        names = [frame.f_code.co_qualname for frame in frames_of_task(task)]
        assert names[0] == "leaf"
        assert names[-1] == getattr(wait, "__qualname__", "")
        assert stack_of(task).rstrip().endswith("await future")
        future.set_result(None)
        await task
        assert frames_of_task(task) == []

    run(main(), loop)


async def by_await(child: asyncio.Task[None]) -> None:
    await child


async def by_gather(child: asyncio.Task[None]) -> None:
    await asyncio.gather(asyncio.gather(child), asyncio.sleep(0))


async def by_wait(child: asyncio.Task[None]) -> None:
    await asyncio.wait([child])


async def by_shield(child: asyncio.Task[None]) -> None:
    await asyncio.shield(child)


async def by_wait_for(child: asyncio.Task[None]) -> None:
    await asyncio.wait_for(child, 60)


async def by_timeout(child: asyncio.Task[None]) -> None:
    async with asyncio.timeout(60):
        await child


PARENTS = [by_await, by_gather, by_wait, by_shield, by_wait_for, by_timeout]


@on_both_loops
@pytest.mark.parametrize("parent", PARENTS)
def test_a_task_knows_which_task_waits_for_it(
    parent: Callable[[asyncio.Task[None]], Coroutine[Any, Any, None]], loop: str
) -> None:
    async def main() -> None:
        gate = asyncio.Event()
        child = asyncio.create_task(leaf(gate.wait()))  # type: ignore[arg-type]
        assert awaited_by(child) is None
        waits = asyncio.create_task(parent(child))
        await turns()
        assert awaited_by(child) is waits
        assert awaited_by(waits) is None
        gate.set()
        await waits

    run(main(), loop)


@on_both_loops
def test_the_tasks_of_a_group_belong_to_who_opened_it(loop: str) -> None:
    async def main() -> None:
        gate = asyncio.Event()
        children: list[asyncio.Task[Any]] = []

        async def opens() -> None:
            async with asyncio.TaskGroup() as group:
                children.append(group.create_task(gate.wait()))
            async with anyio.create_task_group() as other:
                other.start_soon(gate.wait)
                children.extend(asyncio.all_tasks() - {opener, *children} - {asyncio.current_task()} - here)
                gate.clear()

        here = asyncio.all_tasks()
        opener = asyncio.create_task(opens())
        await turns()
        assert awaited_by(children[0]) is opener
        gate.set()
        await turns(8)
        assert len(children) == 2
        assert awaited_by(children[1]) is opener
        gate.set()
        await opener

    run(main(), loop)


def test_a_callback_that_happens_to_hold_a_task_makes_nobody_a_parent() -> None:
    async def main() -> None:
        gate = asyncio.Event()
        child, other = asyncio.create_task(gate.wait()), asyncio.create_task(gate.wait())
        child.add_done_callback(lambda _: other.get_name())
        await turns()
        assert awaited_by(child) is None
        gate.set()
        await asyncio.gather(child, other)

    run(main())


def test_what_runs_beside_a_task_is_no_reason_to_call_it_awaited() -> None:
    async def main() -> None:
        gate = asyncio.Event()

        async def hosts() -> asyncio.Task[bool]:
            beside = attend(gate.wait(), "beside")
            await turns(2)
            return beside

        host = asyncio.create_task(hosts())
        beside = await host
        assert awaited_by(host) is None
        assert beside.host is host  # type: ignore[attr-defined]
        await turns()
        assert beside.cancelled()

    run(main())


def test_a_place_is_named_once_and_the_line_is_that_of_the_await() -> None:
    async def main() -> None:
        future = asyncio.get_running_loop().create_future()
        first, second = (asyncio.create_task(plain(future)) for _ in range(2))
        await turns()
        places = Places()
        stacks = [[places.of_frame(frame) for frame in frames_of_task(task)] for task in (first, second)]
        assert stacks[0] == stacks[1]
        assert all(one is other for one, other in zip(*stacks, strict=True))
        assert stacks[0][0].line == leaf.__code__.co_firstlineno + 1
        frame = frames_of_task(first)[0]
        assert places.of_code(frame.f_code, frame.f_lasti) is stacks[0][0]
        assert Places().of_code(frame.f_code, frame.f_lasti) == stacks[0][0]
        future.set_result(None)
        await asyncio.gather(first, second)

    run(main())
