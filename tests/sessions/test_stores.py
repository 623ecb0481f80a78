"""Every store keeps the contract: the memory, the file, and a real Redis."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from redis import Redis

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


#: Makes all that is there older by so many seconds: the clock of Redis can't be moved.
OLDER = """
local seconds = tonumber(ARGV[2])
for _, key in ipairs(redis.call('KEYS', ARGV[1] .. '*')) do
  local left = redis.call('PTTL', key)
  if redis.call('TYPE', key).ok == 'hash' then
    for _, field in ipairs({ 'c', 'x' }) do
      redis.call('HSET', key, field, string.format('%.17g', tonumber(redis.call('HGET', key, field)) - seconds))
    end
  elseif redis.call('TYPE', key).ok == 'zset' then
    for _, member in ipairs(redis.call('ZRANGE', key, 0, -1)) do redis.call('ZINCRBY', key, -seconds, member) end
  end
  if left > seconds * 1000 then
    redis.call('PEXPIRE', key, left - seconds * 1000)
  elseif left > 0 then
    redis.call('DEL', key)
  end
end
"""


class TestRedis(SessionStoreContract):
    @pytest.fixture(autouse=True)
    def scene(self, redis_server: RedisServer) -> None:
        self.url = redis_server.url
        self.prefix = f"contract:{next(_numbers)}:"

    def make(self) -> SessionStore:
        return RedisSessions(self.url, prefix=self.prefix)

    async def let_pass(self, units: float) -> None:
        with Redis.from_url(self.url) as client:
            client.eval(OLDER, 0, self.prefix, repr(units * self.unit))
