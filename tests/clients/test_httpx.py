"""httpx against a Sojourn server, and against one that drips or says nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from sojourn.clients.httpx import BoundedTransport, bounded
from sojourn.errors import DeadlineExceeded, PoolWaitExceeded
from sojourn.scopes.deadline import deadline, remaining
from sojourn.testing.faults import FaultProxy
from tests.clients.scene import budgets, run, took
from tests.clients.upstream import upstream


@asynccontextmanager
async def client_at(port: int, **options: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A bounded client."""
    client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, **options)
    async with bounded(client, dependency="billing") as same:
        assert same is client
        yield client


def open_connections(client: httpx.AsyncClient) -> int:
    """Those of its pool."""
    transport: Any = client._transport
    return len(transport._transport._pool.connections)


async def get(client: httpx.AsyncClient, path: str, seconds: float | None, **options: Any) -> httpx.Response:
    async with deadline(seconds, "pay"):
        return await client.get(path, **options)


def test_without_any_limit_a_request_is_sent_as_it_is() -> None:
    async def main() -> None:
        async with upstream() as site, client_at(site.port) as client:
            assert (await client.get("/")).text == "hello"
            assert site.requests[-1].get("request-timeout-ms") is None

    run(main())


def test_the_server_is_told_what_remains() -> None:
    async def main() -> None:
        async with upstream() as site, client_at(site.port) as client:
            await get(client, "/", 0.5)
            assert 400 <= int(site.requests[-1]["request-timeout-ms"]) <= 500
            await get(client, "/", 0.5, headers={"Request-Timeout-Ms": "70"})
            assert site.requests[-1]["request-timeout-ms"] == "70"
            await get(client, "/", 0.5, headers={"Request-Timeout-Ms": "7000"})
            assert 400 <= int(site.requests[-1]["request-timeout-ms"]) <= 500
            budgets(billing=0.2)
            await client.get("/")
            assert 100 <= int(site.requests[-1]["request-timeout-ms"]) <= 200

    run(main())


@pytest.mark.parametrize("path", ["/slow", "/drip", "/stall"])
def test_the_total_bounds_head_and_body_and_the_pool_is_clean_afterwards(path: str) -> None:
    async def main() -> None:
        async with upstream() as site, client_at(site.port) as client:
            with took(0.19, 0.55), pytest.raises(DeadlineExceeded, match=r"'pay' of 0\.2 s passed"):
                await get(client, path, 0.2)
            assert open_connections(client) == 0
            budgets(billing=0.1)
            with took(0.09, 0.45), pytest.raises(DeadlineExceeded, match=r"'billing' of 0\.1 s passed") as raised:
                await client.get(path)
            assert "test_httpx.py" in raised.value.where
            assert open_connections(client) == 0
            assert (await client.get("/")).text == "hello"

    run(main())


def test_a_body_is_bounded_until_it_is_closed_and_the_callers_own_code_is_not_interrupted() -> None:
    async def main() -> None:
        async with upstream() as site, client_at(site.port) as client:
            budgets(billing=0.15)
            done = []

            async def read() -> None:
                async with client.stream("GET", "/drip") as answer:
                    async for _ in answer.aiter_raw():
                        await asyncio.sleep(0.2)
                        done.append("not interrupted")

            with took(0.19, 0.55), pytest.raises(DeadlineExceeded, match="'billing'"):
                await read()
            assert done == ["not interrupted"]
            assert open_connections(client) == 0

    run(main())


def test_redirects_are_within_the_same_total() -> None:
    async def main() -> None:
        async with upstream() as site, client_at(site.port) as client:
            budgets(billing=0.2)
            with took(0.19, 0.55), pytest.raises(DeadlineExceeded, match="'billing'"):
                await client.get("/round", follow_redirects=True)
            assert len(site.requests) > 2
            assert open_connections(client) <= 1

    run(main())


def test_nothing_is_sent_when_no_time_is_left() -> None:
    async def main() -> None:
        async with upstream() as site, client_at(site.port) as client:

            async def late() -> None:
                async with deadline(0.01, "pay"):
                    try:
                        await asyncio.sleep(1)
                    finally:
                        assert remaining() == 0.0
                        with pytest.raises(DeadlineExceeded, match="'pay'"):
                            await client.post("/")

            with pytest.raises(DeadlineExceeded):
                await late()
            assert site.requests == []

    run(main())


def test_the_clients_own_timeouts_stay_when_they_are_shorter() -> None:
    async def main() -> None:
        async with upstream() as site, client_at(site.port, timeout=0.05) as client:
            with took(0.04, 0.35), pytest.raises(httpx.ReadTimeout):
                await get(client, "/slow", 5)

    run(main())


def test_a_full_pool_is_told_apart_from_a_slow_server() -> None:
    async def main() -> None:
        limits = httpx.Limits(max_connections=1)
        async with upstream() as site, client_at(site.port, limits=limits) as client, client.stream("GET", "/drip"):
            waited = r"waited for a connection of pool 'billing': deadline 'pay' of 0\.4 s passed"
            with took(0.35, 0.65), pytest.raises(PoolWaitExceeded, match=waited):
                await get(client, "/", 0.4)

    run(main())


def test_a_half_open_server_ends_at_the_deadline_and_leaves_no_connection() -> None:
    async def main() -> None:
        async with (
            upstream() as site,
            FaultProxy(("127.0.0.1", site.port)) as proxy,
            client_at(proxy.address[1]) as client,
        ):
            await client.get("/")
            lost = proxy.timeout()

            async def ends() -> None:
                with took(0.09, 0.45), pytest.raises(DeadlineExceeded, match="'pay'"):
                    await get(client, "/", 0.1)

            await asyncio.gather(*(ends() for _ in range(5)))
            assert open_connections(client) == 0
            lost.remove()
            assert (await client.get("/")).text == "hello"

    run(main())


def test_who_is_cancelled_leaves_no_connection_behind_wherever_that_is() -> None:
    async def main() -> None:
        async with upstream() as site, client_at(site.port) as client:
            for turns in range(0, 60, 3):
                task = asyncio.ensure_future(get(client, "/drip", 5))
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                assert open_connections(client) == 0

    run(main())


def test_a_transport_is_wrapped_and_mounts_are_bounded_too() -> None:
    async def main() -> None:
        def answer(request: httpx.Request) -> httpx.Response:
            return httpx.Response(200, text=request.headers.get("request-timeout-ms", ""))

        plain = httpx.MockTransport(answer)
        async with httpx.AsyncClient(transport=bounded(plain, "billing")) as client:
            assert 100 <= int((await get(client, "http://a/", 0.3)).text) <= 300
            assert (await client.get("http://a/")).text == ""
        client = bounded(httpx.AsyncClient(mounts={"http://b": plain, "http://c": None}), "billing")
        assert isinstance(client._transport, BoundedTransport)
        assert 100 <= int((await get(client, "http://b/", 0.3)).text) <= 300
        await client.aclose()

    run(main())


def test_what_is_no_client_is_refused() -> None:
    with pytest.raises(TypeError, match="Client is no AsyncClient and no asynchronous transport of httpx"):
        bounded(httpx.Client())  # type: ignore[type-var]
