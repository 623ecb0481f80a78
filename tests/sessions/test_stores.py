"""Every store keeps the contract: the memory, the file, and a real Redis."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path

import pytest

from sojourn.clock import ManualClock
from sojourn.sessions.memory import MemorySessions
from sojourn.sessions.redis import RedisSessions
from sojourn.sessions.sqlite import SqliteSessions
from sojourn.sessions.store import SessionStore
from sojourn.testing.session_store import SessionStoreContract
from tests.databases import RedisServer

_numbers = itertools.count()


class TestMemory(SessionStoreContract):
    @pytest.fixture(autouse=True)
    def scene(self) -> None:
        self.clock = ManualClock()
        self.store = MemorySessions(clock=self.clock)

    def make(self) -> SessionStore:
        return self.store

    async def let_pass(self, units: float) -> None:
        self.clock.advance(units * self.unit)


class TestSqlite(SessionStoreContract):
    @pytest.fixture(autouse=True)
    def scene(self, tmp_path: Path) -> None:
        self.clock = ManualClock()
        self.path = tmp_path / "sessions.db"

    def make(self) -> SessionStore:
        return SqliteSessions(self.path, clock=self.clock)

    async def let_pass(self, units: float) -> None:
        self.clock.advance(units * self.unit)


class TestRedis(SessionStoreContract):
    unit = 0.025

    @pytest.fixture(autouse=True)
    def scene(self, redis_server: RedisServer) -> None:
        self.url = redis_server.url
        self.prefix = f"contract:{next(_numbers)}:"

    def make(self) -> SessionStore:
        return RedisSessions(self.url, prefix=self.prefix)

    async def let_pass(self, units: float) -> None:
        await asyncio.sleep(units * self.unit)
