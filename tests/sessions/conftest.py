"""A Redis of Debian's, started for these tests on a port of its own."""

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
