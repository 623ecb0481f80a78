"""What every engine does: the same calls, against memory and against a real Redis."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from sojourn.clock import ManualClock
from sojourn.guards.rates.memory import MemoryRates
from sojourn.guards.rates.redis import RedisRates
from sojourn.policy.rate import Demand, Standing, standing

_NUMBERS = itertools.count()


class Engine(Protocol):
    """An engine whose clock the test moves."""

    clock: ManualClock

    async def take(self, *demands: Demand) -> list[Standing]: ...


class InMemory:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.rates = MemoryRates(clock=self.clock)

    async def take(self, *demands: Demand) -> list[Standing]:
        return list(await self.rates.take(demands))

    async def aclose(self) -> None:
        await self.rates.aclose()


class InRedis:
    def __init__(self, url: str) -> None:
        self.clock = ManualClock()
        self.rates = RedisRates(url, prefix=f"test{next(_NUMBERS)}:")

    async def take(self, *demands: Demand) -> list[Standing]:
        """The script as it is, with the test's time in place of that of Redis."""
        reply = await self.rates._ask(demands, repr(self.clock.monotonic()))
        return [standing(float(used), each, bool(reply[0])) for used, each in zip(reply[1:], demands, strict=True)]

    async def aclose(self) -> None:
        await self.rates.aclose()


@pytest.fixture(params=["memory", "redis"])
def run(request: pytest.FixtureRequest) -> Callable[[Callable[[Engine], Awaitable[None]]], None]:
    """Runs a test with an engine of its own."""

    def run(test: Callable[[Engine], Awaitable[None]]) -> None:
        async def main() -> None:
            url = request.getfixturevalue("redis_server").url if request.param == "redis" else ""
            engine: Any = InRedis(url) if url else InMemory()
            try:
                await test(engine)
            finally:
                await engine.aclose()

        asyncio.run(main())

    return run


Run = Callable[[Callable[[Engine], Awaitable[None]]], None]


def ask(key: str = "k", rate: float = 1.0, burst: float = 3.0, cost: float = 1.0) -> Demand:
    return Demand(key, rate, burst, cost)


async def allowed(engine: Engine, *demands: Demand) -> bool:
    return all(each.wait == 0.0 for each in await engine.take(*demands))


def test_a_burst_and_then_the_rate(run: Run) -> None:
    async def test(engine: Engine) -> None:
        assert [await allowed(engine, ask()) for _ in range(4)] == [True, True, True, False]
        assert await engine.take(ask()) == [Standing(0.0, 1.0, 3.0)]
        engine.clock.advance(1.0)
        assert [await allowed(engine, ask()) for _ in range(2)] == [True, False]
        engine.clock.advance(60.0)
        assert await engine.take(ask()) == [Standing(2.0, 0.0, 1.0)]

    run(test)


def test_keys_are_counted_apart(run: Run) -> None:
    async def test(engine: Engine) -> None:
        assert await allowed(engine, ask("a", cost=3))
        assert not await allowed(engine, ask("a"))
        assert await allowed(engine, ask("b", cost=3))

    run(test)


def test_a_refusal_takes_nothing_from_the_others(run: Run) -> None:
    async def test(engine: Engine) -> None:
        assert await allowed(engine, ask("a", cost=3))
        for _ in range(3):
            standings = await engine.take(ask("b"), ask("a"), ask("new"))
            assert standings == [Standing(3.0, 0.0, 0.0), Standing(0.0, 1.0, 3.0), Standing(3.0, 0.0, 0.0)]
        assert await allowed(engine, ask("b", cost=3), ask("new", cost=3))

    run(test)


def test_several_are_taken_together(run: Run) -> None:
    async def test(engine: Engine) -> None:
        minute, hour = ask("minute", burst=2), ask("hour", rate=0.01, burst=3)
        assert [await allowed(engine, minute, hour) for _ in range(3)] == [True, True, False]
        engine.clock.advance(2.0)
        assert [await allowed(engine, minute, hour) for _ in range(2)] == [True, False]
        engine.clock.advance(2.0)
        assert (await engine.take(minute, hour))[1].wait == pytest.approx(96.0)

    run(test)


def test_a_request_costs_what_it_says_and_a_look_nothing(run: Run) -> None:
    async def test(engine: Engine) -> None:
        assert await allowed(engine, ask(cost=2.5))
        assert (await engine.take(ask(cost=0.0)))[0].left == 0.5
        assert await allowed(engine, ask(cost=0.5))
        assert await allowed(engine, ask(cost=0.0))
        assert (await engine.take(ask(cost=4.0)))[0].wait == float("inf")

    run(test)


def test_other_settings_count_for_what_was_taken_before(run: Run) -> None:
    async def test(engine: Engine) -> None:
        assert await allowed(engine, ask(cost=3))
        assert (await engine.take(ask(rate=10.0, burst=5.0)))[0] == Standing(1.0, 0.0, 0.4)

    run(test)


def test_a_clock_that_went_back_locks_nobody_out(run: Run) -> None:
    async def test(engine: Engine) -> None:
        engine.clock.advance(100_000.0)
        assert await allowed(engine, ask(cost=2))
        engine.clock._now -= 50_000.0
        assert await allowed(engine, ask())
        assert not await allowed(engine, ask())
        engine.clock.advance(1.0)
        assert await allowed(engine, ask())

    run(test)


asked = st.tuples(st.sampled_from("abc"), st.sampled_from([0.0, 0.3, 1.0, 2.0, 9.0]))
calls = st.lists(
    st.tuples(st.floats(0, 200), st.lists(asked, min_size=1, max_size=3, unique_by=lambda each: each[0])), max_size=12
)


# Redis forgets keys by its own time, which is not the test's: rates are so low that it does not come to that.
@hypothesis_settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(calls=calls, rate=st.floats(0.001, 0.05), burst=st.integers(2, 5))
def test_the_engines_agree_to_the_bit(
    redis_server: Any, calls: list[tuple[float, list[tuple[str, float]]]], rate: float, burst: int
) -> None:
    async def main() -> None:
        memory, redis = InMemory(), InRedis(redis_server.url)
        try:
            for gap, asked in calls:
                memory.clock.advance(gap)
                redis.clock.advance(gap)
                demands = [Demand(key, rate, burst, cost) for key, cost in asked]
                assert await memory.take(*demands) == await redis.take(*demands)
        finally:
            await redis.aclose()

    asyncio.run(main())
