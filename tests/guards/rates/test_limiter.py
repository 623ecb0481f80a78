"""A limiter: one or several quotas, asked for requests, or for messages by a name."""

from __future__ import annotations

import asyncio
import math
import time
from types import SimpleNamespace
from typing import Any

import pytest

from sojourn.bus import Bus
from sojourn.clock import ManualClock
from sojourn.errors import RateLimited
from sojourn.guards.rates.limiter import RateLimiter
from sojourn.guards.rates.memory import MemoryRates
from sojourn.guards.rates.quota import Quota
from sojourn.guards.registry import GUARDS, Guards
from sojourn.scopes.deadline import deadline

REQUEST: dict[str, Any] = {"type": "http", "method": "GET", "path": "/", "client": ("192.0.2.1", 1)}


def test_all_quotas_have_to_allow_and_a_refusal_takes_from_none() -> None:
    async def main() -> None:
        quotas = [Quota("2/minute", name="client"), Quota("10/minute", name="all", per="all")]
        limiter = RateLimiter(quotas, engine=MemoryRates(clock=ManualClock()))
        answers = [await limiter.judge(REQUEST) for _ in range(5)]
        assert [bool(each) for each in answers] == [True, True, False, False, False]
        assert answers[-1].violated == ["client"]
        assert answers[-1].retry_after == 30.0
        assert [each.left for each in answers[-1].standings] == [0.0, 8.0]

    asyncio.run(main())


def test_quotas_that_are_not_meant_for_a_request_do_not_count_it() -> None:
    async def main() -> None:
        limiter = RateLimiter([Quota("1/minute", name="login", path="/login"), Quota("3/minute", name="all")])
        assert [bool(await limiter.judge(REQUEST)) for _ in range(4)] == [True, True, True, False]
        free = await RateLimiter(Quota("1/minute", path="/login")).judge(REQUEST)
        assert free.allowed
        assert (free.remaining, free.retry_after, free.headers()) == (math.inf, 0.0, [])

    asyncio.run(main())


def test_check_raises_what_can_be_answered() -> None:
    async def main() -> None:
        limiter = RateLimiter("1/minute")
        assert (await limiter.check(REQUEST)).remaining == 0.0
        with pytest.raises(RateLimited) as caught:
            await limiter.check(SimpleNamespace(scope=REQUEST))  # a framework's request
        error = caught.value
        assert (error.status, error.quotas) == (429, ("default",))
        assert 59 < error.retry_after <= 60
        assert error.headers["retry-after"] == "60"
        assert b"quota-exceeded" in error.body
        assert "more than default allows" in str(error)

    asyncio.run(main())


def test_a_cost_counts_several_and_zero_only_looks() -> None:
    async def main() -> None:
        limiter = RateLimiter("10/minute")
        assert (await limiter.judge(REQUEST, 8)).remaining == 2.0
        assert not await limiter.judge(REQUEST, 3)
        assert (await limiter.judge(REQUEST, 0)).remaining == pytest.approx(2.0, abs=0.1)
        with pytest.raises(RateLimited, match="allowed in inf s") as caught:
            await limiter.check(REQUEST, 11)
        assert "retry-after" not in caught.value.headers

    asyncio.run(main())


def test_try_take_counts_by_any_name() -> None:
    async def main() -> None:
        limiter = RateLimiter([Quota("2/minute", per="user"), Quota("100/minute", name="all", per="all")])
        assert [bool(await limiter.try_take("alice")) for _ in range(3)] == [True, True, False]
        assert await limiter.try_take("bob")

    asyncio.run(main())


def test_take_waits_for_its_turn() -> None:
    async def main() -> None:
        limiter = RateLimiter(Quota("50/s", burst=1))
        began = time.monotonic()
        for _ in range(4):
            await limiter.take("alice")
        assert 0.055 < time.monotonic() - began < 1.0

    asyncio.run(main())


def test_take_refuses_at_once_what_can_not_come_in_time() -> None:
    async def main() -> None:
        limiter = RateLimiter("1/minute")
        await limiter.take("alice")
        began = time.monotonic()
        with pytest.raises(RateLimited):
            await limiter.take("alice", longest=5)
        with pytest.raises(RateLimited):
            async with deadline(5.0, "request"):
                await limiter.take("alice")
        with pytest.raises(RateLimited):
            await limiter.take("bob", cost=2)
        assert time.monotonic() - began < 2.5

    asyncio.run(main())


def test_who_is_cancelled_while_waiting_has_taken_nothing() -> None:
    async def main() -> None:
        limiter = RateLimiter(Quota("1/hour"))
        await limiter.take("alice")
        waiting = asyncio.ensure_future(limiter.take("alice"))
        await asyncio.sleep(0.01)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert (await limiter.try_take("alice", 0)).remaining < 0.001
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())


def test_one_engine_may_serve_several_limiters() -> None:
    async def main() -> None:
        engine = MemoryRates()
        first, second = (RateLimiter("1/minute", engine=engine) for _ in range(2))
        other = RateLimiter(Quota("1/minute", name="other"), engine=engine)
        assert [bool(await each.judge(REQUEST)) for each in (first, second, other)] == [True, False, True]

    asyncio.run(main())


def test_quotas_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="told apart by their names"):
        RateLimiter(["1/s", "100/minute"])


def test_what_it_does_shows_in_the_guards_of_the_server() -> None:
    async def main() -> None:
        guards = Guards(Bus())
        GUARDS.set(guards)
        limiter = RateLimiter("1/minute", name="api")
        for _ in range(3):
            await limiter.judge(REQUEST)
        (guard,) = guards
        assert (guard.kind, guard.name) == ("rate_limit", "api")
        assert guard.figures().counts == {"allowed": 1, "refused": 2}

    asyncio.run(main())
