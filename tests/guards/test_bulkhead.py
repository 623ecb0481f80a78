"""The bulkhead, and the line that it and the workers stand on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from sojourn.errors import BulkheadFull, DeadlineExceeded
from sojourn.guards.bulkhead import Bulkhead
from sojourn.guards.line import Line
from sojourn.scopes.deadline import Deadline, deadline

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Iterator[Callable[[Awaitable[Any]], Any]]:
    with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
        yield runner.run


class Jobs:
    """Calls that stay in a bulkhead until they are told to leave."""

    def __init__(self, bulkhead: Bulkhead) -> None:
        self.bulkhead = bulkhead
        self.inside: list[int] = []
        self.order: list[int] = []
        self.go: dict[int, asyncio.Event] = {}
        self.tasks: dict[int, asyncio.Task[None]] = {}

    async def _stay(self, number: int) -> None:
        async with self.bulkhead:
            self.inside.append(number)
            self.order.append(number)
            try:
                await self.go[number].wait()
            finally:
                self.inside.remove(number)

    async def come(self, *numbers: int) -> None:
        for number in numbers:
            self.go[number] = asyncio.Event()
            self.tasks[number] = asyncio.create_task(self._stay(number))
        await turns()

    async def leave(self, *numbers: int) -> None:
        for number in numbers:
            self.go[number].set()
        await turns()


async def turns() -> None:
    for _ in range(6):
        await asyncio.sleep(0)


def assert_empty(bulkhead: Bulkhead) -> None:
    assert (bulkhead.running, bulkhead.waiting) == (0, 0)


def test_so_many_run_so_many_wait_and_the_next_is_refused(run: Any) -> None:
    bulkhead = Bulkhead("search", 2, queue=1, wait=5.0)

    async def main() -> None:
        jobs = Jobs(bulkhead)
        await jobs.come(1, 2, 3)
        assert (jobs.inside, bulkhead.running, bulkhead.waiting) == ([1, 2], 2, 1)
        with pytest.raises(BulkheadFull, match="search: 2 calls run and 1 wait, as many as may"):
            await bulkhead.call(turns)
        await jobs.leave(1, 2, 3)
        assert jobs.order == [1, 2, 3]

    run(main())
    assert_empty(bulkhead)
    assert bulkhead.figures().counts == {"ran": 3, "full": 1, "waited": 0}


def test_without_a_line_what_can_not_run_is_refused_at_once(run: Any) -> None:
    bulkhead = Bulkhead("search", 1)

    async def main() -> None:
        async with bulkhead:
            with pytest.raises(BulkheadFull):
                async with bulkhead:
                    raise AssertionError("it ran")

    run(main())
    assert_empty(bulkhead)


def test_who_waits_comes_in_order_and_nobody_overtakes(run: Any) -> None:
    bulkhead = Bulkhead("search", 1, queue=10, wait=5.0)

    async def main() -> None:
        jobs = Jobs(bulkhead)
        await jobs.come(1, 2, 3)
        jobs.go[1].set()
        await jobs.come(4)  # in the turn in which 2 gets the slot
        assert jobs.inside == [2]
        await jobs.leave(2, 3, 4)
        assert jobs.order == [1, 2, 3, 4]

    run(main())
    assert_empty(bulkhead)


def test_who_waits_too_long_is_refused(run: Any) -> None:
    bulkhead = Bulkhead("search", 1, queue=1, wait=0.01)

    async def main() -> None:
        async with bulkhead:
            with pytest.raises(BulkheadFull, match=r"search: no place in 0.01 s: 1 calls run"):
                await bulkhead.call(turns)

    run(main())
    assert_empty(bulkhead)
    assert bulkhead.figures().counts == {"ran": 1, "full": 0, "waited": 1}


def test_the_ambient_deadline_ends_a_wait_and_is_the_one_that_is_named(run: Any) -> None:
    bulkhead = Bulkhead("search", 1, queue=1, wait=5.0)

    async def main() -> None:
        async with bulkhead:
            with pytest.raises(DeadlineExceeded, match="'request'"):
                async with deadline(0.01, "request"), bulkhead:
                    raise AssertionError("it ran")

    run(main())
    assert_empty(bulkhead)


def test_a_task_that_was_made_inside_a_deadline_waits_no_longer_than_it(run: Any) -> None:
    bulkhead = Bulkhead("search", 1, queue=1, wait=5.0)

    async def main() -> None:
        waiters: list[asyncio.Task[None]] = []

        async def request() -> None:
            async with deadline(0.01, "request"):
                waiters.append(asyncio.create_task(bulkhead.call(turns)))
                await asyncio.wait(waiters)

        async with bulkhead:
            with pytest.raises(DeadlineExceeded, match="'request'"):
                await request()
            with pytest.raises(DeadlineExceeded, match="'request'"):
                await waiters[0]

    run(main())
    assert_empty(bulkhead)


def test_nobody_waits_whose_deadline_has_passed(run: Any) -> None:
    bulkhead = Bulkhead("search", 1, queue=1, wait=5.0)

    async def late(scope: Deadline) -> None:
        while (scope.remaining or 0.0) > 0.0:
            pass  # nothing else runs meanwhile
        with pytest.raises(DeadlineExceeded, match="'request'"):
            await bulkhead.call(turns)

    async def main() -> None:
        async with bulkhead, deadline(0.005, "request") as scope:
            await late(scope)

    run(main())
    assert_empty(bulkhead)


def test_a_slot_that_comes_after_the_deadline_is_not_used(run: Any) -> None:
    bulkhead = Bulkhead("search", 1, queue=1, wait=5.0)
    ran: list[bool] = []

    async def job() -> None:
        ran.append(True)

    async def late() -> None:
        with pytest.raises(DeadlineExceeded, match="'request'"):
            async with deadline(0.005, "request"):
                await bulkhead.call(job)

    async def main() -> None:
        async with bulkhead:
            task = asyncio.create_task(late())
            await turns()
            scope = deadline(0.02)
            async with scope:
                while (scope.remaining or 0.0) > 0.005:
                    pass  # its moment comes while nothing can run
        await task

    run(main())
    assert_empty(bulkhead)
    assert ran == []


def test_who_is_cancelled_leaves_the_line(run: Any) -> None:
    bulkhead = Bulkhead("search", 1, queue=5, wait=5.0)

    async def main() -> None:
        jobs = Jobs(bulkhead)
        await jobs.come(1, 2, 3)
        jobs.tasks[2].cancel()
        await turns()
        assert bulkhead.waiting == 1
        await jobs.leave(1, 3)
        assert jobs.order == [1, 3]

    run(main())
    assert_empty(bulkhead)


def test_a_slot_that_comes_in_the_turn_of_a_cancellation_goes_to_the_next(run: Any) -> None:
    async def main(cancel_first: bool) -> None:
        bulkhead = Bulkhead("search", 1, queue=5, wait=5.0)
        jobs = Jobs(bulkhead)
        await jobs.come(1, 2, 3)

        def give() -> None:
            bulkhead._line.leave()

        bulkhead._slots.running += 1  # a slot besides, given back by hand
        bulkhead._slots.limit += 1
        steps = [jobs.tasks[2].cancel, give] if cancel_first else [give, jobs.tasks[2].cancel]
        for step in steps:
            step()
        await turns()
        assert jobs.inside == [1, 3]
        await jobs.leave(1, 3)
        assert jobs.tasks[2].cancelled()
        assert_empty(bulkhead)

    run(main(True))
    run(main(False))


def test_cancelled_at_each_of_its_awaits_nothing_is_lost(run: Any) -> None:
    async def main() -> None:
        for after in range(12):
            for leaver in (False, True):
                bulkhead = Bulkhead("search", 1, queue=5, wait=5.0)
                jobs = Jobs(bulkhead)
                await jobs.come(1)
                task = asyncio.create_task(bulkhead.call(turns))
                for turn in range(after):
                    if leaver and turn == 1:
                        jobs.go[1].set()
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.wait([task])
                await jobs.leave(1)
                assert_empty(bulkhead)
                async with bulkhead:
                    pass

    run(main())


STEPS = st.lists(st.tuples(st.sampled_from(["come", "leave", "cancel", "turn"]), st.integers(0, 9)), max_size=60)


@given(steps=STEPS, limit=st.integers(1, 3), queue=st.integers(0, 4))
@settings(max_examples=80, deadline=None)
def test_whatever_happens_no_slot_is_lost_and_no_more_run_than_may(
    steps: list[tuple[str, int]], limit: int, queue: int
) -> None:
    async def main() -> None:
        bulkhead = Bulkhead("search", limit, queue=queue, wait=60.0)
        jobs, come = Jobs(bulkhead), 0
        for step, which in steps:
            if step == "come":
                come += 1
                jobs.go[come] = asyncio.Event()
                jobs.tasks[come] = asyncio.create_task(jobs._stay(come))
            elif step == "leave" and jobs.inside:
                jobs.go[jobs.inside[which % len(jobs.inside)]].set()
            elif step == "cancel" and jobs.tasks:
                list(jobs.tasks.values())[which % len(jobs.tasks)].cancel()
            elif step == "turn":
                await asyncio.sleep(0)
            assert len(jobs.inside) <= bulkhead.running <= limit
            assert bulkhead.waiting <= queue
        for event in jobs.go.values():
            event.set()
        await asyncio.gather(*jobs.tasks.values(), return_exceptions=True)
        assert_empty(bulkhead)
        assert jobs.order == sorted(jobs.order)

    asyncio.run(main())


def test_decorated_all_calls_share_the_room(run: Any) -> None:
    bulkhead = Bulkhead("search", 1)

    @bulkhead
    async def find(text: str) -> str:
        assert bulkhead.running == 1
        return text

    assert run(find("tea")) == "tea"
    assert_empty(bulkhead)


@pytest.mark.parametrize(("limit", "queue", "wait"), [(0, 0, 1.0), (1, -1, 1.0), (1, 1, 0.0)])
def test_a_line_without_room_or_time_is_an_error(limit: int, queue: int, wait: float) -> None:
    with pytest.raises(ValueError, match="at once"):
        Bulkhead("search", limit, queue=queue, wait=wait)


def test_a_line_can_be_awaited_until_it_is_empty_and_that_can_be_cancelled(run: Any) -> None:
    async def main() -> None:
        line = Line("jobs", 1, 1, None)
        assert await line.enter() is None
        first, second = asyncio.create_task(line.empty()), asyncio.create_task(line.empty())
        await turns()
        first.cancel()
        await turns()
        assert (first.cancelled(), second.done()) == (True, False)
        line.leave()
        await second
        await line.empty()

    run(main())
