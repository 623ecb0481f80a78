"""A service that asks Redis and PostgreSQL; who they are is said by the environment."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import redis.asyncio
from fastapi import FastAPI

import sojourn
from sojourn.clients import asyncpg as bounded_asyncpg
from sojourn.clients import redis as bounded_redis

CONNECTIONS = 8


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
    cache = redis.asyncio.Redis.from_url(os.environ["DRILL_REDIS"], max_connections=200)
    pool = await asyncpg.create_pool(os.environ["DRILL_POSTGRES"], min_size=1, max_size=CONNECTIONS)
    async with bounded_asyncpg.bounded(pool, "database") as database:
        app.state.cache = bounded_redis.bounded(cache, "cache")
        app.state.database = database
        yield {}
    await cache.aclose()


app = FastAPI(lifespan=lifespan)


@app.get("/price")
async def price() -> dict[str, str]:
    """Better an old price than none."""
    try:
        found = await app.state.cache.incr("asked")
    except sojourn.DeadlineExceeded:
        return {"price": "old"}
    return {"price": f"{found}"}


@app.get("/orders")
async def orders() -> dict[str, int]:
    async with app.state.database.acquire() as connection:
        return {"orders": await connection.fetchval("select 1")}


@app.get("/plain")
async def plain() -> dict[str, str]:
    return {"plain": "yes"}


@app.get("/pools")
async def pools() -> dict[str, int]:
    cache, database = app.state.cache.connection_pool, app.state.database
    return {
        "cache_in_use": len(cache._in_use_connections),
        "database": database.get_size(),
        "database_idle": database.get_idle_size(),
    }
