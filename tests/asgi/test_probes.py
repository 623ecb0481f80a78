"""Probes on the main listeners: the server's own answer, whatever the application and the limits do."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sojourn.asgi.probes import PATHS, Probes
from sojourn.config import Admin, App, Config, Drain, Limits, Timeouts
from sojourn.testing import MemoryServer, Response

PROBES = Admin(probes=True)


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answers with its name."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (await receive())["type"] != "websocket.disconnect":
            pass
        return
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"3")]})
    await send({"type": "http.response.body", "body": b"app"})


async def asked(server: MemoryServer, path: str, *headers: str, method: str = "GET") -> Response:
    client = server.connect()
    client.get(path, *headers, method=method)
    await server.settle()
    return client.response(method=method)


@pytest.mark.parametrize("path", PATHS)
def test_a_probe_is_answered_before_the_application(path: str) -> None:
    async def main() -> None:
        async with MemoryServer(app, Config(admin=PROBES)) as server:
            answer = await asked(server, path)
            assert (answer.status, answer.body) == (200, b"ok")
            assert answer.header("cache-control") == "no-store"
            assert (answer.header("content-type") or "").startswith("text/plain")
            assert (await asked(server, f"{path}?verbose=1")).body == b"ok"

    asyncio.run(main())


@pytest.mark.parametrize("path", PATHS)
def test_without_admin_probes_the_paths_are_the_applications(path: str) -> None:
    async def main() -> None:
        async with MemoryServer(app) as server:
            assert (await asked(server, path)).body == b"app"

    asyncio.run(main())


def test_a_probe_is_answered_in_json_when_that_is_accepted() -> None:
    async def main() -> None:
        async with MemoryServer(app, Config(admin=PROBES)) as server:
            answer = await asked(server, "/livez", "accept: text/html, application/json;q=0.9")
            assert answer.header("content-type") == "application/json"
            assert json.loads(answer.body) == {"status": "ok"}
            assert (await asked(server, "/livez", "accept: */*")).body == b"ok"

    asyncio.run(main())


def test_head_asks_without_a_body() -> None:
    async def main() -> None:
        async with MemoryServer(app, Config(admin=PROBES)) as server:
            client = server.connect()
            client.get("/readyz", method="HEAD")
            await server.settle()
            assert client.response(method="HEAD").status == 200
            assert client.received == b""

    asyncio.run(main())


@pytest.mark.parametrize(("method", "path"), [("POST", "/livez"), ("GET", "/livez/"), ("GET", "/x/readyz")])
def test_everything_else_is_the_applications(method: str, path: str) -> None:
    async def main() -> None:
        async with MemoryServer(app, Config(admin=PROBES)) as server:
            assert (await asked(server, path, method=method)).body == b"app"

    asyncio.run(main())


def test_a_websocket_at_the_path_of_a_probe_is_the_applications() -> None:
    async def main() -> None:
        async with MemoryServer(app, Config(admin=PROBES)) as server:
            upgrade = ("connection: upgrade", "upgrade: websocket", "sec-websocket-version: 13")
            answer = await asked(server, "/livez", *upgrade, "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==")
            assert answer.status == 101

    asyncio.run(main())


def test_clients_ask_without_the_root_path() -> None:
    async def main() -> None:
        async with MemoryServer(app, Config(admin=PROBES, app=App(root_path="/api"))) as server:
            assert (await asked(server, "/readyz")).body == b"ok"
            assert (await asked(server, "/api/readyz")).body == b"app"

    asyncio.run(main())


def test_a_thousand_pipelined_probes_are_answered_in_order_on_one_connection() -> None:
    async def main() -> None:
        async with MemoryServer(app, Config(admin=PROBES)) as server:
            client = server.connect()
            client.send(b"GET /livez HTTP/1.1\r\nhost: a\r\n\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n" * 500)
            for body in [b"ok", b"app"] * 500:
                for _ in range(10):
                    if (answer := client.response()).complete:
                        break
                    await server.settle()
                assert answer.body == body
            assert server.open == 1

    asyncio.run(main())


def test_readiness_says_no_when_a_drain_begins_and_the_server_serves_on() -> None:
    async def main() -> None:
        async with MemoryServer(app, Config(admin=PROBES, drain=Drain(delay=5))) as server:
            assert (await asked(server, "/readyz")).status == 200
            server.drain()
            answer = await asked(server, "/readyz")
            assert answer.status == 503
            assert answer.header("content-type") == "application/problem+json"
            assert json.loads(answer.body)["reason"] == "draining"
            assert (await asked(server, "/livez")).status == 200
            assert (await asked(server, "/startupz")).status == 200
            assert (await asked(server, "/")).body == b"app"

    asyncio.run(main())


def test_a_probe_takes_no_slot_and_waits_in_no_queue() -> None:
    async def main() -> None:
        gate = asyncio.Event()

        async def waits(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http":
                await gate.wait()
            await app(scope, receive, send)

        config = Config(admin=PROBES, limits=Limits(requests=1, queue=0))
        async with MemoryServer(waits, config) as server:
            held = server.connect()
            held.get("/")
            await server.settle()
            assert (await asked(server, "/")).status == 503  # what is no probe is shed
            for path in PATHS:
                assert (await asked(server, path)).body == b"ok"
            gate.set()
            await server.settle()
            assert held.response().body == b"app"
            assert (await asked(server, "/")).body == b"app"  # the slot is free: no probe has taken or given it back

    asyncio.run(main())


def test_a_probe_has_the_deadlines_of_a_request() -> None:
    async def main() -> None:
        async with MemoryServer(app, Config(admin=PROBES, timeouts=Timeouts(keep_alive=5))) as server:
            client = server.connect()
            client.get("/livez")
            await server.advance(6)
            assert client.connection.ending is not None
            assert client.connection.ending.reason == "keep_alive_idle"

    asyncio.run(main())


# -- The first bytes of a connection over a limit

HEAD = b"GET /readyz HTTP/1.1\r\nhost: a\r\nuser-agent: kube-probe/1.30\r\n\r\n"
RECOGNISED: dict[bytes, bool | None] = {
    b"": None,
    b"GE": None,
    b"GET /li": None,
    b"GET /livez": None,
    b"GET /livez HTTP/1.1\r\nhost: a\r\n": None,
    HEAD: True,
    b"HEAD /startupz HTTP/1.0\r\n\r\n": True,
    b"GET /livez?full=1 HTTP/1.1\r\nhost: a\r\n\r\n": True,
    HEAD + HEAD: True,
    b"GET / HTTP/1.1\r\n": False,
    b"POST": False,
    b"\x16\x03\x01": False,
    b"GET /livezz HTTP/1.1\r\nhost: a\r\n\r\n": False,
    b"GET /livez/../admin HTTP/1.1\r\nhost: a\r\n\r\n": False,
    b"GET /livez\r\nhost: a\r\n\r\n": False,
    b"GET /livez HTTP/1.1\r\nhost: a\r\nUpgrade: websocket\r\n\r\n": False,
    b"GET /livez HTTP/1.1\r\nhost: a\r\n" + b"x" * 200: False,
}


@pytest.mark.parametrize("data", RECOGNISED)
def test_a_probe_is_known_by_its_head(data: bytes) -> None:
    assert Probes.recognise(data, 200) is RECOGNISED[data]


@given(at=st.integers(0, len(HEAD) - 1))
def test_no_piece_of_a_probe_is_taken_for_something_else(at: int) -> None:
    assert Probes.recognise(HEAD[:at], 200) is None
