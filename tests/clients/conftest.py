"""Servers that all tests of clients share; each test has its own proxy in front."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.databases import postgres_server, redis_server


@pytest.fixture(scope="session")
def postgres() -> Iterator[int]:
    """The port of a PostgreSQL."""
    with postgres_server() as port:
        yield port


@pytest.fixture(scope="session")
def redis_port() -> Iterator[int]:
    """The port of a Redis."""
    with redis_server() as server:
        yield server.port
