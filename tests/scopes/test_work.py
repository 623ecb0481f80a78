"""Owned tasks and the ladder that ends them."""

from __future__ import annotations

import asyncio
import gc
import re
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextvars import ContextVar, copy_context

import pytest

from sojourn.bus import Bus
from sojourn.clock import ManualClock
from sojourn.events import TaskSurvived
from sojourn.net.ticker import TICK, Ticker
from sojourn.scopes.work import LADDER, Work, attend, stack_of

WHO: ContextVar[str] = ContextVar("WHO", default="nobody")


class Scene:
    """Work on a ManualClock."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.clock = ManualClock()
        self.ticker = Ticker(self.clock)
        self.bus = Bus()
        self.survived: list[TaskSurvived] = []
        self.bus.observe(TaskSurvived, self.survived.append)
        self.work = Work(self.loop, self.ticker, self.bus, copy_context())
        self.cancellations: list[float] = []
        self.began = self.ticker.now

    async def advance(self, seconds: float) -> None:
        await self.turns()
        for _ in range(round(seconds / TICK)):
            self.clock.advance(TICK)
            self.ticker.tick()
            await self.turns()

    async def turns(self) -> None:
        for _ in range(4):
            await asyncio.sleep(0)

    async def swallow(self, times: int) -> None:
        """An application that swallows so many cancellations."""
        while True:
            try:
                await self.loop.create_future()
            except asyncio.CancelledError:
                self.cancellations.append(round(self.ticker.now - self.began, 1))
                if len(self.cancellations) > times:
                    raise

    def clean_up(self, seconds: float) -> Awaitable[None]:
        done = self.loop.create_future()
        self.ticker.call_later(seconds, lambda: done.done() or done.set_result(None))
        return done


def play(scene: Callable[[Scene], Awaitable[None]]) -> Scene:
    async def main() -> Scene:
        stage = Scene()
        await scene(stage)
        return stage

    return asyncio.run(main())


# --- the ladder


def test_one_that_ends_is_cancelled_once_and_not_named() -> None:
    async def scene(stage: Scene) -> None:
        task = stage.work.start(stage.swallow(0))
        await stage.turns()
        stage.work.cancel(task, "client_closed_request", "connection 1 GET /")
        await stage.advance(5.0)
        assert task.cancelled()
        assert stage.work.running == {}

    stage = play(scene)
    assert stage.cancellations == [0.0]
    assert stage.survived == []


@pytest.mark.parametrize("times", [1, 2, 3])
def test_one_that_swallows_is_cancelled_again_on_the_timer(times: int) -> None:
    async def scene(stage: Scene) -> None:
        task = stage.work.start(stage.swallow(times))
        await stage.turns()
        stage.work.cancel(task, "client_closed_request", "connection 1 GET /")
        await stage.advance(5.0)
        assert task.cancelled()

    stage = play(scene)
    assert stage.cancellations == pytest.approx([0.0, *LADDER][: times + 1], abs=0.35)
    assert [event.ended for event in stage.survived] == []


def test_one_that_resists_for_ever_is_named_with_its_stack_and_then_left_alone() -> None:
    async def scene(stage: Scene) -> None:
        task = stage.work.start(stage.swallow(1000))
        await stage.turns()
        stage.work.cancel(task, "handler_deadline", "connection 7 GET /slow")
        await stage.advance(LADDER[-1] - 0.1)  # the ladder never counts too fast
        assert stage.survived == []
        await stage.advance(30.0)
        assert stage.work.running == {task: "connection 7 GET /slow"}
        (named,) = stage.survived
        assert (named.owner, named.cause, named.ended) == ("connection 7 GET /slow", "handler_deadline", False)
        assert named.seconds == pytest.approx(LADDER[-1], abs=0.35)
        assert "swallow" in named.stack
        assert "create_future()" in named.stack
        assert len(stage.cancellations) == len(LADDER)
        stage.cancellations += [0.0] * 1000
        task.cancel()
        await stage.turns()
        assert stage.work.running == {}

    stage = play(scene)
    assert [(event.ended, event.stack) for event in stage.survived[1:]] == [(True, "")]
    assert stage.survived[1].seconds == pytest.approx(33.0, abs=0.3)


@pytest.mark.parametrize("seconds", [0.1, 0.3])
def test_a_clean_up_shorter_than_the_first_gap_is_not_disturbed(seconds: float) -> None:
    log: list[str] = []

    async def scene(stage: Scene) -> None:
        async def app() -> None:
            try:
                await stage.loop.create_future()
            finally:
                await stage.clean_up(seconds)
                log.append("clean")

        task = stage.work.start(app())
        await stage.turns()
        stage.work.cancel(task, "client_closed_request", "connection 1 GET /")
        await stage.advance(2.0)
        assert task.cancelled()

    play(scene)
    assert log == ["clean"]


def test_the_loop_is_not_kept_busy_by_one_that_resists() -> None:
    async def scene(stage: Scene) -> None:
        task = stage.work.start(stage.swallow(1000))
        await stage.turns()
        stage.work.cancel(task, "handler_deadline", "connection 1 GET /")
        for _ in range(1000):
            await asyncio.sleep(0)  # time stands still: nothing is due
        assert len(stage.cancellations) == 1
        stage.cancellations += [0.0] * 1000
        task.cancel()
        await stage.turns()

    play(scene)


def test_the_cause_is_the_message_of_the_cancellation() -> None:
    messages: list[object] = []

    async def scene(stage: Scene) -> None:
        async def app() -> None:
            try:
                await stage.loop.create_future()
            except asyncio.CancelledError as error:
                messages.extend(error.args)
                raise

        task = stage.work.start(app())
        await stage.turns()
        stage.work.cancel(task, "client_closed_request", "connection 1 GET /")
        await stage.turns()

    play(scene)
    assert messages == ["client_closed_request"]


def test_a_grace_lets_it_end_by_itself() -> None:
    async def scene(stage: Scene) -> None:
        leave = stage.loop.create_future()

        async def app() -> None:
            await leave

        task = stage.work.start(app())
        await stage.turns()
        stage.work.cancel(task, "client_closed_request", "connection 1 GET /", grace=3.0)
        await stage.advance(2.8)
        assert not task.cancelling()
        assert task in stage.work.running
        leave.set_result(None)
        await stage.turns()
        assert task.done()
        assert not task.cancelled()
        assert stage.work.running == {}

    play(scene)


def test_after_its_grace_it_is_cancelled_and_the_ladder_counts_from_then() -> None:
    async def scene(stage: Scene) -> None:
        task = stage.work.start(stage.swallow(1))
        await stage.turns()
        stage.work.cancel(task, "client_closed_request", "connection 1 GET /", grace=3.0)
        await stage.advance(6.0)
        assert task.cancelled()

    assert play(scene).cancellations == pytest.approx([3.0, 3.5], abs=0.35)


def test_a_second_call_can_shorten_a_grace_and_not_lengthen_it() -> None:
    async def scene(stage: Scene) -> None:
        first, second = (stage.work.start(stage.swallow(5)) for _ in range(2))
        await stage.turns()
        for task in (first, second):
            stage.work.cancel(task, "client_closed_request", "", grace=3.0)
        stage.work.cancel(first, "drain_forced", "")
        assert first.cancelling() == 1
        stage.work.cancel(second, "client_closed_request", "", grace=60.0)
        await stage.advance(3.4)
        assert second.cancelling() == 1
        stage.cancellations += [0.0] * 10
        for task in (first, second):
            task.cancel()
        await stage.turns()

    play(scene)


def test_cancelling_what_has_ended_does_nothing() -> None:
    async def scene(stage: Scene) -> None:
        async def app() -> None:
            pass

        task = stage.work.start(app())
        await stage.turns()
        stage.work.cancel(task, "client_closed_request", "")
        assert stage.work.running == {}

    play(scene)


def test_ten_thousand_cancelled_tasks_leave_nothing_behind() -> None:
    async def scene(stage: Scene) -> None:
        async def app() -> None:
            await stage.loop.create_future()

        async def round_of(number: int) -> None:
            tasks = [stage.work.start(app()) for _ in range(number)]
            await stage.turns()
            for task in tasks:
                stage.work.cancel(task, "client_closed_request", "connection 1 GET /")
            await stage.turns()
            assert all(task.cancelled() for task in tasks)
            tasks.clear()

        tracemalloc.start()
        try:
            await round_of(10_000)  # tables of the loop and of ours grow once
            gc.collect()
            before, _ = tracemalloc.get_traced_memory()
            await round_of(10_000)
            gc.collect()
            after, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert after - before < 100_000, f"{after - before} bytes are still held, and no time has passed"

    play(scene)


# --- owners and contexts


def test_each_task_has_a_context_of_its_own() -> None:
    seen: list[str] = []

    async def scene(stage: Scene) -> None:
        async def app(name: str) -> None:
            seen.append(WHO.get())
            WHO.set(name)

        WHO.set("the caller")
        stage.work.start(app("alice"))
        stage.work.spawn(app("bob"), "bob")
        await stage.work.run(app("carol"), "carol")
        await stage.turns()
        assert WHO.get() == "the caller"

    play(scene)
    assert seen == ["nobody"] * 3


def test_what_the_server_owns_is_listed_until_it_ends() -> None:
    async def scene(stage: Scene) -> None:
        empty: list[int] = []
        leave = stage.loop.create_future()

        async def app() -> None:
            await asyncio.shield(leave)

        request = stage.work.start(app())
        assert stage.work.running == {}  # its connection's, not the server's
        stage.work.own(request, "connection 1 GET /")
        service = stage.work.spawn(app(), "service")
        stage.work.on_empty = lambda: empty.append(1)
        assert stage.work.running == {request: "connection 1 GET /", service: "the server"}
        leave.set_result(None)
        await stage.turns()
        assert stage.work.running == {}
        assert empty == [1]

    play(scene)


def test_an_owned_task_that_fails_is_not_reported_as_never_retrieved() -> None:
    reported: list[object] = []

    async def scene(stage: Scene) -> None:
        stage.loop.set_exception_handler(lambda _, context: reported.append(context))

        async def app() -> None:
            raise ValueError("a bug")

        task = stage.work.start(app())
        stage.work.own(task)
        await stage.turns()
        del task
        gc.collect()

    play(scene)
    assert reported == []


def test_a_stack_shows_where_a_task_stands_through_all_its_awaits() -> None:
    async def scene(stage: Scene) -> None:
        async def innermost() -> None:
            await stage.loop.create_future()

        async def outermost() -> None:
            await innermost()

        task = stage.work.start(outermost())
        await stage.turns()
        stack = stack_of(task)
        assert stack.index("outermost") < stack.index("innermost") < stack.index("create_future")
        task.cancel()
        await stage.turns()
        assert stack_of(task) == ""

    play(scene)


# -- tasks beside another


def test_the_stack_of_a_task_goes_through_asynchronous_generators() -> None:
    async def innermost() -> None:
        await asyncio.get_running_loop().create_future()

    async def pieces() -> AsyncIterator[bytes]:
        yield b"one"
        await innermost()

    async def streams() -> None:
        async for _ in pieces():
            pass

    async def main() -> None:
        task = asyncio.create_task(streams())
        await asyncio.sleep(0.01)
        stack = stack_of(task)
        task.cancel()
        assert re.findall(r"in (\w+)\n", stack) == ["streams", "pieces", "innermost"]

    asyncio.run(main())


def test_a_task_beside_another_has_its_context_and_does_not_outlive_it() -> None:
    async def main() -> None:
        scene = Scene()
        seen: list[str] = []

        async def beside() -> None:
            seen.append(WHO.get())
            try:
                await scene.loop.create_future()
            except asyncio.CancelledError as error:
                seen.append(str(error))
                raise

        async def host() -> None:
            WHO.set("host")
            scene.work.attend(beside(), "beside", "connection 1")
            await asyncio.sleep(0)

        await scene.work.start(host())
        await scene.turns()
        assert seen == ["host", "completed"]
        assert scene.work.running == {}

    asyncio.run(main())


def test_a_task_beside_another_that_resists_is_named() -> None:
    async def main() -> None:
        scene = Scene()

        async def host() -> None:
            scene.work.attend(scene.swallow(9), "beside", "connection 1")
            await asyncio.sleep(0)

        await scene.work.start(host())
        await scene.advance(LADDER[-1] + 0.5)
        assert [(event.name, event.owner) for event in scene.survived] == [("beside", "connection 1")]
        (task,) = scene.work.running
        for _ in range(9):
            task.cancel()
            await scene.turns()

    asyncio.run(main())


def test_a_task_beside_another_that_is_in_its_clean_up_is_left_in_peace_first() -> None:
    async def main() -> None:
        scene = Scene()
        cleaned: list[str] = []

        async def beside() -> None:
            try:
                await scene.loop.create_future()
            finally:
                await scene.clean_up(0.2)
                cleaned.append("whole")

        async def host() -> None:
            task = scene.work.attend(beside(), "beside", "connection 1")
            await asyncio.sleep(0)
            task.cancel()

        await scene.work.start(host())
        await scene.advance(1)
        assert cleaned == ["whole"]

    asyncio.run(main())


def test_a_task_beside_another_may_end_first_whatever_it_raises() -> None:
    async def main() -> None:
        complaints: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))

        async def fails() -> None:
            raise LookupError

        async def host() -> None:
            attend(fails(), "beside")
            await asyncio.sleep(0)
            await asyncio.sleep(0)

        await asyncio.create_task(host())
        gc.collect()
        assert complaints == []

    asyncio.run(main())


def test_nothing_runs_beside_no_task() -> None:
    async def main() -> None:
        async def beside() -> None:
            """Never run."""

        failed: list[BaseException] = []

        def call() -> None:
            coroutine = beside()
            try:
                attend(coroutine, "beside")
            except RuntimeError as error:
                failed.append(error)
            coroutine.close()

        asyncio.get_running_loop().call_soon(call)
        await asyncio.sleep(0.01)
        assert len(failed) == 1

    asyncio.run(main())
