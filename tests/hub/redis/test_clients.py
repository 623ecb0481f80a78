"""Clients of the package redis, however they are set up."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from redis.asyncio import BlockingConnectionPool, Redis

from sojourn.errors import ConfigError
from sojourn.hub.engine import Present
from sojourn.hub.redis.engine import RedisEngine
from sojourn.testing.hub_recorder import Recorder
from tests.databases import RedisServer
from tests.hub.redis.nodes import fresh, looking, play, running


@pytest.mark.parametrize(
    "settings",
    [{}, {"decode_responses": True}, {"protocol": 3}, {"protocol": 3, "decode_responses": True}, {"db": 3}],
    ids=str,
)
def test_a_client_that_is_given_serves_as_it_is_and_stays_open(
    settings: dict[str, Any], redis_server: RedisServer
) -> None:
    async def main() -> None:
        client: Any = Redis.from_url(redis_server.url, **settings)
        async with running(client, fresh()) as node:
            await node.engine.subscribe("c")
            sent = (await node.publish("c", b"\xff\x00", key="k", name="id")).cursor
            await node.seen.until(lambda: node.seen.of("c") != [], "delivered")
            (kept,) = (await node.all("c")).publications
            for got in (kept, node.seen.of("c")[0]):
                assert (got.cursor, got.data, got.key) == (sent, b"\xff\x00", "k")
            await node.engine.enter("c", [Present("m", "ada")], 60)
            assert await node.engine.present("c", 1) == [Present("m", "ada")]
        assert await client.ping()
        await client.aclose()

    play(main())


def test_a_pool_of_one_connection_is_enough(redis_server: RedisServer) -> None:
    async def main() -> None:
        pool = BlockingConnectionPool.from_url(redis_server.url, max_connections=1, timeout=2)
        client = Redis.from_pool(pool)
        async with running(client, fresh()) as node:
            await node.engine.subscribe("c")
            await asyncio.gather(*(node.publish("c") for _ in range(50)), *(node.all("c") for _ in range(20)))
            await node.seen.until(lambda: len(node.seen.of("c")) == 50, "delivered")
        await client.aclose()

    play(main())


def test_what_others_publish_where_a_hub_listens_harms_nobody(redis_server: RedisServer) -> None:
    async def main() -> None:
        prefix = fresh()
        async with looking(redis_server.url) as client, running(redis_server.url, prefix) as node:
            await node.engine.subscribe("c")
            for word in (
                b"",
                b"p",
                b"px y z",
                b"pe 1 2 ",
                b"pe 1 2 q0:",
                b"c",
                b"c0123456789abcdef\x91",
                b"x\xc1",
                b"?",
            ):
                await client.publish(f"{prefix}c:c", word)
            await client.publish(f"{prefix}all", b"")
            await node.publish("c", b"fine")
            await node.seen.until(lambda: node.seen.of("c") != [], "delivered")
            assert [each.data for each in node.seen.of("c")] == [b"fine"]
            assert node.seen.outages == []

    play(main())


def test_hubs_of_other_prefixes_have_nothing_in_common(redis_server: RedisServer) -> None:
    async def main() -> None:
        async with running(redis_server.url, fresh()) as node, running(redis_server.url, fresh()) as other:
            for each in (node, other):
                await each.engine.subscribe("c")
                assert (await each.publish("c", name="id")).cursor.seq == 1
            assert (await other.engine.position()).epoch != (await node.engine.position()).epoch
            assert len((await node.all("c")).publications) == 1

    play(main())


@pytest.mark.parametrize(
    ("url", "settings", "match"),
    [
        ("http://localhost", {}, "no URL of a Redis"),
        ("redis://localhost", {"timeout": 0}, "timeout must be above zero"),
        ("redis://localhost", {"ping": -1}, "ping must be above zero"),
        ("redis://localhost", {"pong_within": float("nan")}, "pong_within must be above zero"),
        ("redis://localhost", {"prefix": "hub"}, "braces"),
    ],
)
def test_settings_that_can_not_be_are_refused(url: str, settings: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        RedisEngine(url, **settings)


def test_an_engine_is_started_once(redis_server: RedisServer) -> None:
    async def main() -> None:
        async with running(redis_server.url, fresh()) as node:
            with pytest.raises(RuntimeError, match="once"):
                await node.engine.start(Recorder())

    play(main())
