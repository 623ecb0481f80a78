"""Tasks of the application's own: none outlives its owner, none fails in silence."""

from __future__ import annotations

import asyncio
import gc
import warnings
from collections.abc import Awaitable, Callable, Iterator
from contextvars import ContextVar
from typing import Any

import pytest
import uvloop

from sojourn import current_request
from sojourn.config import Config, Drain, Timeouts
from sojourn.events import ApplicationFailed, TaskFailed, TaskSurvived
from sojourn.scopes.context import SecurityContext, acting_as, current_security
from sojourn.scopes.deadline import deadline, remaining
from sojourn.scopes.snapshot import Inherit
from sojourn.scopes.spawn import Owner, spawn
from sojourn.testing import MemoryClient, MemoryServer
from tests.server.serving import both_loops, serving

ALICE = SecurityContext("alice")
VALUE: ContextVar[str] = ContextVar("VALUE", default="none")
LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Iterator[Callable[[Awaitable[Any]], Any]]:
    with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
        yield runner.run


async def for_ever() -> None:
    await asyncio.get_running_loop().create_future()


async def answer(send: Any, body: bytes = b"") -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


class App:
    """Runs what the test says, and keeps the tasks that it spawns."""

    def __init__(self, body: Callable[[App, Any], Awaitable[None]]) -> None:
        self.body = body
        self.tasks: list[asyncio.Task[Any]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        await self.body(self, send)


def memory(body: Callable[[App, Any], Awaitable[None]], **groups: Any) -> tuple[App, MemoryServer]:
    app = App(body)
    return app, MemoryServer(app, Config(**groups))


async def ask(server: MemoryServer) -> MemoryClient:
    client = server.connect()
    client.get("/work")
    await server.settle()
    return client


# Owners


def test_what_belongs_to_a_request_ends_with_it() -> None:
    async def body(app: App, send: Any) -> None:
        app.tasks.append(spawn(for_ever(), name="watch"))
        await asyncio.sleep(0)
        await answer(send, b"done")

    async def main() -> None:
        app, server = memory(body)
        async with server:
            client = await ask(server)
            assert client.response().body == b"done"
            (task,) = app.tasks
            assert task.cancelled()
            assert not server.work.running
            assert server.seen(TaskFailed) == []

    asyncio.run(main())


def test_what_belongs_to_a_request_ends_when_its_client_has_left() -> None:
    async def body(app: App, send: Any) -> None:
        app.tasks.append(spawn(for_ever()))
        await for_ever()

    async def main() -> None:
        app, server = memory(body)
        async with server:
            client = await ask(server)
            client.peer.reset()
            await server.settle()
            assert not app.tasks[0].done()  # disconnect_grace
            await server.advance(3.2)
            assert app.tasks[0].cancelled()

    asyncio.run(main())


def test_what_resists_its_end_is_named_with_the_request() -> None:
    async def resist() -> None:
        while True:
            try:
                await for_ever()
            except asyncio.CancelledError:
                continue

    async def body(app: App, send: Any) -> None:
        app.tasks.append(spawn(resist(), name="stubborn"))
        await asyncio.sleep(0)
        await answer(send)

    async def main() -> None:
        app, server = memory(body)
        async with server:
            await ask(server)
            await server.advance(3.5)
            (event,) = server.seen(TaskSurvived)
            assert (event.name, event.owner) == ("stubborn", "connection 1 GET /work")
            assert "in resist" in event.stack
            assert server.work.running  # a drain would wait for it
            end_resistance(app.tasks[0])
            await server.settle()

    asyncio.run(main())


def end_resistance(task: asyncio.Task[Any]) -> None:
    coroutine: Any = task.get_coro()
    waits: Any = task._fut_waiter  # type: ignore[attr-defined]
    waits.set_exception(KeyError("enough"))
    del coroutine


def test_what_belongs_to_a_connection_lives_through_its_requests() -> None:
    async def body(app: App, send: Any) -> None:
        if not app.tasks:
            app.tasks.append(spawn(for_ever(), owner="connection"))
        await answer(send)

    async def main() -> None:
        app, server = memory(body)
        async with server:
            client = await ask(server)
            client.get("/work")
            await server.settle()
            (task,) = app.tasks
            assert not task.done()
            client.peer.close()
            await server.settle()
            assert task.cancelled()
            assert server.open == 0

    asyncio.run(main())


def test_a_finished_task_is_forgotten_by_its_connection() -> None:
    async def quick() -> None:
        await asyncio.sleep(0)

    async def body(app: App, send: Any) -> None:
        for _ in range(10):
            spawn(quick(), owner="connection")
        await asyncio.sleep(0)
        await answer(send)

    async def main() -> None:
        _, server = memory(body)
        async with server:
            client = await ask(server)
            await server.settle()
            assert client.connection.on_lost == []

    asyncio.run(main())


def test_a_drain_waits_for_what_belongs_to_the_server_and_cuts_it_at_last() -> None:
    ended: list[str] = []

    async def takes(server: MemoryServer, seconds: float) -> None:
        try:
            await server.sleep(seconds)
            ended.append(f"{seconds:g} s done")
        except asyncio.CancelledError:
            ended.append(f"{seconds:g} s cut")
            raise

    async def main() -> None:
        async def body(app: App, send: Any) -> None:
            spawn(takes(server, 5.0), owner="server", name="short")
            spawn(takes(server, 60.0), owner="server", name="long")
            await answer(send)

        _, server = memory(body)
        async with server:
            client = await ask(server)
            client.peer.close()
            await server.settle()
            assert sorted(server.work.running.values()) == ["the server", "the server"]
            server.drain(0.0)
            await server.advance(29.0)
            assert ended == ["5 s done"]
            await server.advance(2.0)  # drain.requests
            assert ended == ["5 s done", "60 s cut"]

    asyncio.run(main())


@pytest.mark.parametrize("owner", ["request", "connection"])
def test_who_is_over_owns_nothing_new(owner: Owner) -> None:
    problems: list[str] = []

    async def late() -> None:
        await asyncio.sleep(0.01)
        try:
            spawn(for_ever(), owner=owner)
        except RuntimeError as error:
            problems.append(str(error))

    async def main() -> None:
        async def body(app: App, send: Any) -> None:
            app.tasks.append(spawn(late(), owner="server", inherit="all"))
            await answer(send)

        app, server = memory(body)
        async with server:
            await ask(server)
            await app.tasks[0]

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        asyncio.run(main())
        gc.collect()  # a coroutine that was never awaited would be told of
    assert len(problems) == 1
    assert "the request is over" in problems[0]


# What is inherited


@pytest.mark.parametrize(
    ("owner", "inherit", "expected"),
    [
        ("request", None, ("alice", True, "mine", True)),
        ("request", "none", (None, False, "none", False)),
        ("request", "deadline", (None, True, "none", False)),
        ("request", "security", ("alice", False, "none", False)),
        ("connection", None, (None, False, "none", False)),
        ("connection", "security", ("alice", False, "none", False)),
        ("connection", "all", ("alice", False, "mine", True)),
        ("server", None, (None, False, "none", False)),
        ("server", "deadline", (None, True, "none", False)),
        ("server", "security", ("alice", False, "none", False)),
        ("server", "all", ("alice", False, "mine", True)),
    ],
)
def test_a_task_takes_along_what_it_is_told_to(
    owner: Owner, inherit: Inherit | None, expected: tuple[str | None, bool, str, bool]
) -> None:
    async def look() -> tuple[str | None, bool, str, bool]:
        who = current_security()
        return (
            None if who is None else who.principal,
            remaining() is not None,
            VALUE.get(),
            current_request() is not None,
        )

    async def body(app: App, send: Any) -> None:
        VALUE.set("mine")
        with acting_as(ALICE):
            async with deadline(5.0):
                app.tasks.append(spawn(look(), owner=owner, inherit=inherit))
                await app.tasks[0]
        await answer(send)

    async def main() -> None:
        app, server = memory(body, timeouts=Timeouts(response_start=None))
        async with server:
            await ask(server)
            assert app.tasks[0].result() == expected

    asyncio.run(main())


def test_a_request_bounds_what_belongs_to_it() -> None:
    async def look() -> float | None:
        return remaining()

    async def body(app: App, send: Any) -> None:
        for inherit in ("all", "deadline", "security"):
            app.tasks.append(spawn(look(), inherit=inherit))  # type: ignore[arg-type]
        await asyncio.wait(app.tasks)
        await answer(send)

    async def main() -> None:
        app, server = memory(body, timeouts=Timeouts(response_start=7.0))
        async with server:
            await ask(server)
            everything, bounded, unbounded = (task.result() for task in app.tasks)
            assert everything is not None
            assert bounded is not None
            assert unbounded is None

    asyncio.run(main())


# Failures


async def fail() -> None:
    await asyncio.sleep(0)
    raise KeyError("mine")


@pytest.mark.parametrize(
    ("owner", "told"), [("request", "connection 1 GET /work"), ("connection", "connection 1"), ("server", "the server")]
)
def test_a_task_that_fails_is_told_of_with_its_owner(owner: Owner, told: str) -> None:
    async def body(app: App, send: Any) -> None:
        app.tasks.append(spawn(fail(), name="failing", owner=owner))
        await asyncio.wait(app.tasks)
        await answer(send, b"all the same")

    async def main() -> None:
        app, server = memory(body)
        async with server:
            client = await ask(server)
            assert client.response().body == b"all the same"
            (event,) = server.seen(TaskFailed)
            assert (event.name, event.owner) == ("failing", told)
            assert event.error is app.tasks[0].exception()
            assert server.seen(ApplicationFailed) == []

    asyncio.run(main())


def test_its_failure_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    from sojourn.observe.log.messages import Messages

    async def body(app: App, send: Any) -> None:
        spawn(fail(), name="failing")
        await asyncio.sleep(0.01)
        await answer(send)

    async def main() -> None:
        _, server = memory(body)
        messages = Messages(server.bus)
        async with server:
            await ask(server)
            await asyncio.sleep(0.02)
            await server.settle()
        messages.close()

    asyncio.run(main())
    (record,) = [record for record in caplog.records if "failing" in record.getMessage()]
    assert record.getMessage() == "task failing of connection 1 GET /work failed"
    assert record.exc_info is not None


# Without a server


@pytest.mark.parametrize("owner", ["request", "connection"])
def test_without_a_server_a_task_ends_with_the_task_that_calls(run: Any, owner: Owner) -> None:
    async def main() -> None:
        tasks = []

        async def caller() -> None:
            tasks.append(spawn(for_ever(), owner=owner))
            await asyncio.sleep(0)

        await asyncio.get_running_loop().create_task(caller())
        await asyncio.wait(tasks, timeout=5.0)
        assert tasks[0].cancelled()

    run(main())


def test_without_a_server_what_belongs_to_it_is_held_by_the_loop(run: Any) -> None:
    async def main() -> None:
        done = asyncio.Event()

        async def work() -> None:
            for _ in range(3):
                await asyncio.sleep(0)
            done.set()

        spawn(work(), owner="server")
        gc.collect()
        async with asyncio.timeout(5):
            await done.wait()

    run(main())


def test_without_a_server_a_failure_is_told_to_the_loop(run: Any) -> None:
    async def main() -> None:
        told: list[Any] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: told.append(context))
        task = spawn(fail(), name="failing")
        await asyncio.wait([task])
        await asyncio.sleep(0)
        (context,) = told
        assert context["exception"] is task.exception()
        assert "failing" in context["message"]

    run(main())


def test_its_result_and_its_cancellation_are_the_callers(run: Any) -> None:
    async def value() -> int:
        return 7

    async def main() -> None:
        assert await spawn(value()) == 7
        task = spawn(for_ever())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main())


def test_what_can_not_be_spawned_leaves_no_coroutine_behind(run: Any) -> None:
    async def main() -> None:
        with pytest.raises(ValueError, match="owner is one of"):
            spawn(for_ever(), owner="nobody")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="inherit is one of"):
            spawn(for_ever(), inherit="some")  # type: ignore[arg-type]

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(RuntimeError, match="no running event loop"):
            spawn(for_ever())
        run(main())
        gc.collect()


@both_loops
def test_on_a_real_server_nothing_spawned_outlives_it(run: Any) -> None:
    tasks: list[asyncio.Task[Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            raise NotImplementedError
        owners: tuple[Owner, ...] = ("request", "connection", "server")
        tasks.extend(spawn(for_ever(), owner=owner) for owner in owners)
        await asyncio.sleep(0)
        await answer(send, b"hello")

    async def main() -> None:
        async with serving(app, drain=Drain(delay=0.0, requests=0.2, total=1.0)) as served:
            assert (await served.get()).endswith(b"hello")
            await asyncio.wait(tasks[:2], timeout=5.0)
            assert [task.cancelled() for task in tasks] == [True, True, False]
        assert tasks[2].cancelled()

    run(main())
