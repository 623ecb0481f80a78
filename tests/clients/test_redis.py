"""redis.asyncio against a real Redis, some of it behind a proxy that swallows what it gets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff, NoBackoff

from sojourn.clients.redis import block_seconds, bounded
from sojourn.clock import NEVER
from sojourn.errors import DeadlineExceeded, PoolWaitExceeded
from sojourn.scopes.deadline import deadline, remaining
from sojourn.testing.faults import FaultProxy
from tests.clients.scene import budgets, cancelled_everywhere, run, took


@asynccontextmanager
async def client_at(port: int, size: int = 2, **options: Any) -> AsyncIterator[Any]:
    """A bounded client whose pool waits."""
    pool = redis.asyncio.BlockingConnectionPool(host="127.0.0.1", port=port, max_connections=size, **options)
    client = bounded(redis.asyncio.Redis(connection_pool=pool), dependency="cache")
    try:
        yield client
    finally:
        await client.aclose()
        await pool.disconnect()


async def is_whole(client: Any, size: int) -> None:
    """All of its connections can be had at once, and each gives the answer to the question that was asked."""
    pool = client.connection_pool
    async with asyncio.timeout(5):
        lent = [await pool.get_connection() for _ in range(size)]
        for number, connection in enumerate(lent):
            await connection.send_command("ECHO", f"{number}")
            assert await connection.read_response() == f"{number}".encode()
        for connection in lent:
            await pool.release(connection)
    assert not pool._in_use_connections


@pytest.mark.parametrize(
    ("command", "seconds"),
    [
        (("GET", "a"), None),
        (("BLPOP", "a", "b", 5), 5.0),
        (("blmove", "a", "b", "LEFT", "LEFT", "0.5"), 0.5),
        (("BRPOP", "a", 0), NEVER),
        (("BLMPOP", 3, 1, "a", "LEFT"), 3.0),
        (("WAIT", 1, 250), 0.25),
        (("XREAD", "COUNT", 1, b"BLOCK", 100, "STREAMS", "a", "$"), 0.1),
        (("XREADGROUP", "GROUP", "g", "c", "BLOCK", 0, "STREAMS", "a", ">"), NEVER),
        (("XREAD", "STREAMS", "a", "$"), None),
        (("BLPOP", "a", "soon"), None),
        ((), None),
    ],
)
def test_a_command_says_how_long_it_blocks(command: tuple[Any, ...], seconds: float | None) -> None:
    assert block_seconds(command) == seconds


def test_a_half_open_server_ends_at_the_deadline_and_the_pool_is_back_at_its_size(redis_port: int) -> None:
    async def main() -> None:
        async with FaultProxy(("127.0.0.1", redis_port)) as proxy, client_at(proxy.address[1]) as client:

            async def use() -> None:
                async with deadline(0.1, "cached"):
                    await client.get("a")

            async def ends() -> None:
                with took(0.09, 0.45), pytest.raises(DeadlineExceeded, match="'cached'"):
                    await use()

            lost = proxy.timeout()  # connections are not even made
            await asyncio.gather(ends(), ends())
            lost.remove()
            await is_whole(client, 2)
            lost = proxy.timeout()
            await asyncio.gather(ends(), ends())
            lost.remove()
            await is_whole(client, 2)

    run(main())


def test_a_budget_is_for_all_tries_together(redis_port: int) -> None:
    async def main() -> None:
        async with FaultProxy(("127.0.0.1", redis_port)) as proxy:
            budgets(cache=0.1)
            retry = Retry(ConstantBackoff(0.001), 50)
            async with client_at(proxy.address[1], 1, socket_timeout=0.02, retry=retry) as client:
                assert await client.set("a", 1)
                proxy.timeout()
                with took(0.09, 0.35), pytest.raises(DeadlineExceeded, match=r"'cache' of 0\.1 s passed") as raised:
                    await client.get("a")
                assert "test_redis.py" in raised.value.where
                assert proxy.accepted > 1  # it was tried again

    run(main())


def test_the_clients_own_timeout_stays_when_it_is_shorter(redis_port: int) -> None:
    async def main() -> None:
        async with FaultProxy(("127.0.0.1", redis_port)) as proxy:
            options = {"socket_timeout": 0.05, "retry": Retry(NoBackoff(), 0)}
            async with client_at(proxy.address[1], 1, **options) as client:
                proxy.timeout()
                with took(0.04, 0.35), pytest.raises(redis.TimeoutError):
                    async with deadline(5, "cached"):
                        await client.get("a")

    run(main())


def test_nothing_is_sent_when_no_time_is_left(redis_port: int) -> None:
    async def main() -> None:
        async with client_at(redis_port) as client:
            await client.delete("not sent")

            async def late() -> None:
                async with deadline(0.01, "cached"):
                    try:
                        await asyncio.sleep(1)
                    finally:
                        assert remaining() == 0.0
                        with pytest.raises(DeadlineExceeded, match="'cached'"):
                            await client.set("not sent", 1)
                        pipeline = client.pipeline()
                        pipeline.set("not sent", 1)
                        with pytest.raises(DeadlineExceeded, match="'cached'"):
                            await pipeline.execute()

            with pytest.raises(DeadlineExceeded):
                await late()
            assert await client.get("not sent") is None

    run(main())


def test_pipelines_and_transactions_are_bounded_in_total(redis_port: int) -> None:
    async def main() -> None:
        async with FaultProxy(("127.0.0.1", redis_port)) as proxy, client_at(proxy.address[1], 1) as client:
            budgets(cache=0.1)
            async with client.pipeline(transaction=True) as pipeline:
                await pipeline.watch("a")
                pipeline.multi()
                assert await pipeline.set("a", 1).get("a").execute() == [True, b"1"]
            lost = proxy.timeout()
            with took(0.09, 0.45), pytest.raises(DeadlineExceeded, match="'cache'"):
                await client.pipeline(transaction=False).get("a").get("a").execute()
            lost.remove()
            await is_whole(client, 1)

    run(main())


def test_a_full_pool_is_told_apart_from_a_slow_server(redis_port: int) -> None:
    async def main() -> None:
        async with client_at(redis_port, 1) as client:

            async def ask() -> None:
                async with deadline(0.05, "cached"):
                    await client.get("a")

            held = await client.connection_pool.get_connection()
            waited = r"waited for a connection of pool 'cache': deadline 'cached' of 0\.05 s passed"
            with took(0.04, 0.30), pytest.raises(PoolWaitExceeded, match=waited):
                await ask()
            budgets(cache=0.05)
            with took(0.04, 0.30), pytest.raises(PoolWaitExceeded, match="deadline 'cache' of"):
                await client.get("a")
            await client.connection_pool.release(held)
            budgets()
            await is_whole(client, 1)

    run(main())


def test_what_blocks_on_purpose_has_its_own_time_and_the_deadline_still_bounds_it(redis_port: int) -> None:
    async def main() -> None:
        async with FaultProxy(("127.0.0.1", redis_port)) as proxy, client_at(proxy.address[1], 1) as client:
            budgets(cache=0.05)
            with took(0.2, 0.75):
                assert await client.blpop(["nothing comes"], 0.3) is None

            async def wait() -> None:
                async with deadline(0.1, "jobs"):
                    await client.blpop(["nothing comes"], 30)

            with took(0.09, 0.45), pytest.raises(DeadlineExceeded, match="'jobs'"):
                await wait()
            lost = proxy.timeout()
            with took(1.0, 1.65), pytest.raises(DeadlineExceeded, match="'cache: BLPOP'"):
                await client.blpop(["nothing comes"], 0.1)
            lost.remove()
            await is_whole(client, 1)

    run(main())


def test_what_is_cut_at_any_moment_never_leaves_an_answer_for_the_next(redis_port: int) -> None:
    async def main() -> None:
        async with FaultProxy(("127.0.0.1", redis_port)) as proxy, client_at(proxy.address[1], 1) as client:
            proxy.latency(0.003)

            async def use(number: int) -> None:
                async with deadline(0.0005 * (number % 20), "cached"):
                    for again in range(20):
                        assert await client.echo(f"{number} {again}") == f"{number} {again}".encode()

            for number in range(60):
                with pytest.raises(DeadlineExceeded):
                    await use(number)
            await is_whole(client, 1)

    run(main())


def test_who_is_cancelled_gives_everything_back_clean_wherever_that_is(redis_port: int) -> None:
    async def main() -> None:
        async with client_at(redis_port) as client:

            async def use() -> None:
                async with deadline(5, "cached"):
                    await client.set("a", "b")
                    assert await client.get("a") == b"b"
                    assert await client.pipeline().echo("c").execute() == [b"c"]

            await use()
            await cancelled_everywhere(use, range(0, 60, 2))
            await is_whole(client, 2)

    run(main())


def test_a_cancellation_that_the_clients_write_loses_is_found_again(redis_port: int) -> None:
    class Losing(redis.asyncio.Connection):
        async def send_packed_command(self, *arguments: Any, **options: Any) -> None:
            await super().send_packed_command(*arguments, **options)
            if armed:
                try:
                    await asyncio.sleep(5)
                except asyncio.CancelledError:
                    return  # as asyncio.wait_for does, when the result comes in the same turn

    armed: list[bool] = []

    async def main() -> None:
        async with client_at(redis_port, 1, connection_class=Losing) as client:
            await client.set("a", 1)
            armed.append(True)

            async def ask() -> None:
                async with deadline(0.05, "cached"):
                    await client.get("a")

            with took(0.04, 0.35), pytest.raises(DeadlineExceeded, match="'cached'"):
                await ask()
            armed.clear()
            assert not client.connection_pool._available_connections[0].is_connected
            await is_whole(client, 1)

    run(main())


def test_a_subscription_listens_for_as_long_as_it_is_asked_to(redis_port: int) -> None:
    async def main() -> None:
        async with client_at(redis_port) as client:
            budgets(cache=0.05)
            async with client.pubsub() as subscription:
                await subscription.subscribe("news")
                assert (await subscription.get_message(timeout=1))["type"] == "subscribe"
                with took(0.15, 0.55):
                    assert await subscription.get_message(timeout=0.2) is None
                await client.publish("news", "hello")
                assert (await subscription.get_message(timeout=1))["data"] == b"hello"

    run(main())


def test_what_is_no_client_is_refused() -> None:
    with pytest.raises(TypeError, match=r"dict is no client of redis\.asyncio"):
        bounded({})  # type: ignore[type-var]
