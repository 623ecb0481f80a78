"""Connections that live on after their end are found, with what holds them; those that a task holds are not."""

from __future__ import annotations

import asyncio
import gc
import sys
import types
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any

import msgspec
import pytest

from sojourn.net.connection import Connection
from sojourn.observe.leaks.afterlife import Afterlife
from sojourn.observe.leaks.holders import Held, path_to, search
from sojourn.observe.leaks.ledger import Ledger
from sojourn.observe.tasks.census import Tasks
from sojourn.testing.server import MemoryServer
from tests.observe.leaks.scene import answer, real, requests_only
from tests.server.serving import Run, both_loops, until

KEPT: list[Any] = []


@pytest.fixture(autouse=True)
def _emptied() -> Any:
    gc.unfreeze()  # a server that another test ran in this process has frozen all there was
    yield
    KEPT.clear()


@asynccontextmanager
async def scene(keep: Callable[[Any], object]) -> AsyncIterator[tuple[MemoryServer, Afterlife, Ledger, list[Any]]]:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        keep(scope)
        await answer(send)

    async with MemoryServer(requests_only(app)) as server:
        ledger = Ledger(server.bus, server.clock)
        tasks = Tasks(server.site)
        afterlife = Afterlife(server.site, ledger)
        await afterlife.look()  # from here on it listens
        try:
            yield server, afterlife, ledger, server.events
        finally:
            afterlife.close()
            tasks.close()


async def visit(server: MemoryServer, times: int = 6) -> None:
    """Connections that come and go."""
    for _ in range(times):
        client = server.connect()
        client.get("/a")
        await server.settle()
        client.peer.close()
        await server.settle()
        del client


@both_loops
def test_connections_that_are_let_go_are_gone_without_the_collector(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sojourn.observe.leaks.afterlife._GRACE", 0.0)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await answer(send)

    async def main() -> None:
        async with real(app) as (served, watched):
            afterlife = watched.leaks._afterlife
            await afterlife.look()
            gc.collect()
            gc.disable()
            try:
                for _ in range(6):
                    await served.get("/a")
                await until(lambda: not served.connections)
                await afterlife.look()
                assert len(afterlife._leaving) == 6
                await afterlife.look()
                assert afterlife.retained == 0
            finally:
                gc.enable()

    run(main())


def test_those_that_are_kept_are_told_with_the_path_that_holds_them_after_half_a_minute() -> None:
    async def main() -> None:
        async with scene(KEPT.append) as (server, afterlife, ledger, _):
            await visit(server)
            await server.advance(6)
            await afterlife.look()
            assert afterlife.retained == 0
            await server.advance(6)
            await afterlife.look()
            assert afterlife.retained == 6
            assert ledger.records == {}
            await server.advance(30)
            await afterlife.look()
            (record,) = ledger.records.values()
            assert (record.kind, record.known, record.alive) == ("connection", 6, 6)
            assert record.holder.startswith(f"{__name__}.KEPT -> list -> dict[")
            assert record.created.startswith(f"{__file__}:")
            assert record.owner.endswith("/a")
            KEPT.clear()
            gc.collect()
            await afterlife.look()
            assert record.alive == 0
            assert afterlife.retained == 0

    asyncio.run(main())


def test_one_or_two_are_not_worth_a_search() -> None:
    async def main() -> None:
        async with scene(KEPT.append) as (server, afterlife, ledger, _):
            await visit(server, 4)
            await server.advance(6)
            await afterlife.look()
            await server.advance(60)
            await afterlife.look()
            assert afterlife.retained == 4
            assert ledger.records == {}

    asyncio.run(main())


def test_those_whose_task_runs_on_are_left_to_the_search_for_tasks() -> None:
    async def main() -> None:
        def start(scope: Any) -> None:
            KEPT.append(asyncio.ensure_future(asyncio.sleep(3600)))

        async with scene(start) as (server, afterlife, ledger, _):
            await visit(server)
            await server.advance(6)
            await afterlife.look()
            await server.advance(60)
            await afterlife.look()
            assert afterlife.retained == 6
            assert ledger.records == {}
            for task in KEPT:
                task.cancel()

    asyncio.run(main())


def test_those_that_wait_for_the_collector_are_no_leak() -> None:
    async def main() -> None:
        def tangle(scope: Any) -> None:
            knot: list[Any] = [scope]
            knot.append(knot)

        async with scene(tangle) as (server, afterlife, ledger, _):
            gc.collect()
            gc.disable()
            try:
                await visit(server)
                await server.advance(6)
                await afterlife.look()
                await server.advance(60)
                await afterlife.look()
                assert afterlife.retained == 6
                assert afterlife.unreachable == 1
                assert ledger.records == {}
            finally:
                gc.enable()

    asyncio.run(main())


def test_whoever_listened_to_the_registry_before_still_hears() -> None:
    async def main() -> None:
        async with scene(lambda scope: None) as (server, afterlife, _, __):
            heard: list[int] = []

            def listen(connection: Connection) -> None:
                heard.append(connection.id)

            server.runtime.registry.left = listen
            await afterlife.look()
            await visit(server, 2)
            assert heard == [1, 2]
            afterlife.close()
            assert server.runtime.registry.left is listen

    asyncio.run(main())


class Thing:
    """Something to be held. Its kind of holder has a slot."""


class Slotted:
    __slots__ = ("kept",)

    def __init__(self, kept: object) -> None:
        self.kept = kept


class Holds:
    attribute: Any = None


def test_a_path_begins_with_a_variable_of_a_module() -> None:
    KEPT.append({"a": Slotted(Thing())})
    assert path_to(KEPT[0]["a"].kept) == Held(
        f"{__name__}.KEPT -> list -> dict['a'] -> Slotted.kept -> Thing", __name__, "KEPT"
    )


def test_a_path_begins_with_a_class() -> None:
    Holds.attribute = [Thing()]
    assert path_to(Holds.attribute[0]).path.startswith(f"class {__name__}.Holds -> ")
    Holds.attribute = None


def test_a_path_begins_with_a_waiting_coroutine_or_generator() -> None:
    def generate() -> Any:
        mine = Thing()
        yield weakref.ref(mine)
        yield mine

    generator = generate()
    thing = next(generator)()
    path = path_to(thing).path
    assert path.startswith(f"variable 'mine' of {generate.__qualname__}, which waits at {__file__}:")


def test_what_nobody_holds_has_no_path() -> None:
    def tangled() -> weakref.ref[Thing]:
        thing = Thing()
        thing.myself = thing  # type: ignore[attr-defined]
        return weakref.ref(thing)

    gc.disable()
    try:
        assert msgspec.msgpack.decode(search([tangled()]), type=Held) == Held()
    finally:
        gc.enable()


def raised() -> tuple[ValueError, weakref.ref[Thing]]:
    """An error whose traceback holds a thing."""
    thing = Thing()
    try:
        raise ValueError
    except ValueError as error:
        return error, weakref.ref(thing)


def test_a_traceback_that_somebody_keeps_is_part_of_the_path() -> None:
    error, reference = raised()
    KEPT.append(error)
    thing = reference()
    assert thing is not None
    path = path_to(thing).path
    assert path.startswith(f"{__name__}.KEPT -> list -> ValueError -> traceback -> a variable of raised at {__file__}:")


def test_a_traceback_that_waits_for_the_collector_holds_nothing() -> None:
    gc.disable()
    try:
        error, reference = raised()
        error.myself = error  # type: ignore[attr-defined]
        del error
        assert reference() is not None
        assert msgspec.msgpack.decode(search([reference]), type=Held) == Held()
    finally:
        gc.enable()


def test_a_task_that_has_ended_holds_only_for_whoever_keeps_it() -> None:
    variable: ContextVar[Any] = ContextVar("variable")
    things: list[weakref.ref[Thing]] = []

    async def end() -> None:
        thing = Thing()
        things.append(weakref.ref(thing))
        variable.set([thing, asyncio.current_task()])

    async def main() -> None:
        KEPT.append(asyncio.create_task(end()))
        await asyncio.wait(KEPT)

    gc.disable()
    try:
        asyncio.run(main())
        assert path_to(things[0]()).path.startswith(f"{__name__}.KEPT -> list -> Task -> ")
        KEPT.clear()
        assert things[0]() is not None
        assert msgspec.msgpack.decode(search(things), type=Held) == Held()
    finally:
        gc.enable()


def test_what_the_collector_has_frozen_is_searched_as_well() -> None:
    module = types.ModuleType("frozen_for_a_test")
    module.KEPT = [Thing()]  # type: ignore[attr-defined]
    sys.modules[module.__name__] = module
    try:
        gc.freeze()
        held = msgspec.msgpack.decode(search([weakref.ref(module.KEPT[0])]), type=Held)  # type: ignore[attr-defined]
        assert held.module == "frozen_for_a_test"
    finally:
        gc.unfreeze()
        del sys.modules[module.__name__]


def test_a_younger_one_that_goes_while_the_others_are_searched_for_does_no_harm(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def found(*_: object, timeout: float) -> bytes:
        KEPT.pop()
        gc.collect()
        return msgspec.msgpack.encode(Held("module.KEPT -> list", "", "KEPT"))

    monkeypatch.setattr("sojourn.observe.leaks.afterlife.in_child", found)

    async def main() -> None:
        async with scene(KEPT.append) as (server, afterlife, ledger, _):
            await visit(server)
            await server.advance(6)
            await afterlife.look()
            await server.advance(24)
            await visit(server, 1)
            await afterlife.look()
            await server.advance(6)
            await afterlife.look()
            await server.advance(6)
            await afterlife.look()
            (record,) = ledger.records.values()
            assert record.known == 6

    asyncio.run(main())
