"""aiohttp's client against a Sojourn server, and against one that drips or says nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from sojourn.clients.aiohttp import bounded
from sojourn.errors import DeadlineExceeded
from sojourn.scopes.deadline import deadline, remaining
from sojourn.testing.faults import FaultProxy
from tests.clients.scene import budgets, run, took
from tests.clients.upstream import upstream


@asynccontextmanager
async def session_at(port: int, **options: Any) -> AsyncIterator[aiohttp.ClientSession]:
    """A bounded session."""
    session = aiohttp.ClientSession(f"http://127.0.0.1:{port}", **options)
    assert bounded(session, dependency="billing") is session
    async with session:
        yield session


def open_connections(session: aiohttp.ClientSession) -> int:
    """Those that are in use."""
    connector: Any = session.connector
    return len(connector._acquired)


async def get(session: aiohttp.ClientSession, path: str, seconds: float | None, **options: Any) -> str:
    async with deadline(seconds, "pay"), session.get(path, **options) as answer:
        return await answer.text()


def test_without_any_limit_a_request_is_sent_as_it_is() -> None:
    async def main() -> None:
        async with upstream() as site, session_at(site.port) as session:
            assert await get(session, "/", None) == "hello"
            assert site.requests[-1].get("request-timeout-ms") is None

    run(main())


def test_the_server_is_told_what_remains() -> None:
    async def main() -> None:
        async with upstream() as site, session_at(site.port) as session:
            await get(session, "/", 0.5, headers={"A": "b"})
            assert 400 <= int(site.requests[-1]["request-timeout-ms"]) <= 500
            assert site.requests[-1]["a"] == "b"
            await get(session, "/", 0.5, headers={"Request-Timeout-Ms": "70"})
            assert site.requests[-1]["request-timeout-ms"] == "70"
            await get(session, "/", 0.5, headers=[("request-timeout-ms", "7000")])
            assert 400 <= int(site.requests[-1]["request-timeout-ms"]) <= 500

    run(main())


@pytest.mark.parametrize("path", ["/slow", "/drip", "/stall"])
def test_the_total_bounds_head_and_body_and_the_pool_is_clean_afterwards(path: str) -> None:
    async def main() -> None:
        async with upstream() as site, session_at(site.port) as session:
            with took(0.19, 0.55), pytest.raises(DeadlineExceeded, match=r"'pay' of 0\.2 s passed"):
                await get(session, path, 0.2)
            assert open_connections(session) == 0
            budgets(billing=0.1)
            with took(0.09, 0.45), pytest.raises(DeadlineExceeded, match=r"'billing' of 0\.1 s passed") as raised:
                await get(session, path, None)
            assert "test_aiohttp.py" in raised.value.where
            assert open_connections(session) == 0
            assert await get(session, "/", None) == "hello"

    run(main())


def test_a_body_is_bounded_and_the_callers_own_code_is_not_interrupted() -> None:
    async def main() -> None:
        async with upstream() as site, session_at(site.port) as session:
            budgets(billing=0.15)
            done = []

            async def read() -> None:
                async with session.get("/drip") as answer:
                    await answer.content.readany()
                    await asyncio.sleep(0.2)
                    done.append("not interrupted")
                    while await answer.content.readany():
                        pass

            with took(0.19, 0.55), pytest.raises(DeadlineExceeded, match="'billing'"):
                await read()
            assert done == ["not interrupted"]
            assert open_connections(session) == 0

    run(main())


def test_redirects_are_within_the_same_total() -> None:
    async def main() -> None:
        async with upstream() as site, session_at(site.port) as session:
            budgets(billing=0.2)
            with took(0.19, 0.55), pytest.raises(DeadlineExceeded, match="'billing'"):
                await get(session, "/round", None, max_redirects=50)
            assert len(site.requests) > 2
            assert open_connections(session) <= 1

    run(main())


def test_nothing_is_sent_when_no_time_is_left() -> None:
    async def main() -> None:
        async with upstream() as site, session_at(site.port) as session:

            async def late() -> None:
                async with deadline(0.01, "pay"):
                    try:
                        await asyncio.sleep(1)
                    finally:
                        assert remaining() == 0.0
                        with pytest.raises(DeadlineExceeded, match="'pay'"):
                            await session.post("/")

            with pytest.raises(DeadlineExceeded):
                await late()
            assert site.requests == []

    run(main())


@pytest.mark.parametrize("where", ["session", "request"])
def test_the_sessions_own_timeouts_stay_when_they_are_shorter(where: str) -> None:
    async def main() -> None:
        own = {"timeout": aiohttp.ClientTimeout(total=0.05)}
        session_own, request_own = (own, {}) if where == "session" else ({}, own)
        async with upstream() as site, session_at(site.port, **session_own) as session:
            with took(0.04, 0.35), pytest.raises(TimeoutError) as raised:
                await get(session, "/slow", 5, **request_own)
            assert not isinstance(raised.value, DeadlineExceeded)

    run(main())


def test_a_half_open_server_ends_at_the_deadline_and_leaves_no_connection() -> None:
    async def main() -> None:
        async with (
            upstream() as site,
            FaultProxy(("127.0.0.1", site.port)) as proxy,
            session_at(proxy.address[1]) as session,
        ):
            await get(session, "/", None)
            lost = proxy.timeout()

            async def ends() -> None:
                with took(0.09, 0.45), pytest.raises(DeadlineExceeded, match="'pay'"):
                    await get(session, "/", 0.1)

            await asyncio.gather(*(ends() for _ in range(5)))
            assert open_connections(session) == 0
            lost.remove()
            assert await get(session, "/", 5) == "hello"

    run(main())


def test_who_is_cancelled_leaves_no_connection_behind_wherever_that_is() -> None:
    async def main() -> None:
        async with upstream() as site, session_at(site.port) as session:
            for turns in range(0, 60, 3):
                task = asyncio.ensure_future(get(session, "/drip", 5))
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                assert open_connections(session) == 0

    run(main())


def test_what_is_no_session_is_refused() -> None:
    with pytest.raises(TypeError, match=r"dict is no aiohttp\.ClientSession"):
        bounded({})  # type: ignore[type-var]
