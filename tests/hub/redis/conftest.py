"""A Redis of Debian's for these tests, and engines on it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.databases import RedisServer
from tests.databases import redis_server as running


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """One for all tests that leave it running; each takes keys of its own."""
    with running() as server:
        yield server


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """One that a test may stop."""
    with running() as server:
        yield server


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is done once a second is done more often: tests wait for it."""
    monkeypatch.setattr("sojourn.hub.redis.engine._SWEEP", 0.1)
