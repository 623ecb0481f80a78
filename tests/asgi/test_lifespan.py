"""Lifespan: the application starts before anybody is served and stops after the last, and nothing of it is lost."""

from __future__ import annotations

import asyncio
import contextvars
import functools
from collections.abc import Callable
from typing import Any, Literal

import pytest

from sojourn.asgi import lifespan as module
from sojourn.asgi.lifespan import Lifespan
from sojourn.bus import Bus
from sojourn.clock import SystemClock
from sojourn.errors import ApplicationError, StartupError
from sojourn.events import LifespanFailed, TaskSurvived
from sojourn.net.ticker import Ticker
from sojourn.scopes.work import Work


class Scene:
    """A lifespan on a running loop."""

    def __init__(self, app: Any, mode: Literal["auto", "on", "off"] = "auto") -> None:
        loop = asyncio.get_running_loop()
        self.ticker = Ticker(SystemClock())
        self.ticker.start(loop, lambda _: None)
        self.events: list[Any] = []
        bus = Bus()
        bus.observe(LifespanFailed, self.events.append)
        bus.observe(TaskSurvived, self.events.append)
        self.work = Work(loop, self.ticker, bus, contextvars.copy_context())
        self.lifespan = Lifespan(app, self.work, bus, mode)


def in_loop(test: Callable[..., Any]) -> Callable[..., None]:
    """Run a test as the only task of a loop, and see that it leaves no other behind."""

    async def main(fixtures: dict[str, Any]) -> None:
        await test(**fixtures)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    @functools.wraps(test)  # pytest reads the signature through it
    def run(**fixtures: Any) -> None:
        asyncio.run(main(fixtures))

    return run


async def ordinary(scope: Any, receive: Any, send: Any) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


@in_loop
async def test_startup_and_shutdown_are_said_once_each_with_a_shared_state() -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope["type"], scope["asgi"]))
        scope["state"]["pool"] = "a pool"
        seen.append(await receive())
        await send({"type": "lifespan.startup.complete"})
        seen.append(await receive())
        await send({"type": "lifespan.shutdown.complete"})

    scene = Scene(app)
    await scene.lifespan.startup(1)
    assert scene.lifespan.state == {"pool": "a pool"}
    assert len(seen) == 2
    assert await scene.lifespan.shutdown(1) is None
    assert await scene.lifespan.shutdown(1) is None
    assert seen == [
        ("lifespan", {"version": "3.0", "spec_version": "2.0"}),
        {"type": "lifespan.startup"},
        {"type": "lifespan.shutdown"},
    ]
    assert scene.events == []


@in_loop
async def test_without_a_limit_it_waits() -> None:
    scene = Scene(ordinary)
    await scene.lifespan.startup(None)
    assert await scene.lifespan.shutdown(None) is None


@in_loop
async def test_what_is_set_in_a_lifespan_is_seen_by_nobody_else() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="clean")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        variable.set("leaked")
        await ordinary(scope, receive, send)

    scene = Scene(app)
    await scene.lifespan.startup(1)

    async def request() -> str:
        return variable.get()

    assert await scene.work.run(request(), "a request") == "clean"
    assert variable.get() == "clean"
    await scene.lifespan.shutdown(1)


# -- applications without lifespan


async def unaware(scope: Any, receive: Any, send: Any) -> None:
    raise ValueError("only HTTP here")


async def returning(scope: Any, receive: Any, send: Any) -> None:
    return


@pytest.mark.parametrize("app", [unaware, returning])
@in_loop
async def test_an_application_that_knows_no_lifespan_is_served_all_the_same(app: Any) -> None:
    scene = Scene(app)
    await scene.lifespan.startup(1)
    assert await scene.lifespan.shutdown(1) is None
    assert scene.events == []


@pytest.mark.parametrize(
    ("app", "why"), [(unaware, "ValueError: only HTTP here at .*test_lifespan.py:"), (returning, "it returned")]
)
@in_loop
async def test_when_lifespan_is_on_that_is_an_error(app: Any, why: str) -> None:
    with pytest.raises(StartupError, match=f"does not run a lifespan: {why}"):
        await Scene(app, "on").lifespan.startup(1)


@in_loop
async def test_when_lifespan_is_off_the_application_is_not_asked() -> None:
    scene = Scene(unaware, "off")
    await scene.lifespan.startup(1)
    assert await scene.lifespan.shutdown(1) is None


@in_loop
async def test_an_error_after_the_startup_message_was_read_is_told() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        raise ConnectionRefusedError("no database")

    scene = Scene(app)
    await scene.lifespan.startup(1)
    (event,) = scene.events
    assert (event.phase, type(event.error)) == ("startup", ConnectionRefusedError)
    assert event.problem.startswith("raised in its startup and is served without lifespan: ConnectionRefusedError: no")


# -- startups that fail


@in_loop
async def test_a_failed_startup_is_one_line_that_says_why_and_where() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "Traceback (most recent call last):\n  ...\nE: no"})
        raise LookupError("no database\nand more")

    with pytest.raises(StartupError) as caught:
        await Scene(app, "on").lifespan.startup(1)
    assert str(caught.value).startswith("the application's startup failed: LookupError: no database at ")
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value.__cause__, LookupError)


@pytest.mark.parametrize(
    ("message", "why"),
    [
        ("Traceback (most recent call last):\n  File ...\nE: no\n", "E: no"),
        ("no licence", "no licence"),
        (None, "no message"),
    ],
)
@in_loop
async def test_without_an_error_its_message_says_why(message: str | None, why: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed"} | ({"message": message} if message else {}))

    with pytest.raises(StartupError, match=f"^the application's startup failed: {why}$"):
        await Scene(app).lifespan.startup(1)


@in_loop
async def test_an_exit_inside_the_startup_is_a_failed_startup_and_not_the_end_of_the_loop() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        raise SystemExit("DATABASE_URL is not set")

    with pytest.raises(StartupError, match="SystemExit: DATABASE_URL is not set"):
        await Scene(app, "on").lifespan.startup(1)


@in_loop
async def test_a_startup_that_takes_too_long_is_cancelled() -> None:
    cancelled = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError as error:
            cancelled.append(str(error))
            raise

    with pytest.raises(StartupError, match=r"took longer than 0.05 s \(timeouts.lifespan_startup\)"):
        await Scene(app).lifespan.startup(0.05)
    assert cancelled == ["lifespan_startup"]


@in_loop
async def test_a_startup_that_resists_is_named_and_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sojourn.scopes.work.LADDER", (0.1, 0.2))
    monkeypatch.setattr(module, "_PATIENCE", 0.5)
    go = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while not go.is_set():
            try:
                await go.wait()
            except asyncio.CancelledError:
                pass  # what a careless application does

    scene = Scene(app)
    with pytest.raises(StartupError, match="took longer"):
        await scene.lifespan.startup(0.05)
    assert [(event.owner, event.ended) for event in scene.events] == [("lifespan", False)]
    go.set()
    await asyncio.sleep(0)
    await asyncio.sleep(0)


@in_loop
async def test_cancelling_the_startup_ends_the_applications_task() -> None:
    started = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        started.set()
        await asyncio.Event().wait()

    scene = Scene(app)
    starting = scene.work.run(scene.lifespan.startup(10), "starting")
    await started.wait()
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting


# -- shutdowns that fail


async def up(receive: Any, send: Any) -> None:
    """Start, and come back when the server stops."""
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()


@in_loop
async def test_a_failed_shutdown_is_told() -> None:
    async def failing(scope: Any, receive: Any, send: Any) -> None:
        await up(receive, send)
        await send({"type": "lifespan.shutdown.failed", "message": "the queue is not empty"})

    async def raising(scope: Any, receive: Any, send: Any) -> None:
        await up(receive, send)
        raise RuntimeError("no")

    for app, words in (
        (failing, "failed to stop: the queue is not empty"),
        (raising, "raised while it stopped: Runtime"),
    ):
        scene = Scene(app)
        await scene.lifespan.startup(1)
        problem = await scene.lifespan.shutdown(1)
        assert problem is not None
        assert problem.startswith(f"the application {words}")
        (event,) = scene.events
        assert event.phase == "shutdown"
        assert f"the application {event.problem}" == problem


@in_loop
async def test_a_shutdown_that_takes_too_long_is_cancelled_and_told() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await up(receive, send)
        await asyncio.Event().wait()

    scene = Scene(app)
    await scene.lifespan.startup(1)
    problem = await scene.lifespan.shutdown(0.05)
    assert problem == "the application took longer than 0.05 s to stop (timeouts.lifespan_shutdown)"
    assert scene.events[0].phase == "shutdown"


@in_loop
async def test_an_application_that_does_not_return_after_its_shutdown_is_cancelled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_RETURN", 0.05)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while True:
            message = await receive()
            await send({"type": f"{message['type']}.complete"})

    scene = Scene(app)
    await scene.lifespan.startup(1)
    assert await scene.lifespan.shutdown(1) is None


@in_loop
async def test_a_lifespan_that_dies_while_it_is_served_is_told_at_once() -> None:
    die = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await die.wait()
        raise RuntimeError("the poller broke")

    scene = Scene(app)
    await scene.lifespan.startup(1)
    die.set()
    for _ in range(3):
        await asyncio.sleep(0)
    (event,) = scene.events
    assert event.phase == "serving"
    assert "the poller broke" in event.problem
    assert await scene.lifespan.shutdown(1) is None


@in_loop
async def test_cancelling_the_shutdown_ends_the_applications_task() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await up(receive, send)
        await asyncio.Event().wait()

    scene = Scene(app)
    await scene.lifespan.startup(1)
    stopping = scene.work.run(scene.lifespan.shutdown(10), "stopping")
    await asyncio.sleep(0.01)
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopping


@in_loop
async def test_a_message_that_is_no_answer_is_refused() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        with pytest.raises(ApplicationError, match=r"'http.response.start' is no answer"):
            await send({"type": "http.response.start"})
        await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.startup.complete"})  # twice means once
        await receive()
        await send({"type": "lifespan.shutdown.complete"})

    scene = Scene(app)
    await scene.lifespan.startup(1)
    assert await scene.lifespan.shutdown(1) is None
