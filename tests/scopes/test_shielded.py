"""Clean-ups that nothing interrupts."""

from __future__ import annotations

import asyncio

import pytest

from sojourn.errors import DeadlineExceeded
from sojourn.scopes.deadline import deadline, remaining
from sojourn.scopes.shielded import shielded


async def for_ever() -> None:
    await asyncio.get_running_loop().create_future()


def test_a_clean_up_ends_before_its_caller_is_cancelled() -> None:
    done: list[str] = []

    async def give_back() -> None:
        await asyncio.sleep(0.03)
        done.append("given back")

    async def body() -> None:
        try:
            await for_ever()
        finally:
            await shielded(give_back(), 1.0)
            done.append("unreachable")

    async def main() -> None:
        task = asyncio.get_running_loop().create_task(body())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.sleep(0.01)
        task.cancel()  # again, in the middle of it
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert done == ["given back"]


def test_the_deadline_around_it_does_not_bound_it_and_is_still_missed() -> None:
    async def give_back() -> float | None:
        left = remaining()
        await asyncio.sleep(0.03)
        return left

    async def main() -> None:
        left: float | None = None
        try:
            async with deadline(0.02, "save"):
                try:
                    await for_ever()
                finally:
                    left = await shielded(give_back(), 2.0)
        finally:
            assert left is not None
            assert 1.5 < left <= 2.0

    with pytest.raises(DeadlineExceeded, match="save"):
        asyncio.run(main())


def test_it_has_a_deadline_of_its_own() -> None:
    async def main() -> None:
        async with deadline(5.0):
            await shielded(for_ever(), 0.02, "give back")

    with pytest.raises(DeadlineExceeded, match="give back"):
        asyncio.run(main())


def test_its_result_and_its_errors_are_the_callers() -> None:
    async def fail() -> None:
        raise KeyError("mine")

    async def value() -> int:
        return 7

    assert asyncio.run(shielded(value(), 1.0)) == 7
    with pytest.raises(KeyError, match="mine"):
        asyncio.run(shielded(fail(), 1.0))


def test_without_a_bound_it_is_refused() -> None:
    with pytest.raises(ValueError, match="above zero"):
        asyncio.run(shielded(for_ever(), 0.0))
