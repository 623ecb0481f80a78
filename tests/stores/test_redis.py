"""The package ``redis``, as services use it: clients, scripts, and what an outage is known by."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from redis.asyncio import Redis

from sojourn.errors import ConfigError
from sojourn.stores.redis import Scripts, asked, connected, cut, failures, read_only
from tests.databases import RedisServer, free_port
from tests.databases import redis_server as running

ADD = "return redis.call('INCRBY', KEYS[1], ARGV[1])"


@pytest.fixture(scope="module")
def redis_server() -> Iterator[RedisServer]:
    with running() as server:
        yield server


def test_a_client_that_is_given_is_not_ours_to_close() -> None:
    client = Redis()
    assert connected(client, "tests need") == (client, False)


@pytest.mark.parametrize("connections", [None, 3])
def test_a_client_for_an_address_waits_without_limit_and_sends_nothing_twice(connections: int | None) -> None:
    client, own = connected("redis://localhost:1/0", "tests need", connections)
    options = client.connection_pool.connection_kwargs
    assert own
    assert (options["socket_timeout"], options["socket_connect_timeout"]) == (None, None)
    assert options["retry"]._retries == 0
    assert connections is None or client.connection_pool.max_connections == connections


def test_what_is_no_url_and_a_missing_package_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="no URL of a Redis"):
        connected("http://localhost", "tests need")
    monkeypatch.setitem(sys.modules, "redis.asyncio", None)
    with pytest.raises(ConfigError, match=r"tests need the package redis: install sojourn\[redis\]"):
        connected("redis://localhost", "tests need")


@pytest.mark.parametrize("replicas", [None, 0])
def test_a_script_is_sent_whole_once_and_again_to_a_redis_that_forgot_it(
    redis_server: RedisServer, replicas: int | None
) -> None:
    async def main() -> None:
        client: Any = Redis.from_url(redis_server.url, decode_responses=True)
        scripts = Scripts(client)
        key = f"sum:{replicas}"

        async def run() -> Any:
            if replicas is None:
                return await scripts.run(ADD, [key], 2)
            return (await scripts.replicated(ADD, [key], 2, replicas=replicas, within=0.1))[0]

        await client.config_resetstat()
        assert [await run() for _ in range(3)] == [2, 4, 6]
        await client.script_flush()
        assert [await run() for _ in range(2)] == [8, 10]
        stats = await client.info("commandstats")
        assert (stats["cmdstat_eval"]["calls"], stats["cmdstat_evalsha"]["calls"]) == (2, 4)
        assert await asked(client, "GET", key) == b"10"
        for wrong in ("return redis.call('INCR')", "nothing"):
            with pytest.raises(failures()):
                await scripts.run(wrong, [key])
            with pytest.raises(failures()):
                await scripts.replicated(wrong, [key], replicas=0, within=0.1)
        await client.aclose()

    asyncio.run(main())


def test_a_redis_that_is_away_is_cut_off_and_not_read_only() -> None:
    async def main() -> None:
        client, _ = connected(f"redis://127.0.0.1:{free_port()}", "tests need")
        for call in (asked(client, "PING"), Scripts(client).replicated(ADD, ["k"], 1, replicas=1, within=1.0)):
            with pytest.raises(cut()) as error:
                await call
            assert not isinstance(error.value, read_only())
        await client.aclose()

    asyncio.run(main())
