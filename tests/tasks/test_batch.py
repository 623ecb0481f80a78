"""Calls that go together."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from sojourn.errors import JournalUnavailable
from sojourn.tasks.batch import Batch
from tests.tasks.stand_ins import in_a_loop


class Call:
    """Doubles numbers, and writes down what came together."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.told: list[bool] = []
        self.down = 0
        self.bad: int | None = None
        self.batch: Batch[int, int] = Batch(
            self, self.launch, "test", lambda error: self.told.append(error is None), 10
        )

    def launch(self, coroutine: Any, name: str) -> Any:
        return asyncio.get_running_loop().create_task(coroutine, name=name)

    async def __call__(self, entries: Sequence[int]) -> Sequence[int]:
        self.batches.append(list(entries))
        await asyncio.sleep(0.001)
        if self.down:
            self.down -= 1
            raise JournalUnavailable("gone")
        if self.bad in entries:
            raise ValueError("bad")
        return [2 * entry for entry in entries]


@in_a_loop
async def test_calls_of_one_turn_and_of_the_time_a_call_takes_go_together() -> None:
    call = Call()
    first = [call.batch.ask(number) for number in range(3)]
    await asyncio.sleep(0.0005)
    second = [call.batch.ask(number) for number in range(3, 5)]
    assert await asyncio.gather(*first, *second) == [0, 2, 4, 6, 8]
    assert call.batches == [[0, 1, 2], [3, 4]]


@in_a_loop
async def test_no_more_go_together_than_may() -> None:
    call = Call()
    assert await asyncio.gather(*(call.batch.ask(number) for number in range(25))) == [2 * n for n in range(25)]
    assert [len(batch) for batch in call.batches] == [10, 10, 5]


@in_a_loop
async def test_while_the_journal_is_away_it_is_tried_again_and_that_is_told() -> None:
    call = Call()
    call.down = 2
    assert await call.batch.ask(4) == 8
    assert call.told == [False, False, True]


@in_a_loop
async def test_who_has_waited_long_enough_is_not_written_when_the_journal_is_back() -> None:
    call = Call()
    call.down = 2
    given_up, waiting = call.batch.ask(1), call.batch.ask(2)
    await asyncio.sleep(0.005)
    given_up.cancel()
    assert await waiting == 4
    assert call.batches[-1] == [2]


@in_a_loop
async def test_an_entry_that_can_not_be_written_takes_no_other_with_it() -> None:
    call = Call()
    call.bad = 3
    good, bad = call.batch.ask(1), call.batch.ask(3)
    assert await good == 2
    with pytest.raises(ValueError, match="bad"):
        await bad


@in_a_loop
async def test_when_it_stops_who_waits_is_cancelled() -> None:
    call = Call()
    call.down = 1000
    future = call.batch.ask(1)
    await asyncio.sleep(0.005)
    call.batch.stop()
    await asyncio.sleep(0)
    assert future.cancelled()
