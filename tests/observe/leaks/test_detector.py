"""The whole: what is swept when, what is let off, what is answered, and what is left behind."""

from __future__ import annotations

import asyncio
import sys
import types
import warnings
from typing import Any

import msgspec
import pytest

from sojourn.errors import ErrandError
from sojourn.events import LeakFound
from sojourn.observe.leaks.detector import LeaksReport
from sojourn.observe.leaks.innocent import HOUSEKEEPERS
from sojourn.observe.leaks.ledger import KINDS, Ledger, Signature
from sojourn.observe.leaks.places import module_of
from sojourn.scopes.adoption import adopt
from tests.observe.leaks.scene import Bench, answer, memory


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


class Scene:
    """An application that starts a task in each request."""

    def __init__(self, start: Any = None) -> None:
        self.tasks: list[asyncio.Task[Any]] = []
        self._start = start or (lambda: asyncio.ensure_future(forever()))

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        self.tasks.append(self._start())
        await answer(send)

    def end(self) -> None:
        for task in self.tasks:
            task.cancel()


def test_a_task_is_told_when_it_was_seen_twice_behind_the_end_of_its_request_and_the_grace_has_passed() -> None:
    async def main() -> None:
        scene = Scene()
        async with memory(scene.app) as (server, watched):
            server.connect().get("/a")
            await server.advance(9)
            assert watched.found == []
            await server.advance(3)
            (found,) = watched.found
            assert (found.kind, found.what, found.known) == ("task", "forever", 1)
            assert "forever" in found.stack
            scene.end()
            await server.advance(10)
            assert (await watched.report()).leaks[0].alive == 0

    asyncio.run(main())


def test_a_task_that_ends_in_time_is_told_to_nobody() -> None:
    async def main() -> None:
        scene = Scene()
        async with memory(scene.app) as (server, watched):
            server.connect().get("/a")
            await server.advance(9)
            scene.end()
            await server.advance(30)
            assert watched.found == []

    asyncio.run(main())


def test_many_of_one_signature_are_one_event_and_a_count() -> None:
    async def main() -> None:
        scene = Scene()
        async with memory(scene.app) as (server, watched):
            for _ in range(20):
                server.connect().get("/a")
            await server.advance(12)
            for _ in range(5):
                server.connect().get("/a")
            await server.advance(12)
            assert len(watched.found) == 1
            (record,) = (await watched.report()).leaks
            assert (record.known, record.alive) == (25, 25)
            assert record.last_seen > record.first_seen
            assert watched.leaks.ledger.found["task"] == 25
            assert watched.leaks.ledger.alive()["task"] == 25
            scene.end()

    asyncio.run(main())


def test_tasks_that_run_a_coroutine_of_asyncio_itself_are_one_leak_although_each_has_a_name_of_its_own() -> None:
    async def main() -> None:
        scene = Scene(lambda: asyncio.create_task(asyncio.sleep(3600)))
        async with memory(scene.app) as (server, watched):
            for _ in range(3):
                server.connect().get("/a")
            await server.advance(12)
            assert [(found.what, found.known) for found in watched.found] == [("sleep", 1)]
            (record,) = (await watched.report()).leaks
            assert record.alive == 3
            scene.end()

    asyncio.run(main())


def test_adopted_tasks_and_those_of_the_settings_are_let_off() -> None:
    async def main(names: tuple[str, ...], start: Any) -> int:
        scene = Scene(start)
        async with memory(scene.app, leak_ignore=names) as (server, watched):
            server.connect().get("/a")
            await server.advance(20)
            scene.end()
            return len(watched.found)

    def adopted() -> asyncio.Task[None]:
        return adopt(asyncio.ensure_future(forever()), owner="refresher")

    assert asyncio.run(main((), adopted)) == 0
    assert asyncio.run(main((__name__,), None)) == 0
    assert asyncio.run(main((f"{__name__}.forever",), None)) == 0
    assert asyncio.run(main((f"{__name__}.for",), None)) == 1
    assert asyncio.run(main(("another.module",), None)) == 1


LIBRARY = """
import asyncio
async def housekeeping():
    await asyncio.get_running_loop().create_future()
def use(coroutine=None):
    return asyncio.ensure_future(coroutine or housekeeping())
"""


@pytest.fixture
def library() -> Any:
    """A module that seems to be installed as part of a library that keeps house."""
    module: Any = types.ModuleType("pymongo.periodic_executor")
    file = "/usr/lib/python3/dist-packages/pymongo/periodic_executor.py"
    exec(compile(LIBRARY, file, "exec"), vars(module))
    return module


def test_a_library_that_keeps_house_from_the_first_request_on_is_let_off(library: Any) -> None:
    async def main(start: Any) -> int:
        scene = Scene(start)
        async with memory(scene.app) as (server, watched):
            server.connect().get("/a")
            await server.advance(20)
            scene.end()
            return len(watched.found)

    assert "pymongo" in HOUSEKEEPERS
    assert asyncio.run(main(library.use)) == 0
    assert asyncio.run(main(lambda: asyncio.ensure_future(library.housekeeping()))) == 1  # the application makes it
    assert asyncio.run(main(lambda: library.use(forever()))) == 1  # the application's own code


def test_the_module_of_an_installed_file_is_known_by_its_path() -> None:
    assert module_of("/a/lib/python3.11/site-packages/redis/asyncio/client.py") == "redis.asyncio.client"
    assert module_of("/usr/lib/python3/dist-packages/redis/__init__.py") == "redis"
    assert module_of("/home/me/app/redis/client.py") == ""


def test_the_errand_answers_with_what_can_be_packed_and_takes_no_argument() -> None:
    async def main() -> None:
        scene = Scene()
        async with memory(scene.app) as (server, watched):
            server.connect().get("/a")
            await server.advance(12)
            report = await watched.leaks.answers["leaks"]({})
            again = msgspec.msgpack.decode(msgspec.msgpack.encode(report), type=LeaksReport)
            assert again.leaks == report.leaks  # type: ignore[attr-defined]
            assert again.leaks[0].stack[-1].function == "forever"
            assert again.descriptors.open > 0
            assert again.growth == []
            with pytest.raises(ErrandError, match="takes no argument"):
                await watched.leaks.answers["leaks"]({"limit": 5})
            scene.end()

    asyncio.run(main())


def test_signatures_are_bounded_and_what_has_no_room_is_counted() -> None:
    bench = Bench()
    ledger = Ledger(bench.bus, bench.clock)
    for number in range(600):
        ledger.add(Signature("task", f"task {number}", "made"), alive=True)
    ledger.add(Signature("task", "task 1", "made"), alive=True)
    ledger.gone(Signature("task", "task 599", "made"))
    assert len(ledger.records) == 500
    assert len(bench.seen(LeakFound)) == 500
    assert ledger.left_out == 100
    assert ledger.found == {**dict.fromkeys(KINDS, 0), "task": 601}
    assert ledger.alive()["task"] == 501


def test_a_fault_of_its_own_is_told_and_does_not_end_the_search() -> None:
    async def main() -> None:
        scene = Scene()
        told: list[str] = []
        async with memory(scene.app) as (server, watched):
            asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context["message"]))
            plain, watched.leaks._afterlife.look = watched.leaks._afterlife.look, _fails  # type: ignore[method-assign]
            await server.advance(6)
            assert told == ["looking for leaks failed"]
            watched.leaks._afterlife.look = plain  # type: ignore[method-assign]
            server.connect().get("/a")
            await server.advance(12)
            assert len(watched.found) == 1
            scene.end()

    asyncio.run(main())


async def _fails() -> None:
    raise LookupError("a bug")


def test_every_hook_is_taken_back_at_the_end() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()

        def state() -> tuple[Any, ...]:
            hooks = (sys.unraisablehook, warnings._showwarnmsg, sys.get_coroutine_origin_tracking_depth())  # type: ignore[attr-defined]
            return (*hooks, list(warnings.filters), loop.get_exception_handler())

        before = state()
        async with memory(Scene().app, origins=True) as (server, watched):
            await server.advance(6)
            assert state() != before
            left = server.runtime.registry.left
            assert left is not None
            watched.leaks.close()
            watched.leaks.close()
            assert state() == before
            assert server.runtime.registry.left is None

    asyncio.run(main())
