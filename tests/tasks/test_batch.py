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
    call.batch.stop()


@in_a_loop
async def test_no_more_go_together_than_may() -> None:
    call = Call()
    assert await asyncio.gather(*(call.batch.ask(number) for number in range(25))) == [2 * n for n in range(25)]
    assert [len(batch) for batch in call.batches] == [10, 10, 5]
    call.batch.stop()


@in_a_loop
async def test_while_the_journal_is_away_it_is_tried_again_and_that_is_told() -> None:
    call = Call()
    call.down = 2
    assert await call.batch.ask(4) == 8
    assert call.told == [False, False, True]
    call.batch.stop()


@in_a_loop
async def test_who_has_waited_long_enough_is_not_written_when_the_journal_is_back() -> None:
    call = Call()
    call.down = 2
    given_up, waiting = call.batch.ask(1), call.batch.ask(2)
    await asyncio.sleep(0.005)
    given_up.cancel()
    assert await waiting == 4
    assert call.batches[-1] == [2]
    call.batch.stop()


@in_a_loop
async def test_an_entry_that_can_not_be_written_takes_no_other_with_it() -> None:
    call = Call()
    call.bad = 3
    good, bad = call.batch.ask(1), call.batch.ask(3)
    assert await good == 2
    with pytest.raises(ValueError, match="bad"):
        await bad
    call.batch.stop()


@in_a_loop
async def test_when_it_stops_who_waits_is_told_and_so_is_who_comes_later() -> None:
    for seconds in (0.0, 0.0005, 0.02):  # before, during and after the first call
        call = Call()
        call.down = 1000
        futures = [call.batch.ask(1)]
        await asyncio.sleep(seconds)
        futures.append(call.batch.ask(2))
        call.batch.stop()
        futures.append(call.batch.ask(3))
        async with asyncio.timeout(1):
            for future in futures:
                with pytest.raises(JournalUnavailable):
                    await future
        calls = len(call.batches)
        await asyncio.sleep(0.02)
        assert len(call.batches) == calls


@in_a_loop
async def test_no_more_wait_than_there_is_room_for_and_what_was_given_up_takes_none() -> None:
    call = Call()
    batch: Batch[int, int] = Batch(call, call.launch, "test", lambda error: None, 10, room=20)
    call.down = 1000
    given_up = [batch.ask(number) for number in range(20)]
    refused = batch.ask(20)
    with pytest.raises(JournalUnavailable, match="20 calls wait for it"):
        await refused
    for future in given_up:
        future.cancel()
    await asyncio.sleep(0.06)
    call.down = 0
    assert await asyncio.gather(*(batch.ask(number) for number in range(20))) == [2 * n for n in range(20)]
    batch.stop()


@in_a_loop
async def test_the_answer_to_an_entry_that_was_given_up_during_its_call_is_told_to_its_maker() -> None:
    call = Call()
    late: list[tuple[int, int]] = []
    batch: Batch[int, int] = Batch(
        call, call.launch, "test", lambda error: None, late=lambda entry, answer: late.append((entry, answer))
    )
    future = batch.ask(4)
    await asyncio.sleep(0.0005)
    future.cancel()
    assert await batch.drain(1.0)
    assert late == [(4, 8)]
    batch.stop()


@in_a_loop
async def test_an_engine_that_answers_too_few_is_told_to_who_asked_and_ends_nothing() -> None:
    call = Call()

    async def few(entries: Sequence[int]) -> Sequence[int]:
        return [1 for entry in entries if entry]

    batch: Batch[int, int] = Batch(few, call.launch, "test", lambda error: None)
    bad, good = batch.ask(0), batch.ask(1)
    with pytest.raises(RuntimeError, match="0 answers for 1 entries"):
        await bad
    assert await good == 1
    batch.stop()


@in_a_loop
async def test_it_is_drained_when_all_has_been_answered_and_goes_on_after_that() -> None:
    call = Call()
    assert await call.batch.drain(0.0)
    for number in range(2):
        futures = [call.batch.ask(each) for each in range(number, number + 15)]
        assert not await call.batch.drain(0.0)
        assert await call.batch.drain(1.0)
        assert [future.result() for future in futures] == [2 * each for each in range(number, number + 15)]
    call.batch.stop()


@in_a_loop
async def test_calls_that_are_made_while_it_is_woken_go_together() -> None:
    call = Call()
    assert await call.batch.ask(0) == 0
    assert await asyncio.gather(*(call.batch.ask(number) for number in (1, 2, 3))) == [2, 4, 6]
    assert call.batches == [[0], [1, 2, 3]]
    call.batch.stop()
