"""Engines on a Redis, as the tests of this folder use them."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import uvloop
from redis.asyncio import Redis

from sojourn.hub.redis.engine import RedisEngine
from sojourn.testing.hub_recorder import Node, Recorder

__all__ = ["fresh", "looking", "pause", "play", "running"]

T = TypeVar("T")
#: Seconds, so that a test of an outage takes little longer; no busy machine should look like an outage, though.
QUICK = {"timeout": 1.0, "ping": 0.1, "pong_within": 0.4}


def fresh() -> str:
    """A prefix that no other test has."""
    return "{" + secrets.token_hex(6) + "}:"


def play(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a test in uvloop, as a server would."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(coroutine)


async def pause(seconds: float) -> None:
    """Let something pass that nobody tells of."""
    await asyncio.sleep(seconds)


@asynccontextmanager
async def looking(url: str) -> AsyncIterator[Any]:
    """A client to look into Redis, and to do harm there."""
    async with Redis.from_url(url) as client:
        yield client


@asynccontextmanager
async def running(redis: Any, prefix: str, **settings: Any) -> AsyncIterator[Node]:
    """A node, started."""
    engine = RedisEngine(redis, prefix=prefix, **{**QUICK, **settings})
    node = Node(engine, Recorder())
    try:
        await engine.start(node.seen)
        yield node
    finally:
        await engine.aclose()
