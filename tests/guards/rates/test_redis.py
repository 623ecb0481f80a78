"""Buckets in a real Redis: one count for all, forgotten in time, and an outage that harms nobody."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from redis.asyncio import Redis

from sojourn.clock import ManualClock
from sojourn.errors import ConfigError, DeadlineExceeded, RateLimitsUnavailable
from sojourn.guards.rates.redis import PAUSE, ROW, SCRIPT, RedisRates
from sojourn.policy.rate import Demand
from sojourn.scopes.budget import BUDGETS, Budgets
from sojourn.scopes.deadline import deadline
from tests.databases import RedisServer, free_port

HOURLY = Demand("hourly|alice", 3 / 3600, 3.0, 1.0)


def play(main: Coroutine[Any, Any, None], seconds: float = 5.0) -> None:
    """Run a test whose Redis is there, with more than 50 ms for an answer: the machine may be busy."""

    async def patient() -> None:
        BUDGETS.set(Budgets({"rate_limits": seconds}))
        await main

    asyncio.run(patient())


async def take(rates: RedisRates, demand: Demand = HOURLY) -> bool:
    (standing,) = await rates.take([demand])
    return standing.wait == 0.0


def test_several_processes_share_one_count(redis_server: RedisServer) -> None:
    async def main() -> None:
        first, second = (RedisRates(redis_server.url, prefix="shared:") for _ in range(2))
        allowed = await asyncio.gather(*(take(each) for _ in range(10) for each in (first, second)))
        assert sum(allowed) == 3
        assert (first.failures, second.failures) == (0, 0)
        await first.aclose()
        await second.aclose()

    play(main())


def test_a_key_is_gone_when_its_bucket_is_full(redis_server: RedisServer) -> None:
    async def main() -> None:
        client = Redis.from_url(redis_server.url)
        rates = RedisRates(client, prefix="expiry:")
        await take(rates)
        assert 1_190_000 < await client.pttl("expiry:hourly|alice") <= 1_200_001
        await take(rates, Demand("short|alice", 100.0, 3.0, 3.0))
        assert 1 <= await client.pttl("expiry:short|alice") <= 31
        await take(rates, Demand("look|alice", 1.0, 3.0, 0.0))
        assert not await client.exists("expiry:look|alice")
        await asyncio.sleep(0.04)
        assert not await client.exists("expiry:short|alice")
        await rates.aclose()  # leaves a client that is not its own
        assert await client.ping()
        await client.aclose()

    play(main())


def test_the_rate_is_that_of_the_clock_of_redis(redis_server: RedisServer) -> None:
    async def main() -> None:
        rates = RedisRates(redis_server.url, prefix="clock:")
        demand = Demand("fast|alice", 20.0, 2.0, 1.0)
        assert [await take(rates, demand) for _ in range(3)] == [True, True, False]
        await asyncio.sleep(0.06)
        assert await take(rates, demand)
        await rates.aclose()

    play(main())


def test_a_redis_that_has_forgotten_the_script_gets_it_again(redis_server: RedisServer) -> None:
    async def main() -> None:
        client = Redis.from_url(redis_server.url)
        rates = RedisRates(client, prefix="script:")
        assert await take(rates)
        await client.script_flush()
        assert [await take(rates) for _ in range(3)] == [True, True, False]
        assert (rates.failures, rates.degraded) == (0, False)
        await client.aclose()

    play(main())


def test_all_buckets_are_taken_by_one_command(redis_server: RedisServer) -> None:
    async def main() -> None:
        client = Redis.from_url(redis_server.url)
        rates = RedisRates(client, prefix="one:")
        demands = [HOURLY, Demand("daily|alice", 1.0, 5.0, 1.0), Demand("all|", 1.0, 5.0, 1.0)]
        await rates.take(demands)
        before = (await client.info("commandstats"))["cmdstat_evalsha"]["calls"]
        await rates.take(demands)
        assert (await client.info("commandstats"))["cmdstat_evalsha"]["calls"] == before + 1
        await client.aclose()

    play(main())


# -- Outages


@contextmanager
def black_hole() -> Iterator[str]:
    """Accepts, reads, and never answers."""
    sock = socket.create_server(("127.0.0.1", 0))
    taken: list[socket.socket] = []

    def accept() -> None:
        while True:
            try:
                taken.append(sock.accept()[0])
            except OSError:
                return

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield f"redis://127.0.0.1:{sock.getsockname()[1]}/0"
    finally:
        sock.shutdown(socket.SHUT_RDWR)
        sock.close()
        thread.join(5)
        for each in taken:
            each.close()


@contextmanager
def nobody() -> Iterator[str]:
    """Refuses connections."""
    yield f"redis://127.0.0.1:{free_port()}/0"


@pytest.mark.parametrize("away", [black_hole, nobody])
def test_a_redis_that_is_away_is_replaced_by_memory_within_its_budget(away: Callable[[], Any]) -> None:
    async def main(url: str) -> None:
        rates = RedisRates(url)
        began = time.monotonic()
        assert [await take(rates) for _ in range(10)] == [True] * 3 + [False] * 7
        assert time.monotonic() - began < 3.0  # three were waited for, 50 ms each
        assert (rates.failures, rates.degraded) == (3, True)
        await rates.aclose()

    with away() as url:
        asyncio.run(main(url))


def test_its_time_is_a_budget_of_the_configuration() -> None:
    async def main(url: str) -> None:
        BUDGETS.set(Budgets({"rate_limits": 0.2}))
        rates = RedisRates(url)
        began = time.monotonic()
        assert await take(rates)
        assert 0.2 <= time.monotonic() - began < 1.0
        await rates.aclose()

    with black_hole() as url:
        asyncio.run(main(url))


@pytest.mark.parametrize("away", [black_hole, nobody])
def test_closed_allows_nothing_while_redis_is_away(away: Callable[[], Any]) -> None:
    async def main(url: str) -> None:
        rates = RedisRates(url, on_failure="closed")
        for _ in range(10):
            with pytest.raises(RateLimitsUnavailable):
                await take(rates)
        assert rates.failures == 3
        await rates.aclose()

    with away() as url:
        asyncio.run(main(url))


def test_a_redis_that_answers_with_an_error_is_away_too(redis_server: RedisServer) -> None:
    async def main() -> None:
        client = Redis.from_url(redis_server.url)
        await client.rpush("wrong:hourly|alice", "a list")
        rates = RedisRates(client, prefix="wrong:")
        assert [await take(rates) for _ in range(4)] == [True, True, True, False]
        assert rates.degraded
        await client.aclose()

    play(main())


def test_a_stall_of_our_own_is_no_outage(redis_server: RedisServer) -> None:
    async def main() -> None:
        rates = RedisRates(redis_server.url, prefix="stall:")
        demand = Demand("stall|alice", 1.0, 1000.0, 1.0)
        await take(rates, demand)
        several = asyncio.gather(*(take(rates, demand) for _ in range(20)))
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_soon(time.sleep, 0.6)
        assert all(await several)
        assert not rates.degraded
        assert await take(rates, demand)
        assert rates._row == 0
        await rates.aclose()

    play(main(), 0.3)


def test_one_request_tries_again_after_a_pause_and_the_others_do_not_wait(own_redis: RedisServer) -> None:
    async def main() -> None:
        clock = ManualClock()
        rates = RedisRates(own_redis.url, clock=clock)
        assert await take(rates)
        own_redis.stop()
        for _ in range(ROW):
            await take(rates)
        assert (rates.failures, rates.degraded) == (ROW, True)
        await take(rates)
        assert rates.failures == ROW  # not asked

        clock.advance(PAUSE + 0.01)
        await asyncio.gather(*(take(rates) for _ in range(5)))
        assert (rates.failures, rates.degraded) == (ROW + 1, True)

        await asyncio.get_running_loop().run_in_executor(None, own_redis.start)
        clock.advance(PAUSE + 0.01)
        # It is another Redis, which knows neither the script nor what was taken.
        assert [await take(rates) for _ in range(4)] == [True, True, True, False]
        assert (rates.failures, rates.degraded) == (ROW + 1, False)
        await rates.aclose()

    asyncio.run(main())


def test_the_callers_own_deadline_is_no_fault_of_redis() -> None:
    async def main(url: str) -> None:
        rates = RedisRates(url)
        with pytest.raises(DeadlineExceeded) as caught:
            async with deadline(0.01, "mine"):
                await take(rates)
        assert caught.value.deadline == "mine"
        assert (rates.failures, rates.degraded) == (0, False)
        await rates.aclose()

    with black_hole() as url:
        asyncio.run(main(url))


def test_a_cancelled_trial_leaves_the_trial_to_the_next() -> None:
    async def main(url: str) -> None:
        clock = ManualClock()
        rates = RedisRates(url, clock=clock)
        for _ in range(ROW):
            await take(rates)
        clock.advance(PAUSE + 0.01)
        trial = asyncio.ensure_future(take(rates))
        await asyncio.sleep(0.005)
        trial.cancel()
        with pytest.raises(asyncio.CancelledError):
            await trial
        assert rates.failures == ROW
        await take(rates)
        assert rates.failures == ROW + 1
        await rates.aclose()

    with black_hole() as url:
        asyncio.run(main(url))


def test_cancelled_anywhere_it_leaves_connections_that_can_be_used(redis_server: RedisServer) -> None:
    """A cancelled command must not leave its answer to the next one."""

    async def main() -> None:
        rates = RedisRates(redis_server.url, prefix="cancel:")
        look = Demand("look|alice", 1.0, 7.0, 0.0)
        for turns in range(40):
            task = asyncio.ensure_future(rates.take([HOURLY]))
            for _ in range(turns % 20):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait((task,))
            assert (await rates.take([look]))[0].left == 7.0
        assert rates.failures == 0
        assert rates._client.connection_pool.max_connections == 16  # type: ignore[attr-defined]
        await rates.aclose()

    play(main())


def test_more_requests_than_connections_wait_for_one(redis_server: RedisServer) -> None:
    async def main() -> None:
        rates = RedisRates(redis_server.url, prefix="many:")
        demand = Demand("many|alice", 0.001, 1000.0, 1.0)

        async def several() -> list[bool]:
            return [await take(rates, demand) for _ in range(3)]

        async def all_of(*each: Awaitable[list[bool]]) -> int:
            return sum(sum(answers) for answers in await asyncio.gather(*each))

        assert await all_of(*(several() for _ in range(24))) == 72
        client = Redis.from_url(redis_server.url)
        assert rates.failures == 0
        assert float((await client.get("many:many|alice")).split()[0]) == pytest.approx(72, abs=0.1)
        await client.aclose()
        await rates.aclose()

    play(main())


def test_what_is_no_redis_is_refused_at_once() -> None:
    with pytest.raises(ConfigError, match="no URL of a Redis"):
        RedisRates("http://localhost")
    with pytest.raises(ValueError, match="open or closed"):
        RedisRates("redis://localhost", on_failure="ajar")  # type: ignore[arg-type]


def test_the_script_reads_no_clock_of_its_own_but_time() -> None:
    assert "os.time" not in SCRIPT
    assert SCRIPT.count("redis.call('TIME')") == 1
