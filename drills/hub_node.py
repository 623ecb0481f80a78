"""A node of a hub in Redis: it serves members, and publishes what it is asked to."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Response

import sojourn

__all__ = ["app"]

ENGINE = sojourn.RedisEngine(os.environ["DRILL_REDIS"], timeout=2.0, ping=1.0, pong_within=1.0)
HISTORY = sojourn.History(size=100_000, ttl=600)
CHANNEL = sojourn.Channel("drill:{name}", history=HISTORY, public=True, while_away="refuse")
HUB = sojourn.Hub(ENGINE, [CHANNEL])


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    async with HUB:
        yield


app = FastAPI(lifespan=lifespan)
app.mount("/hub", HUB.app())


@app.post("/publish")
async def publish(channel: str, first: int, count: int) -> Response:
    """Publish numbers, in order; asked again, those that were published are not published again."""
    numbers = range(first, first + count)
    found = await asyncio.gather(
        *(HUB.publish(channel, number, id=str(number)) for number in numbers), return_exceptions=True
    )
    failed = next((error for error in found if isinstance(error, BaseException)), None)
    if failed is not None and not isinstance(failed, sojourn.EngineUnavailable):
        raise failed
    return Response(status_code=503 if failed else 204)
