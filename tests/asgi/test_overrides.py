"""Settings of one route, one endpoint, one request."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

import sojourn
from sojourn.asgi.overrides import PER_REQUEST, RouteTable
from sojourn.config import Config, Route
from sojourn.errors import ConfigError
from sojourn.testing import MemoryServer
from sojourn.typing import Receive, Scope, Send


def table(*routes: Route) -> RouteTable:
    return RouteTable(Config(routes=routes))


# --- routes


@pytest.mark.parametrize(
    ("method", "path", "handler"),
    [
        ("GET", "/exact", 1.0),
        ("GET", "/exact/more", 4.0),
        ("GET", "/prefix/a/b", 2.0),
        ("GET", "/prefix/", 2.0),
        ("GET", "/prefix", 4.0),
        ("POST", "/post", 3.0),
        ("GET", "/post", 4.0),
    ],
)
def test_the_first_route_that_matches_counts(method: str, path: str, handler: float) -> None:
    routes = table(
        Route(path="/exact", timeouts={"handler": 1.0}),
        Route(path="/prefix/*", timeouts={"handler": 2.0}),
        Route(path="/post", methods=("POST",), timeouts={"handler": 3.0}),
        Route(path="/*", timeouts={"handler": 4.0}),
    )
    for _ in range(2):  # found, and then remembered
        found = routes.match(method, path)
        assert found is not None
        assert found.timeouts == {"handler": handler}


def test_no_route_means_no_settings() -> None:
    assert table(Route(path="/a")).match("GET", "/b") is None


def test_none_takes_a_limit_away() -> None:
    found = table(Route(path="/a", timeouts={"body_idle": "none"}, limits={"body": "none"})).match("GET", "/a")
    assert found is not None
    assert (found.timeouts, found.limits) == ({"body_idle": None}, {"body": None})


def test_a_client_that_asks_for_many_paths_fills_no_memory() -> None:
    routes = table(Route(path="/a*"))
    for number in range(5000):
        routes.match("GET", f"/{number}")
    assert len(routes._known) <= 1024


@pytest.mark.parametrize(
    ("route", "message"),
    [
        (Route(path="/", timeouts={"keep_alive": 1.0}), r"routes\[0\].timeouts.keep_alive: can't differ per route"),
        (Route(path="/", limits={"zzz": 1}), r"routes\[0\].limits.zzz: no such key"),
        (Route(path="/", websocket={"queue": 1}), r"routes\[0\].websocket.queue: can't differ per route"),
        (Route(path="/", timeouts={"handler": 0.0}), r"routes\[0\].timeouts.handler: 0.0 is not above 0"),
    ],
)
def test_what_a_route_can_not_set_is_refused_at_once(route: Route, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        table(route)


def test_every_key_a_route_may_set_exists() -> None:
    config = Config()
    for group, keys in PER_REQUEST.items():
        assert keys <= set(getattr(config, group).__struct_fields__)


# --- decorators and the request that runs


@pytest.mark.parametrize(
    ("decorate", "message"),
    [
        (lambda: sojourn.timeouts(handlr=1.0), "no timeout 'handlr'; there are handler, "),
        (lambda: sojourn.timeouts(handler=0), "above zero, not 0"),
        (lambda: sojourn.limits(headers=1), "no limit 'headers'; there are body, "),
        (lambda: sojourn.limits(body=-1), "can't be negative: -1"),
    ],
)
def test_a_wrong_name_is_refused_where_it_is_written(decorate: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decorate()


def test_a_decorated_generator_is_refused_where_it_is_written() -> None:
    with pytest.raises(TypeError, match="decorate the endpoint"):

        @sojourn.timeouts(handler=1.0)
        async def generator() -> Any:
            yield 1


def test_outside_a_request_a_decorator_does_nothing() -> None:
    @sojourn.timeouts(handler=1.0)
    @sojourn.limits(body=None)
    async def endpoint(value: int) -> int:
        """What it does."""
        return value

    @sojourn.timeouts(handler=1.0)
    def plain(value: int) -> int:
        return value

    assert asyncio.run(endpoint(3)) == plain(3) == 3
    assert (endpoint.__name__, endpoint.__doc__) == ("endpoint", "What it does.")
    assert sojourn.current_request() is None


async def answer(send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def test_a_plain_endpoint_is_given_its_deadline_in_the_loop_and_in_a_thread() -> None:
    remaining: dict[str, float | None] = {}

    @sojourn.timeouts(handler=5.0)
    def endpoint(where: str) -> None:
        request = sojourn.current_request()
        assert request is not None
        if where == "loop":
            remaining[where] = request.remaining

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        if scope["path"] == "/loop":
            endpoint("loop")
        else:
            await asyncio.to_thread(endpoint, "thread")
            assert threading.current_thread() is threading.main_thread()
            await asyncio.sleep(0)
            request = sojourn.current_request()
            assert request is not None
            remaining["thread"] = request.remaining
        await answer(send)

    async def main() -> None:
        async with MemoryServer(app) as server:
            for path in ("/loop", "/thread"):
                client = server.connect()
                client.get(path)
                while not client.response().complete:  # noqa: ASYNC110 - a thread has no event of this loop
                    await asyncio.sleep(0.001)

    asyncio.run(main())
    assert remaining == {"loop": 5.0, "thread": 5.0}


def test_settings_of_one_request_are_not_those_of_the_next() -> None:
    seen: list[float | None] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request = scope["extensions"]["sojourn"]
        if scope["path"] == "/first":
            request.set_timeout("response_start", 7.0)
        seen.append(request.remaining)
        await answer(send)

    async def main() -> None:
        async with MemoryServer(app, Config(routes=(Route(path="/*", timeouts={"response_start": 9.0}),))) as server:
            client = server.connect()
            for path in ("/first", "/second"):
                client.get(path)
                await server.settle()
                assert client.response().complete

    asyncio.run(main())
    assert seen == [7.0, 9.0]
