"""The tasks of a server: whose they are, where they were made, what they wait for, and who may outlive whom."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from sojourn.config import App, Config, Diagnostics
from sojourn.errors import ErrandError
from sojourn.observe.tasks.census import TaskInfo, Tasks
from sojourn.observe.tasks.outliving import Outliving
from sojourn.scopes.adoption import adopt
from sojourn.testing.server import MemoryClient, MemoryServer
from sojourn.typing import ASGIApp, Message, Scope
from tests.observe.tasks.loops import called, line_of, on_both_loops, run, turns

Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

KEY = "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ=="
#: Tasks that the application of a test makes for itself are kept here, as an application would.
KEPT: set[asyncio.Task[Any]] = set()


async def forever() -> None:
    await asyncio.Event().wait()


async def answer(send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


async def leaks(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers, and leaves a task behind."""
    KEPT.add(asyncio.create_task(forever(), name="left behind"))  # LEAK
    await answer(send)


async def waits(scope: Scope, receive: Receive, send: Send) -> None:
    """Waits for a task of its own before it answers."""
    await asyncio.create_task(forever(), name="child")  # WAITS


class Route:
    path = "/items/{id}"


async def routed(scope: Scope, receive: Receive, send: Send) -> None:
    scope["route"] = Route
    await forever()


async def runs_on(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers, and goes on."""
    await answer(send)
    await forever()


async def listens(scope: Scope, receive: Receive, send: Send) -> None:
    """A WebSocket that makes a task and waits for messages."""
    await receive()
    await send({"type": "websocket.accept"})
    KEPT.add(asyncio.create_task(forever(), name="of the socket"))
    while (await receive())["type"] != "websocket.disconnect":
        pass


@asynccontextmanager
async def served(app: ASGIApp, **diagnostics: Any) -> AsyncIterator[tuple[MemoryServer, Tasks]]:
    config = Config(app=App(lifespan="off"), diagnostics=Diagnostics(**diagnostics))
    server = MemoryServer(app, config)
    await server.start()
    tasks = Tasks(server.site)
    try:
        yield server, tasks
    finally:
        tasks.close()
        for task in KEPT:
            task.cancel()
        await asyncio.gather(*KEPT, return_exceptions=True)
        KEPT.clear()
        await server.stop()
        await server.advance(5)


async def asked(server: MemoryServer, path: str = "/a?token=1") -> MemoryClient:
    client = server.connect()
    client.get(path)
    await turns(12)
    return client


async def late(tasks: Tasks, grace: float) -> list[Outliving]:
    return [found async for found in tasks.outliving(grace)]


@on_both_loops
def test_the_task_of_a_request_and_the_one_it_made_are_told_apart_and_joined(loop: str) -> None:
    async def main() -> None:
        async with served(waits) as (server, tasks):
            await asked(server)
            await server.advance(2.0)
            found = await tasks.list({"stacks": True})
            request, child = called(found, "request"), called(found, "child")
            assert request.owner == child.owner == "connection 1 GET /a"
            assert request.connection == child.connection == 1
            assert request.coroutine == "HttpCycle.run"
            assert request.created == "the server"
            assert child.created == f"{__file__}:{line_of(waits, '# WAITS')} in waits"
            assert request.waits_for == f"task {child.id} (child)"
            assert request.waiting == child.created
            assert child.parent == request.id
            assert child.waits_for == "Event"
            assert child.waiting == f"{__file__}:{line_of(forever, 'wait()')} in forever"
            assert [frame.function for frame in child.stack] == ["Event.wait", "forever"]
            assert child.stack[0].file.endswith("locks.py")
            assert request.age == pytest.approx(2.0, abs=0.3)
            assert child.age == pytest.approx(2.0, abs=0.3)
            assert (request.state, child.state) == ("waiting", "waiting")
            assert not request.retained
            assert not child.retained
            assert found[0].age is None  # the test's own, which was there before anybody noted

    run(main(), loop)


def test_a_task_keeps_its_number() -> None:
    async def main() -> None:
        async with served(waits) as (server, tasks):
            await asked(server)
            numbers = {task.name: task.id for task in await tasks.list({})}
            await asked(server, "/other")
            again = {task.name: task.id for task in await tasks.list({"owner": "/a"})}
            assert again == {name: numbers[name] for name in ("request", "child")}

    run(main())


def test_the_route_is_told_where_the_router_says_it() -> None:
    async def main() -> None:
        async with served(routed) as (server, tasks):
            await asked(server)
            assert called(await tasks.list({}), "request").route == "/items/{id}"

    run(main())


@on_both_loops
def test_a_task_that_outlives_its_request_is_named_with_the_line_that_made_it(loop: str) -> None:
    async def main() -> None:
        async with served(leaks) as (server, tasks):
            client = await asked(server)
            assert client.response().status == 200
            assert await late(tasks, 5.0) == []  # seen for the first time
            await server.advance(4.0)
            assert await late(tasks, 5.0) == []
            await server.advance(2.0)
            (found,) = await late(tasks, 5.0)
            assert found.task.get_name() == "left behind"
            assert str(found.created) == f"{__file__}:{line_of(leaks, '# LEAK')} in leaks"
            assert found.age == pytest.approx(6.0, abs=0.3)
            assert 5.0 <= found.late <= found.age
            task = called(await tasks.list({}), "left behind")
            assert task.retained
            assert task.owner == "connection 1 /a"

    run(main(), loop)


def test_a_task_of_a_request_that_still_runs_is_not_late() -> None:
    async def main() -> None:
        async with served(waits) as (server, tasks):
            await asked(server)
            await server.advance(20.0)
            assert await late(tasks, 0.0) == []

    run(main())


def test_a_task_of_an_application_that_answered_and_runs_on_is_not_late() -> None:
    async def main() -> None:
        async def both(scope: Scope, receive: Receive, send: Send) -> None:
            KEPT.add(asyncio.create_task(forever(), name="helper"))
            await runs_on(scope, receive, send)

        async with served(both) as (server, tasks):
            client = await asked(server)
            assert client.response().complete
            assert await late(tasks, 0.0) == []
            assert called(await tasks.list({}), "request").owner == "connection 1 GET /a"
            client.peer.close()
            await server.advance(1.0)
            running = called(await tasks.list({}), "request")
            assert running.owner == "connection 1 GET /a"

    run(main())


@on_both_loops
def test_an_adopted_task_may_outlive_its_request_and_so_may_what_it_waits_for(loop: str) -> None:
    async def main() -> None:
        async def refreshes() -> None:
            await asyncio.gather(forever())

        async def adopts(scope: Scope, receive: Receive, send: Send) -> None:
            KEPT.add(adopt(asyncio.create_task(refreshes(), name="refresher"), owner="cache refresher"))
            await answer(send)

        async with served(adopts) as (server, tasks):
            await asked(server)
            await server.advance(20.0)
            assert await late(tasks, 0.0) == []
            refresher = called(await tasks.list({}), "refresher")
            assert refresher.owner == "cache refresher"
            assert not refresher.retained
            assert tasks.counts()["request"] == 1  # what it waits for was made by the request

    run(main(), loop)


@on_both_loops
def test_a_websocket_and_its_tasks_belong_to_their_connection(loop: str) -> None:
    async def main() -> None:
        async with served(listens) as (server, tasks):
            client = server.connect()
            client.get("/live", "upgrade: websocket", "connection: upgrade", KEY, "sec-websocket-version: 13")
            await turns(12)
            found = await tasks.list({})
            assert called(found, "of the socket").owner == called(found, "request").owner
            assert called(found, "request").owner.startswith("connection 1 WEBSOCKET /")
            assert called(found, "request").waits_for == "WebSocket message of connection 1"
            assert tasks.counts()["connection"] == 2
            assert await late(tasks, 0.0) == []
            client.peer.close()
            await server.advance(1.0)
            (found_late,) = await late(tasks, 0.0)
            assert found_late.task.get_name() == "of the socket"
            assert called(await tasks.list({}), "of the socket").owner.startswith("connection 1 WEBSOCKET /")

    run(main(), loop)


def test_a_task_that_runs_beside_another_has_its_owner_and_parent() -> None:
    async def main() -> None:
        async def streams(scope: Scope, receive: Receive, send: Send) -> None:
            scope["extensions"]["sojourn"].attend(forever(), "beside")
            await forever()

        async with served(streams) as (server, tasks):
            await asked(server)
            await server.advance(3.0)
            found = await tasks.list({})
            beside, request = called(found, "beside"), called(found, "request")
            assert beside.owner == request.owner == "connection 1 GET /a"
            assert beside.parent == request.id
            assert beside.age == pytest.approx(3.0, abs=0.3)
            assert tasks.counts()["request"] == 2

    run(main())


def test_the_run_of_a_durable_task_is_the_applications_and_has_its_name() -> None:
    async def main() -> None:
        async with served(waits) as (server, tasks):
            runs = server.work.launch(forever(), "task export 4fNx", server.work.context())
            await turns()
            task = called(await tasks.list({"owner": "application"}), "task export 4fNx")
            assert task.owner == "task export 4fNx"
            assert not task.retained
            assert tasks.counts()["server"] == 0
            runs.cancel()

    run(main())


def test_the_servers_own_tasks_are_the_servers() -> None:
    async def main() -> None:
        async with served(waits) as (server, tasks):
            own = server.work.run(forever(), "own")
            await turns()
            task = called(await tasks.list({"owner": "server"}), "own")
            assert (task.owner, task.created, task.connection) == ("the server", "the server", None)
            assert tasks.counts() == {"request": 0, "connection": 0, "server": 1, "application": 1}
            own.cancel()
            await turns()

    run(main())


def test_a_task_made_outside_of_requests_is_the_applications() -> None:
    async def main() -> None:
        async with served(waits) as (_, tasks):
            KEPT.add(asyncio.create_task(forever(), name="housekeeping"))
            await turns()
            task = called(await tasks.list({}), "housekeeping")
            assert (task.owner, task.connection, task.retained) == ("the application", None, False)
            assert "test_a_task_made_outside_of_requests" in task.created

    run(main())


def test_states_are_told_apart() -> None:
    async def main() -> None:
        async def stubborn() -> None:
            try:
                await forever()
            except asyncio.CancelledError:
                await forever()

        async with served(waits) as (_, tasks):
            KEPT.update((asyncio.create_task(stubborn(), name="stubborn"), asyncio.create_task(forever(), name="calm")))
            await turns()
            for task in KEPT:
                if task.get_name() == "stubborn":
                    task.cancel()
            await turns()
            KEPT.add(fresh := asyncio.create_task(forever(), name="fresh"))
            found = {task.name: task.state for task in await tasks.list({})}
            assert found["calm"] == "waiting"
            assert found["stubborn"] == "cancelling"
            assert found["fresh"] == "ready"
            assert "running" in found.values()
            assert not fresh.done()

    run(main())


def test_filters_leave_the_others_out() -> None:
    async def main() -> None:
        async with served(waits) as (server, tasks):
            await asked(server, "/old")
            await server.advance(10.0)
            await asked(server, "/new")
            old = await tasks.list({"older": 5, "owner": "request"})
            assert {task.owner for task in old} == {"connection 1 GET /old"}
            assert {task.name for task in old} == {"request", "child"}
            assert {task.owner for task in await tasks.list({"owner": "/new"})} == {"connection 2 GET /new"}
            assert [task.owner for task in await tasks.list({"limit": 1, "owner": "connection"})] == [old[0].owner]
            ages = [task.age for task in await tasks.list({"owner": "request"})]
            assert ages == sorted(ages, key=lambda age: -(age or 0.0))
            with pytest.raises(ErrandError, match="no filter 'colour'"):
                await tasks.list({"colour": "red"})

    run(main())


def test_the_list_travels_as_messagepack() -> None:
    async def main() -> None:
        async with served(waits) as (server, tasks):
            await asked(server)
            found = await tasks.list({"stacks": True})
            assert msgspec.msgpack.decode(msgspec.msgpack.encode(found), type=list[TaskInfo]) == found

    run(main())


@on_both_loops
def test_the_goroutine_profile_puts_equal_tasks_together(loop: str) -> None:
    async def main() -> None:
        async with served(waits) as (server, tasks):
            for _ in range(5):
                await asked(server)
            await server.advance(2.0)
            profile = await tasks.profiles["goroutine"]({})
            (child,) = (sample for sample in profile.samples if dict(sample.labels).get("wait") == "Event")
            assert child.values[0] == 5
            assert child.values[1] == pytest.approx(10_000, rel=0.2)
            assert [frame.function for frame in child.stack] == ["Event.wait", "forever"]
            labels = dict(child.labels)
            assert (labels["owner"], labels["state"]) == ("request", "waiting")
            assert "in waits" in str(labels["created"])
            assert sum(sample.values[0] for sample in profile.samples) == 11
            assert profile.comments[-1] == "attribution: on"

    run(main(), loop)


def test_switched_off_nothing_is_noted_and_the_tasks_are_listed_all_the_same() -> None:
    async def main() -> None:
        async with served(waits, tasks=False) as (server, tasks):
            await asked(server)
            assert tasks.attribution == "off"
            assert asyncio.get_running_loop().get_task_factory() is None
            found = await tasks.list({})
            assert called(found, "request").owner == "connection 1 GET /a"
            assert (called(found, "child").owner, called(found, "child").created) == ("the application", "")
            with pytest.raises(ErrandError, match=r"diagnostics\.tasks"):
                await tasks.profiles["block"]({})

    run(main())


def test_ten_thousand_tasks_are_looked_at_in_slices() -> None:
    async def main() -> None:
        async with served(waits) as (_, tasks):
            KEPT.update(asyncio.create_task(forever()) for _ in range(10_000))
            await turns()
            clock = iter(range(10**9))
            # Each reading of the clock is half a slice later: a look that goes on regardless is found by counting.
            tasks._monotonic = lambda: next(clock) / 2000
            rounds = 0

            async def beat() -> None:
                nonlocal rounds
                while True:
                    await asyncio.sleep(0)
                    rounds += 1

            KEPT.add(asyncio.create_task(beat()))
            assert len(await tasks.list({"owner": "nobody"})) == 0
            listed, rounds = rounds, 0
            await tasks.profiles["goroutine"]({})
            assert min(listed, rounds) > 10_000 / 8 / 4

    run(main())


def test_of_many_tasks_the_count_is_that_of_the_call_before() -> None:
    async def main() -> None:
        async with served(waits) as (_, tasks):
            assert tasks.counts()["application"] == 1
            KEPT.update(asyncio.create_task(forever()) for _ in range(2500))
            assert tasks.counts()["application"] == 1
            await turns(6)
            assert tasks.counts()["application"] == 2501

    run(main())
