"""Sessions in a real Redis: what is kept there, and what an outage does."""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import Any

import pytest
from redis.asyncio import Redis

from sojourn.errors import ConfigError, DeadlineExceeded, SessionStoreUnavailable
from sojourn.scopes.budget import BUDGETS, Budgets
from sojourn.scopes.deadline import deadline
from sojourn.scopes.work import attend
from sojourn.sessions import redis as module
from sojourn.sessions.redis import RedisSessions
from sojourn.sessions.stored import Draft, Revocation
from sojourn.testing.session_store import Heard
from tests.databases import RedisServer, free_port
from tests.guards.rates.test_redis import black_hole
from tests.sessions.scene import play

DRAFT = Draft("ann", b'{"n":0}', 100.0, 1000.0)
_numbers = itertools.count()


def prefix() -> str:
    return f"sessions:{next(_numbers)}:"


def test_a_session_is_one_key_that_expires_by_itself(redis_server: RedisServer) -> None:
    async def main() -> None:
        client = Redis.from_url(redis_server.url)
        store = RedisSessions(client, prefix=(begin := prefix()))
        await store.create("a", DRAFT)
        await store.create("b", DRAFT._replace(user=""))
        assert sorted(await client.keys(begin + "*")) == [f"{begin}{key}".encode() for key in ("s:a", "s:b", "u:ann")]
        assert 99_000 < await client.pttl(begin + "s:a") <= 100_000
        assert 999_000 < await client.pttl(begin + "u:ann") <= 1_000_000
        await store.revoke(Revocation("user", "ann"))
        assert await client.keys(begin + "*") == [f"{begin}s:b".encode()]
        await store.aclose()  # leaves a client that is not its own
        assert await client.ping()
        await client.aclose()

    play(main())


def test_each_call_is_one_command(redis_server: RedisServer) -> None:
    async def main() -> None:
        client = Redis.from_url(redis_server.url)
        store = RedisSessions(client, prefix=prefix())
        await store.create("a", DRAFT)
        await store.touch(["a"])
        stats = await client.info("commandstats")
        await store.touch([str(number) for number in range(1000)])
        after = await client.info("commandstats")
        assert after["cmdstat_evalsha"]["calls"] == stats.get("cmdstat_evalsha", {"calls": 0})["calls"] + 1
        await client.aclose()

    play(main())


def test_a_client_that_decodes_is_fine_too(redis_server: RedisServer) -> None:
    async def main() -> None:
        client = Redis.from_url(redis_server.url, decode_responses=True)
        store = RedisSessions(client, prefix=prefix())
        await store.create("a", Draft("änn", '{"n":"ä"}'.encode(), 100.0, 1000.0))
        stored = await store.load("a")
        assert stored is not None
        assert (stored.user, stored.data, stored.read_only) == ("änn", '{"n":"ä"}'.encode(), False)
        assert await store.touch(["a", "b"]) == {"a"}
        heard = Heard()
        task = attend(store.watch(heard), "watch")
        await heard.until(lambda: heard.missing > 0)
        await store.revoke(Revocation("session", "a"))
        await heard.until(lambda: heard.revocations == [Revocation("session", "a")])
        task.cancel()
        await asyncio.wait((task,))
        await client.aclose()

    play(main())


def test_a_redis_that_has_forgotten_the_scripts_gets_them_again(redis_server: RedisServer) -> None:
    async def main() -> None:
        client = Redis.from_url(redis_server.url)
        store = RedisSessions(client, prefix=prefix())
        await store.create("a", DRAFT)
        assert await store.load("a") is not None
        await client.script_flush()
        assert await store.load("a") is not None
        await client.aclose()

    play(main())


def test_a_message_of_somebody_else_is_no_revocation(redis_server: RedisServer) -> None:
    async def main() -> None:
        client = Redis.from_url(redis_server.url)
        store = RedisSessions(client, prefix=(begin := prefix()))
        heard = Heard()
        task = attend(store.watch(heard), "watch")
        await heard.until(lambda: heard.missing > 0)
        for text in ("hello", "[1]", '["planet","a",""]'):
            await client.publish(begin + "revoked", text)
        await store.revoke(Revocation("all"))
        await heard.until(lambda: len(heard.revocations) > 0)
        assert heard.revocations == [Revocation("all")]
        assert (heard.missing, heard.gone) == (1, 0)
        task.cancel()
        await asyncio.wait((task,))
        await client.aclose()

    play(main())


# -- Outages


def test_a_redis_that_is_away_is_said_to_be_within_the_budget() -> None:
    async def main(url: str, seconds: float) -> None:
        store = RedisSessions(url)
        began = time.monotonic()
        for call in (store.load("a"), store.touch(["a"]), store.revoke(Revocation("all"))):
            with pytest.raises(SessionStoreUnavailable):
                await call
        assert time.monotonic() - began < seconds
        await store.aclose()

    play(main(f"redis://127.0.0.1:{free_port()}/0", 0.5))
    BUDGETS.set(Budgets({"sessions": 0.1}))
    try:
        with black_hole() as url:
            play(main(url, 0.6))
    finally:
        BUDGETS.set(Budgets({}))


def test_the_callers_own_deadline_stays_its_own() -> None:
    async def main(url: str) -> None:
        store = RedisSessions(url)
        with pytest.raises(DeadlineExceeded, match="mine"):
            async with deadline(0.05, "mine"):
                await store.load("a")
        await store.aclose()

    with black_hole() as url:
        play(main(url))


def test_after_an_outage_who_watches_knows_that_something_may_be_missing(own_redis: RedisServer) -> None:
    async def main() -> None:
        store = RedisSessions(own_redis.url)
        heard = Heard()
        task = attend(store.watch(heard), "watch")
        await heard.until(lambda: heard.missing == 1)
        own_redis.stop()
        await heard.until(lambda: heard.gone > 0)
        own_redis.start()
        await heard.until(lambda: heard.missing == 2)
        await store.revoke(Revocation("all"))
        await heard.until(lambda: heard.revocations == [Revocation("all")])
        task.cancel()
        await asyncio.wait((task,))
        await store.aclose()

    play(main())


class Silent:
    """A subscription to a Redis that has gone without a word."""

    def __init__(self) -> None:
        self.asked = 0
        self.closed = 0

    def pubsub(self) -> Any:
        return self

    async def subscribe(self, channel: str) -> None:
        self.fresh = True

    async def ping(self) -> None:
        self.asked += 1

    async def get_message(self, timeout: float) -> Any:
        if self.fresh:
            self.fresh = False
            return {"type": "subscribe"}
        await asyncio.sleep(0)

    async def aclose(self) -> None:
        self.closed += 1


def test_a_subscription_that_does_not_answer_a_ping_is_given_up() -> None:
    async def main() -> None:
        silent = Silent()
        heard = Heard()
        task = attend(RedisSessions(silent).watch(heard), "watch")
        await heard.until(lambda: heard.gone == 1)
        assert (silent.asked, heard.missing) == (1, 1)
        task.cancel()
        await asyncio.wait((task,))
        assert silent.closed == 1

    play(main())


def test_without_a_url_there_is_no_store() -> None:
    with pytest.raises(ConfigError, match="no URL"):
        RedisSessions("redis://localhost:port")
    assert module.SECONDS == 0.5
