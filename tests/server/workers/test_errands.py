"""Questions of a supervisor to a worker."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, closing
from contextvars import copy_context
from typing import Any

import msgspec
import pytest

from sojourn.bus import Bus
from sojourn.clock import ManualClock
from sojourn.errors import ErrandError
from sojourn.net.ticker import Ticker
from sojourn.scopes.work import Work
from sojourn.server.workers.errands import Errand, Errands, ask, socket_pair
from tests.server.serving import until

Answers = Mapping[str, Callable[[Mapping[str, Any]], Awaitable[object]]]


async def echo(arguments: Mapping[str, Any]) -> object:
    return dict(arguments)


async def never(_: Mapping[str, Any]) -> object:
    return await asyncio.get_running_loop().create_future()


async def much(arguments: Mapping[str, Any]) -> object:
    return [{"number": number} for number in range(arguments["count"])]


async def refuse(_: Mapping[str, Any]) -> object:
    raise ErrandError(409, "not_now", "it is being done already")


async def broken(_: Mapping[str, Any]) -> object:
    raise RuntimeError("a bug")


ANSWERS: Answers = {"echo": echo, "never": never, "much": much, "refuse": refuse, "broken": broken}


@asynccontextmanager
async def worker() -> Any:
    loop = asyncio.get_running_loop()
    asks, asked = socket_pair()
    work = Work(loop, Ticker(ManualClock()), Bus(), copy_context())
    errands = Errands(loop, asked, ANSWERS, work)
    with closing(asks):
        yield asks, errands
        assert not work.running  # or a drain would wait for them
        errands.close()


def test_a_question_gets_its_answer() -> None:
    async def main() -> None:
        async with worker() as (asks, _):
            answer = await ask(asks, Errand("echo", {"older": 60.0, "route": "/é"}, 5.0))
            assert msgspec.msgpack.decode(answer) == {"older": 60.0, "route": "/é"}

    asyncio.run(main())


def test_answers_are_as_long_as_they_have_to_be_and_come_while_others_are_under_way() -> None:
    async def main() -> None:
        async with worker() as (asks, _):
            questions = [ask(asks, Errand("much", {"count": count}, 10.0)) for count in (0, 1, 249, 251, 60_000)]
            answers = [msgspec.msgpack.decode(answer) for answer in await asyncio.gather(*questions)]
            assert [len(answer) for answer in answers] == [0, 1, 249, 251, 60_000]
            assert answers[-1][-1] == {"number": 59_999}

    asyncio.run(main())


@pytest.mark.parametrize(
    ("name", "status", "reason"),
    [
        ("refuse", 409, "not_now"),
        ("broken", 500, "internal_error"),
        ("absent", 404, "unknown_errand"),
        ("much", 400, "bad_argument"),
        ("never", 504, "no_answer"),
    ],
)
def test_who_asks_is_told_why_there_is_no_answer(name: str, status: int, reason: str) -> None:
    async def main() -> None:
        async with worker() as (asks, _):
            with pytest.raises(ErrandError) as caught:
                await ask(asks, Errand(name, {}, 0.2))
            assert (caught.value.status, caught.value.reason) == (status, reason)

    asyncio.run(main())


def test_a_worker_that_hangs_is_not_waited_for() -> None:
    async def main() -> None:
        asks, asked = socket_pair()
        with closing(asks), closing(asked):
            with pytest.raises(ErrandError) as caught:
                await ask(asks, Errand("echo", {}, 0.1))
            assert caught.value.status == 504

    asyncio.run(main())


def test_a_worker_that_has_ended_is_said_to_be_gone() -> None:
    async def main() -> None:
        async with worker() as (asks, errands):
            asking = asyncio.ensure_future(ask(asks, Errand("echo", {}, 5.0)))
            errands.close()
            with pytest.raises(ErrandError) as caught:
                await asking
            assert caught.value.reason == "gone"
            with pytest.raises(ErrandError) as caught:
                await ask(asks, Errand("echo", {}, 5.0))
            assert caught.value.reason == "gone"

    asyncio.run(main())


def test_a_worker_works_on_a_bounded_number_of_questions() -> None:
    async def main() -> None:
        async with worker() as (asks, _):
            waiting = [asyncio.ensure_future(ask(asks, Errand("never", {}, 1.0))) for _ in range(8)]
            await asyncio.sleep(0.1)
            with pytest.raises(ErrandError) as caught:
                await ask(asks, Errand("echo", {}, 1.0))
            assert (caught.value.status, caught.value.reason) == (503, "busy")
            await asyncio.gather(*waiting, return_exceptions=True)
            assert msgspec.msgpack.decode(await ask(asks, Errand("echo", {}, 1.0))) == {}

    asyncio.run(main())


def test_a_question_that_nobody_waits_for_any_more_is_given_up_and_leaves_room_for_another() -> None:
    async def main() -> None:
        async with worker() as (asks, errands):
            before = len(os.listdir("/proc/self/fd"))
            asked = [asyncio.ensure_future(ask(asks, Errand("never", {}, 300.0))) for _ in range(8)]
            await until(lambda: len(errands._running) == 8)
            for each in asked:
                each.cancel()
            await until(lambda: not errands._running)
            assert len(os.listdir("/proc/self/fd")) == before
            assert await ask(asks, Errand("echo", {}, 5.0)) == msgspec.msgpack.encode({})

    asyncio.run(main())


def test_no_descriptor_is_left_behind() -> None:
    async def main() -> None:
        async with worker() as (asks, _):
            await ask(asks, Errand("echo", {}, 1.0))
            with socket.socket() as probe:
                before = probe.fileno()
            for _ in range(20):
                await ask(asks, Errand("echo", {}, 1.0))
            await asyncio.sleep(0.01)
            with socket.socket() as probe:
                assert probe.fileno() == before

    asyncio.run(main())


def test_a_worker_without_free_descriptors_answers_again_when_it_has_some() -> None:
    async def main() -> None:
        async with worker() as (asks, _):
            # As the kernel hands a question over when the descriptor that came with it has no room.
            asks.send(msgspec.msgpack.encode(Errand("echo", {}, 1.0)))
            await asyncio.sleep(0.01)
            assert msgspec.msgpack.decode(await ask(asks, Errand("echo", {"a": 1}, 1.0))) == {"a": 1}

    asyncio.run(main())


def test_who_asks_is_not_waited_for_when_the_worker_ends() -> None:
    async def main() -> None:
        async with worker() as (asks, errands):
            asked = asyncio.ensure_future(ask(asks, Errand("never", {}, 60.0)))
            while not errands._running:  # noqa: ASYNC110 - nothing else tells it
                await asyncio.sleep(0)
            errands.close()
            with pytest.raises(ErrandError) as caught:
                await asked
            assert (caught.value.status, caught.value.reason) == (503, "gone")

    asyncio.run(main())
