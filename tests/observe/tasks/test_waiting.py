"""What a task waits for, in words."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import anyio.to_thread
import pytest

from sojourn.observe.tasks.chain import frames_of_task
from sojourn.observe.tasks.waiting import Wait, wait_of
from tests.observe.tasks.loops import on_both_loops, run, turns


def waits_for(task: asyncio.Task[Any], connection: int | None = None) -> Wait:
    def name(other: asyncio.Task[Any]) -> str:
        return f"17 ({other.get_name()})"

    return wait_of(task, frames_of_task(task), name, time.monotonic(), connection)


async def event() -> None:
    await asyncio.Event().wait()


async def lock() -> None:
    held = asyncio.Lock()
    await held.acquire()
    await held.acquire()


async def condition() -> None:
    news = asyncio.Condition()
    async with news:
        await news.wait_for(lambda: False)


async def semaphore() -> None:
    async with asyncio.Semaphore(0):
        pass


async def get() -> None:
    await asyncio.Queue[int]().get()


async def put() -> None:
    full = asyncio.Queue[int](1)
    await full.put(1)
    await full.put(2)


async def join() -> None:
    queue = asyncio.Queue[int]()
    await queue.put(1)
    await queue.join()


async def future() -> None:
    await asyncio.get_running_loop().create_future()


async def named() -> None:
    await asyncio.create_task(event(), name="child")


async def shielded() -> None:
    await asyncio.shield(asyncio.create_task(event(), name="child"))


async def gathered() -> None:
    await asyncio.gather(event(), event(), asyncio.sleep(0))


async def first() -> None:
    await asyncio.wait([asyncio.create_task(event()) for _ in range(3)], return_when=asyncio.FIRST_COMPLETED)


async def each() -> None:
    await asyncio.wait([asyncio.create_task(event()) for _ in range(3)])


async def group() -> None:
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(event())
        tasks.create_task(event())


WORDS: list[tuple[Callable[[], Awaitable[None]], str]] = [
    (event, "Event"),
    (lock, "Lock"),
    (condition, "Condition"),
    (semaphore, "Semaphore"),
    (get, "Queue.get"),
    (put, "Queue.put"),
    (join, "Queue.join"),
    (future, "Future"),
    (named, "task 17 (child)"),
    (shielded, "task 17 (child), shielded"),
    (gathered, "gather 2 of 3"),
    (first, "several the first of 3 of 3"),
    (each, "several all of 3 of 3"),
    (group, "TaskGroup 2 of 2"),
]


@on_both_loops
@pytest.mark.parametrize(("wait", "words"), WORDS)
def test_a_wait_has_words(wait: Callable[[], Any], words: str, loop: str) -> None:
    async def main() -> None:
        task = asyncio.create_task(wait())
        await turns(8)
        assert str(waits_for(task)) == words

    run(main(), loop)


@on_both_loops
def test_a_sleep_says_how_long_it_lasts_still(loop: str) -> None:
    async def main() -> None:
        task = asyncio.create_task(asyncio.sleep(3600))
        await turns()
        wait = waits_for(task)
        assert wait.kind == "sleep"
        left = float(wait.detail.removesuffix(" s left"))
        assert 3590 < left <= 3601

    run(main(), loop)


@on_both_loops
@pytest.mark.parametrize("how", ["executor", "anyio"])
def test_work_in_a_thread_is_waited_for_as_a_thread(how: str, loop: str) -> None:
    async def main() -> None:
        go = threading.Event()

        async def work() -> None:
            if how == "executor":
                await asyncio.get_running_loop().run_in_executor(None, go.wait, 10)
            else:
                await anyio.to_thread.run_sync(go.wait, 10)

        task = asyncio.create_task(work())
        await turns(8)
        kind = waits_for(task).kind
        go.set()
        await task
        assert kind == "thread"

    run(main(), loop)


@on_both_loops
def test_a_stream_says_from_whom_data_is_awaited(loop: str) -> None:
    async def main() -> None:
        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.close()

        server = await asyncio.start_server(silent, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()[:2]
        reader, writer = await asyncio.open_connection(host, port)
        task = asyncio.create_task(reader.read())
        await turns()
        assert str(waits_for(task)) == f"stream data from {host}:{port}"
        writer.close()
        await writer.wait_closed()
        await task
        server.close()
        await server.wait_closed()

    run(main(), loop)


def test_who_waits_for_nothing_has_no_words() -> None:
    async def main() -> None:
        task = asyncio.create_task(asyncio.sleep(0))
        assert waits_for(task) == Wait("")
        await turns(2)
        assert waits_for(task) == Wait("")
        current = asyncio.current_task()
        assert current is not None
        assert waits_for(current) == Wait("")

    run(main())
