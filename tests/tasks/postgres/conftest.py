"""PostgreSQL of Debian's, started for these tests on a port of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.databases import PostgresServer


@pytest.fixture(scope="session")
def server() -> Iterator[PostgresServer]:
    """One that a test may stop, if it starts it again; each takes a schema of its own."""
    server = PostgresServer()
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="session")
def postgres(server: PostgresServer) -> int:
    """Its port."""
    return server.port
