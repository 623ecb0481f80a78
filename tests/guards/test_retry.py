"""Trying again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import uvloop

from sojourn.clock import ManualClock
from sojourn.errors import CircuitOpen, DeadlineExceeded
from sojourn.guards.breaker import CircuitBreaker
from sojourn.guards.retry import Retry
from sojourn.policy.retry import Backoff, RetryBudget
from sojourn.scopes.deadline import deadline

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
QUICK = Backoff(0.001, 0.002)


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Iterator[Callable[[Awaitable[Any]], Any]]:
    with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
        yield runner.run


class Service:
    """Raises these errors in turn, and answers then."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.calls = 0

    async def __call__(self, answer: str = "done") -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return answer


def make(on: Any = ConnectionError, **more: Any) -> Retry:
    retry = Retry("prices", on, **{"backoff": QUICK, **more})
    retry.chance = lambda: 1.0
    return retry


def counts(retry: Retry) -> dict[str, int]:
    assert retry.running == retry.figures().waiting == 0
    return {word: number for word, number in retry.figures().counts.items() if number}


def notes(error: BaseException) -> str:
    return "\n".join(getattr(error, "__notes__", ()))


def test_what_fails_is_tried_again_until_it_succeeds(run: Any) -> None:
    retry, service = make(), Service(ConnectionError(), ConnectionError())
    assert run(retry.call(service, answer="12")) == "12"
    assert service.calls == 3
    assert counts(retry) == {"retried": 1}


def test_the_last_error_is_raised_with_a_note_that_says_why_there_was_no_other_try(run: Any) -> None:
    errors = [ConnectionError(str(number)) for number in range(5)]
    retry, service = make(), Service(*errors)
    with pytest.raises(ConnectionError, match="2") as caught:
        run(retry.call(service))
    assert notes(caught.value) == "retry 'prices' gave up after 3 of 3 attempts (attempts): there may be no more"
    assert service.calls == 3
    assert counts(retry) == {"attempts": 1}


@pytest.mark.parametrize("on", [ConnectionError, (ConnectionError, OSError), lambda error: error.args == ("again",)])
def test_only_the_errors_that_were_named_are_tried_again(run: Any, on: Any) -> None:
    retry, service = make(on), Service(ConnectionError("again"), ValueError("bad"))
    with pytest.raises(ValueError, match="bad") as caught:
        run(retry.call(service))
    assert service.calls == 2
    assert notes(caught.value) == ""
    assert counts(retry) == {"final": 1}


def test_the_waits_grow(run: Any) -> None:
    retry, service = make(backoff=Backoff(0.01, 1.0)), Service(ConnectionError(), ConnectionError())
    began = time.monotonic()
    run(retry.call(service))
    assert 0.028 <= time.monotonic() - began < 3.0


def test_a_wait_that_does_not_fit_into_the_deadline_is_not_begun(run: Any) -> None:
    retry, service = make(backoff=Backoff(5.0, 5.0)), Service(ConnectionError("first"))

    async def main() -> None:
        async with deadline(1.0, "request"):
            await retry.call(service)

    began = time.monotonic()
    with pytest.raises(ConnectionError, match="first") as caught:
        run(main())
    assert time.monotonic() - began < 3.0
    assert "(deadline): the next is due in 5 s, and " in notes(caught.value)
    assert counts(retry) == {"deadline": 1}


def test_a_deadline_that_passed_in_the_call_ends_it_even_if_timeouts_are_tried_again(run: Any) -> None:
    retry, calls = make(TimeoutError), 0

    async def hang() -> None:
        nonlocal calls
        calls += 1
        async with deadline(None):
            await asyncio.get_running_loop().create_future()

    async def main() -> None:
        async with deadline(0.01, "request"):
            await retry.call(hang)

    with pytest.raises(DeadlineExceeded, match="'request'"):
        run(main())
    assert calls == 1


def test_a_deadline_of_each_try_is_tried_again_while_there_is_time_for_all(run: Any) -> None:
    retry, calls = make(TimeoutError), 0

    async def slow_at_first() -> str:
        nonlocal calls
        calls += 1
        async with deadline(0.01, "prices"):
            if calls < 3:
                await asyncio.get_running_loop().create_future()
        return "done"

    async def main() -> str:
        async with deadline(5.0, "request"):
            return await retry.call(slow_at_first)

    assert run(main()) == "done"
    assert calls == 3


def test_it_waits_as_long_as_it_is_asked_to(run: Any) -> None:
    error = ConnectionError()
    error.retry_after = 0.02  # type: ignore[attr-defined]
    retry, service = make(), Service(error)
    began = time.monotonic()
    run(retry.call(service))
    assert 0.019 <= time.monotonic() - began < 3.0


@pytest.mark.parametrize(("seconds", "tries"), [(0.02, 2), (0.021, 1), (float("inf"), 1)])
def test_it_is_not_asked_to_wait_for_ever(run: Any, seconds: float, tries: int) -> None:
    error = ConnectionError()
    error.response = SimpleNamespace(headers={})  # type: ignore[attr-defined]
    error.retry_after = seconds  # type: ignore[attr-defined]
    retry, service = make(), Service(error)
    if tries > 1:
        run(retry.call(service))
    else:
        with pytest.raises(ConnectionError) as caught:
            run(retry.call(service))
        assert "(retry_after)" in notes(caught.value)
    assert service.calls == tries


def test_when_too_many_calls_are_retries_there_are_no_more(run: Any) -> None:
    clock = ManualClock()
    budget = RetryBudget(share=0.1, per_second=1.0, most=2.0)
    retries = [make(clock=clock, budget=budget), make(clock=clock, budget=budget)]

    async def main() -> list[int]:
        calls = []
        for number in range(60):
            service = Service(*[ConnectionError()] * 5)
            with pytest.raises(ConnectionError):
                await retries[number % 2].call(service)
            calls.append(service.calls)
        return calls

    calls = run(main())
    assert calls[0] == 3
    assert sum(calls) <= 60 + 2 + 6
    clock.advance(2.0)
    service = Service(ConnectionError())
    assert run(retries[0].call(service)) == "done"


def test_a_circuit_that_is_open_is_waited_for_if_it_was_named(run: Any) -> None:
    breaker = CircuitBreaker("prices", open_seconds=0.01)
    breaker.trip()
    retry, service = make(CircuitOpen), Service()

    @retry
    @breaker
    async def price() -> str:
        return await service()

    assert run(price()) == "done"
    assert service.calls == 1


def test_a_cancellation_ends_it_at_each_await(run: Any) -> None:
    async def main() -> None:
        for after in range(8):
            retry, service = make(backoff=Backoff(0.5, 0.5)), Service(ConnectionError())
            retry.chance = lambda: 1.0

            async def call(service: Service = service) -> str:
                await asyncio.sleep(0)
                return await service()

            task = asyncio.create_task(retry.call(call))
            for _ in range(after):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert service.calls <= 1
            assert counts(retry) == ({"cancelled": 1} if after else {})

    run(main())


def test_a_cancellation_in_the_turn_in_which_the_wait_is_over_is_not_lost(run: Any) -> None:
    async def main() -> None:
        retry, service = make(backoff=Backoff(0.001, 0.001)), Service(ConnectionError())
        task = asyncio.create_task(retry.call(service))
        await asyncio.sleep(0)
        assert service.calls == 1
        over = time.monotonic() + 0.003
        while time.monotonic() < over:
            pass  # the timer is due, and rings when the loop turns
        asyncio.get_running_loop().call_soon(task.cancel)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert service.calls == 1

    run(main())


def test_it_tries_once_at_least() -> None:
    with pytest.raises(ValueError, match="at least one"):
        make(attempts=0)


def test_one_attempt_is_no_retry(run: Any) -> None:
    retry, service = make(attempts=1), Service(ConnectionError())
    with pytest.raises(ConnectionError):
        run(retry.call(service))
    assert service.calls == 1
