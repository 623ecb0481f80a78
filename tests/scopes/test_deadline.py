"""The ambient deadline."""

from __future__ import annotations

import asyncio
import gc
import math
import pickle
import re
import socket
import time
import weakref
from collections.abc import Awaitable, Callable, Iterator
from contextvars import ContextVar, copy_context
from typing import Any

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from sojourn.errors import DeadlineExceeded
from sojourn.events import TaskSurvived
from sojourn.scopes.aborts import aborting
from sojourn.scopes.alarms import Alarms, alarms
from sojourn.scopes.deadline import REQUEST, Deadline, Limit, current_limit, deadline, free, remaining, timeout_at
from sojourn.scopes.work import LADDER

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Iterator[Callable[[Awaitable[Any]], Any]]:
    with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
        yield runner.run


class Hand:
    """The running loop's alarms, with time moved by hand from where it is."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = time.monotonic()
        monkeypatch.setattr("sojourn.scopes.deadline._monotonic", lambda: self.now)
        self.alarms = alarms()
        self.alarms.clock = self  # type: ignore[assignment]
        self.told: list[TaskSurvived] = []
        self.alarms.report = self.told.append

    def monotonic(self) -> float:
        return self.now

    async def move(self, seconds: float) -> None:
        self.now += seconds
        self.alarms._patient = False  # what a stall does is tested apart
        self.alarms.ring()
        for _ in range(4):
            await asyncio.sleep(0)


async def for_ever() -> None:
    await asyncio.get_running_loop().create_future()


def test_a_missed_deadline_raises_a_timeout_that_says_which_one_set_where(run: Any) -> None:
    async def main() -> DeadlineExceeded:
        with pytest.raises(TimeoutError) as caught:
            async with deadline(0.02, "db.save"):
                await for_ever()
        assert isinstance(caught.value, DeadlineExceeded)
        return caught.value

    error = run(main())
    assert (error.deadline, error.seconds) == ("db.save", 0.02)
    assert re.search(r"deadline 'db.save' of 0.02 s passed \(set at .*test_deadline.py:\d+ in .*main\)", str(error))


def test_it_passes_neither_early_nor_much_later(run: Any) -> None:
    async def main() -> float:
        began = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            async with deadline(0.05):
                await for_ever()
        return time.monotonic() - began

    assert 0.049 <= run(main()) < 2.5


def test_what_is_done_in_time_is_not_disturbed(run: Any) -> None:
    async def main() -> None:
        async with deadline(0.05, "a") as scope:
            await asyncio.sleep(0)
            assert 0 < (scope.remaining or 0) <= 0.05
        await asyncio.sleep(0.08)
        assert not len(alarms())

    run(main())


def test_the_earliest_of_nested_deadlines_is_in_force_and_is_the_one_that_is_named(run: Any) -> None:
    async def main() -> None:
        async with deadline(0.03, "outer"), deadline(5.0, "inner"):
            assert (remaining() or 9) <= 0.03
            await for_ever()

    with pytest.raises(DeadlineExceeded, match="'outer'"):
        run(main())


def test_an_inner_deadline_ends_its_own_body_only(run: Any) -> None:
    async def main() -> str:
        async with deadline(5.0, "outer"):
            with pytest.raises(DeadlineExceeded) as caught:
                async with deadline(0.02, "inner"):
                    await for_ever()
            await asyncio.sleep(0.01)
            assert (remaining() or 0) > 4
        return caught.value.deadline

    assert run(main()) == "inner"


@given(lengths=st.lists(st.one_of(st.none(), st.floats(0.5, 1000.0)), min_size=1, max_size=6))
@settings(max_examples=60, deadline=None)
def test_nested_deadlines_never_lengthen(lengths: list[float | None]) -> None:
    async def nest(rest: list[float | None], limit: float) -> None:
        if not rest:
            return
        async with deadline(rest[0], "level"):
            now = remaining()
            left = math.inf if now is None else now
            assert left <= limit
            assert left <= (math.inf if rest[0] is None else rest[0])
            await nest(rest[1:], left)
        after = remaining()
        assert (math.inf if after is None else after) <= limit

    asyncio.run(nest(lengths, math.inf))


def test_a_task_made_inside_is_bound_too_while_the_deadline_is_not_over(run: Any) -> None:
    async def main() -> None:
        async def child() -> str:
            with pytest.raises(DeadlineExceeded) as caught:
                async with deadline(None, "child"):
                    await for_ever()
            return caught.value.deadline

        async with deadline(0.03, "parent"):
            task = asyncio.get_running_loop().create_task(child())
            await asyncio.sleep(0.01)
        # The parent has left in time: what it has begun is not bound any more.
        assert not task.done()
        assert await asyncio.wait((task,), timeout=0.1) == (set(), {task}) or task.done()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    run(main())


def test_a_task_made_inside_misses_the_deadline_of_who_made_it(run: Any) -> None:
    async def main() -> str:
        async def child() -> str:
            with pytest.raises(DeadlineExceeded) as caught:
                async with deadline(9.0, "child"):
                    await for_ever()
            return caught.value.deadline

        async with deadline(0.05, "parent"):
            task = asyncio.get_running_loop().create_task(child())
            try:
                await for_ever()
            except asyncio.CancelledError:
                return await task
        raise AssertionError

    with pytest.raises(DeadlineExceeded) as caught:
        run(main())
    assert caught.value.deadline == "parent"


def test_a_body_that_swallows_the_cancellation_still_misses(run: Any) -> None:
    async def main() -> None:
        async with deadline(0.02, "kept"):
            try:
                await for_ever()
            except asyncio.CancelledError:
                pass

    with pytest.raises(DeadlineExceeded, match="kept"):
        run(main())


def test_a_body_that_goes_on_is_cancelled_again_by_the_ladder_then_aborted_then_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cancels: list[float] = []
    aborts: list[float] = []

    async def main() -> list[TaskSurvived]:
        hand = Hand(monkeypatch)
        began = hand.now
        leave = asyncio.get_running_loop().create_future()

        async def stubborn() -> None:
            async with deadline(1.0, "stubborn"):
                with aborting(lambda: aborts.append(round(hand.now - began, 1))):
                    while not leave.done():
                        try:
                            await asyncio.shield(leave)
                        except asyncio.CancelledError:
                            cancels.append(round(hand.now - began, 1))

        task = asyncio.get_running_loop().create_task(stubborn(), name="the stubborn one")
        await asyncio.sleep(0)
        for _ in range(50):
            await hand.move(0.1)
        leave.set_result(None)
        with pytest.raises(DeadlineExceeded):
            await task
        assert not task.cancelling()
        return hand.told

    told = asyncio.run(main())
    assert cancels == [1.0, *(round(1.0 + rung, 1) for rung in LADDER[:-1])]
    assert aborts == [round(1.0 + rung, 1) for rung in LADDER[:-1]]
    assert [(event.name, event.ended) for event in told] == [("the stubborn one", False), ("the stubborn one", True)]
    assert "stubborn" in told[0].stack
    assert re.match(r"deadline 'stubborn' of 1 s, set at .*test_deadline.py:\d+", told[0].cause)


def test_without_a_server_a_task_that_resists_is_told_to_the_loop() -> None:
    async def main() -> list[str]:
        said: list[str] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: said.append(context["message"]))
        Alarms(loop).tell(TaskSurvived("saver", "deadline", "deadline 'x' of 1 s", 3.0, "  File ...", False))
        return said

    assert asyncio.run(main()) == [
        "task 'saver' does not end 3.0 s after it was cancelled: deadline 'x' of 1 s\n  File ..."
    ]


def test_a_cancellation_from_outside_is_not_taken_for_the_deadline(run: Any) -> None:
    async def main() -> None:
        async def body() -> None:
            async with deadline(5.0):
                await for_ever()

        task = asyncio.get_running_loop().create_task(body())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main())


def test_a_cancellation_from_outside_in_the_same_turn_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        hand = Hand(monkeypatch)

        async def body() -> None:
            async with deadline(1.0):
                await for_ever()

        task = asyncio.get_running_loop().create_task(body())
        await asyncio.sleep(0)
        hand.now += 1.0
        hand.alarms._patient = False
        hand.alarms.ring()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()

    asyncio.run(main())


def test_after_a_miss_the_task_is_as_if_never_cancelled(run: Any) -> None:
    async def main() -> None:
        task = asyncio.current_task()
        assert task is not None
        with pytest.raises(DeadlineExceeded):
            async with deadline(0.01):
                await for_ever()
        assert task.cancelling() == 0
        async with asyncio.timeout(1), asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(0))

    run(main())


def test_with_no_time_left_nothing_is_begun(run: Any) -> None:
    async def main() -> None:
        for scope in (deadline(0, "none"), deadline(-1, "none"), timeout_at(time.monotonic() - 1, "none")):
            with pytest.raises(DeadlineExceeded, match="none"):
                async with scope:
                    raise AssertionError("begun")
        assert current_limit() is None

    run(main())


def test_an_error_of_the_body_is_not_hidden(run: Any) -> None:
    async def main() -> None:
        async with deadline(0.01):
            try:
                await for_ever()
            except asyncio.CancelledError:
                raise KeyError("mine") from None

    with pytest.raises(KeyError, match="mine"):
        run(main())


def test_timeout_at_takes_a_moment_of_the_loop(run: Any) -> None:
    async def main() -> float | None:
        async with timeout_at(asyncio.get_running_loop().time() + 5.0, "then"):
            return remaining()

    assert 4.5 < run(main()) <= 5.01


def test_it_can_be_tightened_and_not_loosened(run: Any) -> None:
    async def main() -> None:
        async with deadline(9.0, "tight") as scope:
            scope.tighten(20.0)
            assert (scope.remaining or 0) < 9.1
            scope.tighten(0.02)
            await for_ever()

    with pytest.raises(DeadlineExceeded, match=r"'tight' of 0.02 s"):
        run(main())


@pytest.mark.parametrize(
    ("wrong", "error"),
    [(lambda: deadline(math.nan), ValueError), (lambda: timeout_at(math.nan), ValueError)],
)
def test_a_length_that_is_no_number_is_refused(wrong: Callable[[], object], error: type[Exception]) -> None:
    with pytest.raises(error):
        wrong()


def test_it_is_entered_once_and_in_a_task(run: Any) -> None:
    async def main() -> None:
        scope = deadline(1.0)
        async with scope:
            with pytest.raises(RuntimeError, match="once"):
                await scope.__aenter__()
        with pytest.raises(RuntimeError, match="once"):
            await scope.__aenter__()
        with pytest.raises(RuntimeError, match="not entered"):
            scope.tighten(1.0)

    run(main())


def test_outside_a_task_it_is_refused() -> None:
    async def main() -> None:
        refused: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        def enter() -> None:
            try:
                deadline(1.0).__aenter__().send(None)
            except RuntimeError as error:
                refused.set_result(str(error))

        asyncio.get_running_loop().call_soon(enter)
        assert "needs a task" in await refused

    asyncio.run(main())


def test_what_outlives_its_request_is_freed_of_everything_around_it(run: Any) -> None:
    async def main() -> float | None:
        async with deadline(0.5):
            context = copy_context()
            context.run(free)
            return await asyncio.get_running_loop().create_task(left(), context=context)

    async def left() -> float | None:
        async with deadline(30.0):
            return remaining()

    assert run(main()) > 20


class Request:
    """A request whose limit moves."""

    def __init__(self, seconds: float) -> None:
        self.limit: Any = self
        self.name, self.seconds, self.where = "handler", seconds, "GET /"
        self.moment = time.monotonic() + seconds

    def bound(self) -> Limit | None:
        return self.limit  # type: ignore[no-any-return]


def test_what_is_left_of_the_request_bounds_too(run: Any) -> None:
    async def main() -> None:
        REQUEST.set(Request(0.03))
        assert (remaining() or 9) <= 0.03
        async with deadline(5.0, "mine"):
            await for_ever()

    with pytest.raises(DeadlineExceeded, match=r"'handler' of 0.03 s passed \(set at GET /\)"):
        run(main())


def test_a_limit_of_the_request_that_went_away_ends_nobody(run: Any) -> None:
    async def main() -> None:
        request = Request(0.03)
        REQUEST.set(request)
        async with deadline(5.0), deadline(None):
            request.limit = None  # the answer has begun
            await asyncio.sleep(0.08)
            assert (remaining() or 0) > 4

    run(main())


def test_in_a_thread_that_got_the_context_the_time_left_is_known(run: Any) -> None:
    async def main() -> float | None:
        async with deadline(5.0):
            return await asyncio.to_thread(remaining)

    assert 4 < run(main()) <= 5


def test_a_generator_that_somebody_else_ends_leaves_nothing_behind() -> None:
    async def main() -> None:
        async def numbers() -> Any:
            async with deadline(5.0):
                yield 1

        generator = numbers()
        await generator.__anext__()
        await asyncio.get_running_loop().create_task(generator.aclose())
        async with deadline(None):
            assert remaining() is None

    asyncio.run(main())


def test_what_arrived_while_the_loop_stood_still_is_read_before_anything_is_judged(run: Any) -> None:
    async def main() -> bytes:
        reader, writer = await asyncio.open_connection(sock=ours)
        async with deadline(0.1, "answer"):
            theirs.sendall(b"in time")
            time.sleep(0.5)  # noqa: ASYNC251 - the loop stands still
            answer = await reader.readexactly(7)
        writer.close()
        await writer.wait_closed()
        return answer

    ours, theirs = socket.socketpair()
    with theirs:
        assert run(main()) == b"in time"


def test_many_that_are_left_early_take_no_room(run: Any) -> None:
    async def main() -> tuple[int, int]:
        for _ in range(5000):
            async with deadline(60.0):
                pass
        return len(alarms()), len(alarms()._heap)

    alive, held = run(main())
    assert alive == 0
    assert held < 200


def test_the_error_can_be_pickled_and_still_says_where() -> None:
    async def main() -> None:
        async with deadline(0.0, "pickled"):
            pass

    with pytest.raises(DeadlineExceeded) as caught:
        asyncio.run(main())
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value)
    assert "test_deadline.py" in again.where


def test_nothing_is_left_for_the_collector(run: Any) -> None:
    async def main() -> int:
        gc.collect()
        before = sum(type(thing) is Deadline for thing in gc.get_objects())
        for _ in range(20):
            async with deadline(5.0):
                pass
            try:
                async with deadline(0.001):
                    await for_ever()
            except DeadlineExceeded:
                pass
        alarms()._heap.clear()  # who has left stands there until its moment
        alarms()._again.clear()
        return sum(type(thing) is Deadline for thing in gc.get_objects()) - before

    gc.disable()
    try:
        assert run(main()) <= 2
    finally:
        gc.enable()


def test_what_was_missed_a_little_early_can_not_be_entered_again(run: Callable[[Awaitable[Any]], Any]) -> None:
    async def main() -> None:
        scope = timeout_at(time.monotonic() + 0.0009)
        with pytest.raises(DeadlineExceeded):
            async with scope:
                pass
        async with deadline(0.0009):
            pass  # a short one of its own is a deadline like any other

    run(main())


def test_what_has_set_a_deadline_is_kept_by_nobody_when_it_has_left(run: Callable[[Awaitable[Any]], Any]) -> None:
    class Thing:
        """Something of a request."""

    held = ContextVar[Thing]("held")

    async def main() -> None:
        async def request(thing: Thing) -> None:
            held.set(thing)
            async with deadline(60.0):
                await asyncio.sleep(0)

        thing = Thing()
        found = weakref.ref(thing)
        await asyncio.create_task(request(thing))
        del thing
        await asyncio.sleep(0)
        assert len(alarms()) == 0
        assert found() is None

    gc.disable()
    try:
        run(main())
    finally:
        gc.enable()
