"""A Redis of Debian's for these tests."""

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
