"""One process without a supervisor answers on its admin listener as a supervisor does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

import sojourn
from sojourn.config import Admin, Bind, Config, Drain, Log
from sojourn.server.server import Server


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})


@asynccontextmanager
async def serving(place: Path, **admin: Any) -> AsyncIterator[tuple[Server, httpx.AsyncClient]]:
    config = Config(
        bind=Bind(port=0),
        admin=Admin(bind=f"unix:{place / 'admin.sock'}", **admin),
        drain=Drain(delay=0.0),
        log=Log(access="off"),
    )
    up: asyncio.Future[Server] = asyncio.get_running_loop().create_future()
    running = asyncio.ensure_future(sojourn.serve(app, config, started=up.set_result))
    await asyncio.wait({running, up}, return_when=asyncio.FIRST_COMPLETED)
    transport = httpx.AsyncHTTPTransport(uds=str(place / "admin.sock"))
    try:
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            yield up.result(), client
    finally:
        up.result().stop()
        await running
    assert not (place / "admin.sock").exists()


def check(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(test())  # type: ignore[arg-type]


def test_it_shows_itself_as_the_only_worker(tmp_path: Path) -> None:
    async def test() -> None:
        async with serving(tmp_path) as (server, client):
            async with httpx.AsyncClient() as visitor:
                assert (await visitor.get(server.addresses[0])).text == "ok"
                status = (await client.get("/status")).json()
                assert (status["state"], status["ready"]) == ("serving", True)
                assert [(each["number"], each["served"], each["connections"]) for each in status["workers"]] == [
                    (1, 1, 1)
                ]
                (connection,) = (await client.get("/connections")).json()["connections"]
                assert (connection["worker"], connection["kind"]) == (1, "idle")
            for path in ("/tasks", "/leaks", "/eof", "/stacks", "/config", "/debug/pprof/goroutine?debug=1"):
                assert (await client.get(path)).status_code == 200, path
            assert (await client.get("/connections?worker=2")).status_code == 404

    check(test)


def test_it_serves_its_own_metrics(tmp_path: Path) -> None:
    async def test() -> None:
        async with serving(tmp_path) as (server, client):
            async with httpx.AsyncClient() as visitor:
                await visitor.get(server.addresses[0])
            await asyncio.sleep(0.3)
            page = (await client.get("/metrics")).text
            assert "sojourn_connections_accepted_total 1.0" in page
            assert 'sojourn_worker_up{worker="1"} 1.0' in page

    check(test)


def test_its_settings_change_while_it_serves_except_what_needs_a_supervisor(tmp_path: Path) -> None:
    async def test() -> None:
        async with serving(tmp_path, actions=True) as (server, client):
            changed = await client.post("/config", json={"timeouts.keep_alive": 30})
            assert (changed.status_code, changed.json()["version"]) == (200, 2)
            assert server.site.keep_alive == 30.0
            assert (await client.post("/config", json={"app.workers": 4})).status_code == 409
            for command in ("/restart", "/upgrade"):
                refused = await client.post(command)
                assert (refused.status_code, refused.json()["reason"]) == (409, "no_supervisor")

    check(test)


def test_it_drains_when_it_is_told_to(tmp_path: Path) -> None:
    async def test() -> None:
        async with serving(tmp_path) as (server, client):
            assert (await client.post("/drain")).status_code == 202
            assert server.stopping

    check(test)


def test_an_admin_address_that_is_taken_keeps_it_from_starting(tmp_path: Path) -> None:
    async def test() -> None:
        async with serving(tmp_path):
            again = Config(bind=Bind(port=0), admin=Admin(bind=f"unix:{tmp_path / 'admin.sock'}"))
            with pytest.raises(sojourn.BindError, match=r"admin\.bind"):
                await sojourn.serve(app, again)

    check(test)
