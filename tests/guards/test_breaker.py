"""The circuit breaker around calls."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Awaitable, Callable, Iterator
from contextvars import copy_context
from typing import Any

import pytest
import uvloop

from sojourn.bus import Bus
from sojourn.clock import ManualClock
from sojourn.errors import BulkheadFull, CircuitOpen, DeadlineExceeded, GuardRefused
from sojourn.events import CircuitChanged
from sojourn.guards.breaker import CircuitBreaker
from sojourn.guards.registry import GUARDS, Guards
from sojourn.policy.breaker import BreakerThresholds
from sojourn.scopes.deadline import deadline

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Iterator[Callable[[Awaitable[Any]], Any]]:
    with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
        yield runner.run


def make(clock: ManualClock | None = None, **more: Any) -> CircuitBreaker:
    thresholds = BreakerThresholds(minimum=2, slow_seconds=1.0)
    return CircuitBreaker("payments", thresholds, clock=clock or ManualClock(), **more)


def counts(breaker: CircuitBreaker) -> dict[str, int]:
    return {word: number for word, number in breaker.figures().counts.items() if number}


async def fail(error: BaseException) -> None:
    raise error


async def for_ever() -> None:
    await asyncio.get_running_loop().create_future()


async def trial(breaker: CircuitBreaker, error: BaseException) -> None:
    with pytest.raises(type(error)):
        await breaker.call(fail, error)


def test_it_refuses_when_the_dependency_failed_and_says_when_to_try_again(run: Any) -> None:
    clock = ManualClock()
    breaker = make(clock)

    async def main() -> None:
        for _ in range(2):
            await trial(breaker, ConnectionError())
        clock.advance(4.0)
        with pytest.raises(CircuitOpen, match=r"payments: the circuit is open; try again in 6 s") as caught:
            async with breaker:
                raise AssertionError("it was called")
        assert (caught.value.guard, caught.value.retry_after) == ("payments", 6.0)
        assert breaker.state == "open"

    run(main())
    assert counts(breaker) == {"failure": 2, "refused": 1}
    assert breaker.running == 0


def test_it_closes_when_probes_went_well(run: Any) -> None:
    clock = ManualClock()
    breaker = make(clock, probes=1)

    async def main() -> None:
        breaker.trip()
        clock.advance(10.0)
        async with breaker:
            assert breaker.state == "half_open"
            with pytest.raises(CircuitOpen, match="tries whether it can close"):
                await breaker.call(for_ever)

    run(main())
    assert breaker.state == "closed"


def test_all_three_ways_to_use_it_count_the_same(run: Any) -> None:
    breaker = make()

    @breaker
    async def guarded(number: int) -> int:
        """What it does."""
        return number

    async def main() -> None:
        assert await guarded(1) == 1
        assert await breaker.call(guarded.__wrapped__, 2) == 2  # type: ignore[attr-defined]
        async with breaker as entered:
            assert entered is breaker
            assert breaker.running == 1

    run(main())
    assert counts(breaker) == {"success": 3}
    assert guarded.__doc__ == "What it does."


def test_what_is_no_coroutine_function_can_not_be_decorated() -> None:
    async def stream() -> Any:
        yield 1

    for function in (stream, len):
        with pytest.raises(TypeError, match="breaker 'payments' guards functions made with 'async def'"):
            make()(function)


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (ConnectionError(), "failure"),
        (TimeoutError(), "failure"),
        (DeadlineExceeded("payments", 0.3), "failure"),
        (DeadlineExceeded("payments.charge", 0.3), "failure"),
        (DeadlineExceeded("handler", 0.3), "undecided"),
        (DeadlineExceeded("paymentsfoo", 0.3), "undecided"),
        (asyncio.CancelledError(), "undecided"),
        (BulkheadFull("payments", "full"), "undecided"),
        (GeneratorExit(), "undecided"),
    ],
)
def test_what_counts_is_how_the_dependency_did(error: BaseException, outcome: str) -> None:
    breaker = make()
    coroutine = breaker.call(fail, error)
    with pytest.raises(type(error)):
        coroutine.send(None)
    assert counts(breaker) == {outcome: 1}


@pytest.mark.parametrize(
    "failures", [ConnectionError, (ConnectionError, OSError), lambda error: isinstance(error, ConnectionError)]
)
def test_an_error_that_is_no_failure_is_an_answer(run: Any, failures: Any) -> None:
    breaker = make(failures=failures)

    async def main() -> None:
        await trial(breaker, ConnectionError())
        await trial(breaker, LookupError("not found"))

    run(main())
    assert counts(breaker) == {"failure": 1, "success": 1}


def test_a_call_that_takes_long_is_slow_and_slow_ones_open_it(run: Any) -> None:
    clock = ManualClock()
    breaker = make(clock)

    async def main() -> None:
        for _ in range(2):
            async with breaker:
                clock.advance(1.0)

    run(main())
    assert counts(breaker) == {"slow": 2}
    assert breaker.state == "open"


def test_a_dependency_that_never_answers_opens_it_though_only_callers_give_up(run: Any) -> None:
    clock = ManualClock()
    breaker = make(clock)

    async def hang() -> None:
        clock.advance(1.5)
        await for_ever()

    async def main() -> None:
        for _ in range(2):
            with pytest.raises(DeadlineExceeded, match="request"):
                async with deadline(0.01, "request"):
                    await breaker.call(hang)

    run(main())
    assert counts(breaker) == {"slow": 2}
    assert breaker.state == "open"


def test_clients_that_leave_early_and_short_deadlines_around_it_say_nothing(run: Any) -> None:
    breaker = make()

    async def main() -> None:
        for _ in range(5):
            with pytest.raises(DeadlineExceeded, match="request"):
                async with deadline(0.005, "request"), breaker:
                    await for_ever()

    run(main())
    assert counts(breaker) == {"undecided": 5}
    assert breaker.state == "closed"


def test_a_missed_deadline_that_bears_its_name_is_a_failure(run: Any) -> None:
    breaker = make()

    async def main() -> None:
        for _ in range(2):
            with pytest.raises(DeadlineExceeded):
                async with breaker, deadline(0.005, "payments.charge"):
                    await for_ever()

    run(main())
    assert counts(breaker) == {"failure": 2}


def test_a_probe_that_is_cancelled_gives_its_place_to_the_next(run: Any) -> None:
    clock = ManualClock()
    breaker = make(clock, probes=1)

    async def main() -> None:
        breaker.trip()
        clock.advance(10.0)
        probe = asyncio.create_task(breaker.call(for_ever))
        await asyncio.sleep(0)
        with pytest.raises(CircuitOpen):
            await breaker.call(for_ever)
        probe.cancel()
        with pytest.raises(asyncio.CancelledError):
            await probe
        async with breaker:
            pass

    run(main())
    assert breaker.state == "closed"


def test_calls_at_the_same_time_and_in_each_other_are_told_apart(run: Any) -> None:
    clock = ManualClock()
    outer, inner = make(clock), CircuitBreaker("inner", BreakerThresholds(slow_seconds=1.0), clock=clock)

    async def quick() -> None:
        async with outer, inner, outer:
            await asyncio.sleep(0)

    async def slow(began: asyncio.Event, go: asyncio.Event) -> None:
        async with outer:
            began.set()
            await go.wait()
            async with inner:
                pass

    async def main() -> None:
        began, go = asyncio.Event(), asyncio.Event()
        task = asyncio.create_task(slow(began, go))
        await began.wait()
        clock.advance(5.0)
        await quick()
        assert counts(outer) == {"success": 2}
        go.set()
        await task

    run(main())
    assert counts(outer) == {"success": 2, "slow": 1}
    assert counts(inner) == {"success": 2}
    assert (outer.running, inner.running) == (0, 0)


def test_left_in_another_context_than_entered_it_counts_nothing_wrong(run: Any) -> None:
    breaker = make()

    async def stream() -> Any:
        async with breaker:
            yield 1

    async def main() -> None:
        generator = stream()
        await asyncio.create_task(generator.__anext__())
        await asyncio.create_task(generator.aclose())

    run(main())
    assert breaker.running == 0
    assert counts(breaker) == {"undecided": 1}


def test_a_call_leaves_nothing_behind(run: Any) -> None:
    breaker = make()

    class Thing:
        pass

    async def main() -> weakref.ref[Thing]:
        thing = Thing()

        async def fails(given: Thing) -> None:
            raise ConnectionError(given)

        try:
            await breaker.call(fails, thing)
        except ConnectionError:
            pass
        return weakref.ref(thing)

    gc.disable()
    try:
        assert run(main())() is None
    finally:
        gc.enable()


def test_by_hand_it_opens_and_closes(run: Any) -> None:
    breaker = make()

    async def main() -> None:
        breaker.trip()
        with pytest.raises(GuardRefused):
            await breaker.call(for_ever)
        breaker.reset()
        async with breaker:
            pass

    run(main())


def test_guards_know_who_was_used_and_keep_nobody_alive(run: Any) -> None:
    guards = Guards(Bus())

    async def main() -> None:
        GUARDS.set(guards)
        async with make():
            assert [guard.name for guard in guards] == ["payments"]

    copy_context().run(run, main())
    gc.collect()
    assert list(guards) == []


def test_that_it_opens_and_closes_is_told_once_whatever_its_probes_do(run: Any) -> None:
    clock, bus = ManualClock(), Bus()
    breaker, told = make(clock, probes=1), []
    bus.observe(CircuitChanged, told.append)

    async def main() -> None:
        GUARDS.set(Guards(bus))
        for _ in range(2):
            await trial(breaker, ConnectionError())
        for _ in range(3):
            clock.advance(10.0)
            await trial(breaker, ConnectionError())
        clock.advance(10.0)
        async with breaker:
            pass
        breaker.trip()

    copy_context().run(run, main())
    assert told == [
        CircuitChanged("payments", True, "of 2 calls in 60 s 2 failed and 0 were slow"),
        CircuitChanged("payments", False, "the dependency answers again"),
        CircuitChanged("payments", True, "by hand"),
    ]
