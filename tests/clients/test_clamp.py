"""What all clients share: the shortest of all limits, one total for several steps, waits for pools."""

from __future__ import annotations

import asyncio
import pickle

import pytest

from sojourn.clients.clamp import PoolWait, Total, clamped
from sojourn.errors import DeadlineExceeded, PoolWaitExceeded
from sojourn.scopes.deadline import current_limit, deadline, exceeded, passed, remaining
from tests.clients.scene import budgets, run, took


@pytest.mark.parametrize(
    ("around", "budget", "own", "shortest"),
    [
        (None, None, None, None),
        (0.3, None, None, 0.3),
        (None, 0.2, None, 0.2),
        (None, None, 0.1, 0.1),
        (0.3, 0.2, 0.1, 0.1),
        (0.3, 0.2, 0.9, 0.2),
        (0.1, 0.2, 0.9, 0.1),
    ],
)
def test_a_call_may_take_the_shortest_of_all_limits(
    around: float | None, budget: float | None, own: float | None, shortest: float | None
) -> None:
    async def main() -> None:
        if budget is not None:
            budgets(billing=budget)
        async with deadline(around, "pay"), clamped("billing", own):
            left = remaining()
            assert (left is None) == (shortest is None)
            if left is not None and shortest is not None:
                assert shortest - 0.05 < left <= shortest

    run(main())


def test_all_steps_have_one_total_and_the_time_between_them_counts() -> None:
    async def main() -> None:
        budgets(billing=0.1)
        total = Total("billing")
        async with total.first:
            assert total.begin() is not None
        async with total.step():
            pass
        await asyncio.sleep(0.06)
        with took(0.0, 0.3), pytest.raises(DeadlineExceeded, match=r"'billing' of 0\.1 s passed") as raised:
            async with total.step():
                await asyncio.sleep(5)
        assert "test_clamp.py" in raised.value.where
        assert passed(total.limit)
        with pytest.raises(DeadlineExceeded):
            async with total.step():
                pass

    run(main())


def test_a_wait_for_a_pool_is_told_as_one() -> None:
    async def main() -> None:
        async def wait() -> None:
            async with deadline(0.02, "pay"):
                with PoolWait("billing"):
                    await asyncio.sleep(5)

        with pytest.raises(
            PoolWaitExceeded, match="waited for a connection of pool 'billing': deadline 'pay'"
        ) as raised:
            await wait()
        assert raised.value.pool == "billing"
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        copy = pickle.loads(pickle.dumps(raised.value))
        assert (type(copy), str(copy)) == (PoolWaitExceeded, str(raised.value))

    run(main())


def test_a_cancellation_from_outside_is_not_taken_for_the_deadlines() -> None:
    async def main() -> None:
        async def wait() -> None:
            async with deadline(5, "pay"):
                with PoolWait("billing"):
                    await asyncio.sleep(5)

        task = asyncio.ensure_future(wait())
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main())


def test_an_error_of_the_wait_itself_is_not_changed() -> None:
    async def main() -> None:
        with pytest.raises(OSError, match="refused"), PoolWait("billing"):
            raise OSError("refused")
        async with deadline(5, "pay"):
            limit = current_limit()
            assert limit is not None
            assert not passed(limit)
            assert str(exceeded(limit)).startswith("deadline 'pay' of 5 s passed")
        assert not passed(None)

    run(main())
