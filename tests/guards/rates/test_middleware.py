"""Rate limits in front of applications: plain ones, frameworks', WebSockets, streams, under Sojourn and others."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import fastapi
import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.websockets import WebSocket
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from sojourn.errors import RateLimited
from sojourn.events import CircuitChanged, RequestLimited
from sojourn.guards.rates.limiter import RateLimiter
from sojourn.guards.rates.middleware import RateLimit
from sojourn.guards.rates.quota import Quota
from sojourn.guards.rates.redis import RedisRates
from tests.asgi.harness import get, on_both_loops, serving, settings, text_app
from tests.databases import free_port

Messages = list[dict[str, Any]]


def request(kind: str = "http", **more: Any) -> dict[str, Any]:
    return {"type": kind, "method": "GET", "path": "/", "client": ("192.0.2.1", 1), "headers": [], **more}


def sent(app: Any, scope: dict[str, Any], *received: dict[str, Any]) -> Messages:
    """What an application sends, called as a server does."""
    messages: Messages = []
    coming = iter(received)

    async def receive() -> dict[str, Any]:
        return next(coming)

    async def send(message: dict[str, Any]) -> None:
        messages.append(message)

    async def main() -> None:
        await app(scope, receive, send)

    asyncio.run(main())
    return messages


async def hello(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-app", b"1")]})
    await send({"type": "http.response.body", "body": b"hello"})


# -- Against the interface


def test_what_is_allowed_passes_with_what_is_left_in_its_head() -> None:
    start, body = sent(RateLimit(hello, "100/minute"), request())
    assert start["headers"] == [
        (b"x-app", b"1"),
        (b"ratelimit-policy", b'"default";q=100;w=60'),
        (b"ratelimit", b'"default";r=99;t=1'),
    ]
    assert body == {"type": "http.response.body", "body": b"hello"}


def test_without_headers_every_message_is_the_applications() -> None:
    assert sent(RateLimit(hello, "100/minute", headers=False), request()) == sent(hello, request())


def test_what_is_refused_never_reaches_the_application() -> None:
    called = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        called.append(scope)
        await hello(scope, receive, send)

    limited = RateLimit(app, ["1/minute"])
    sent(limited, request())
    start, body = sent(limited, request())
    assert len(called) == 1
    headers = dict(start["headers"])
    assert start["status"] == 429
    assert headers[b"retry-after"] == b"60"
    assert headers[b"ratelimit"] == b'"default";r=0;t=60'
    assert headers[b"content-type"] == b"application/problem+json"
    assert int(headers[b"content-length"]) == len(body["body"])


def test_lifespan_is_not_counted() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "lifespan.startup.complete"})

    limited = RateLimit(app, "1/minute")
    for _ in range(3):
        assert sent(limited, {"type": "lifespan"}) == [{"type": "lifespan.startup.complete"}]


@pytest.mark.parametrize("extensions", [{}, {"extensions": None}, {"extensions": {}}])
def test_a_websocket_is_closed_before_its_handshake_where_there_is_no_denial(extensions: dict[str, Any]) -> None:
    limited = RateLimit(hello, RateLimiter("1/minute"))
    sent(limited, request())
    scope = request("websocket", **extensions)
    assert sent(limited, scope, {"type": "websocket.connect"}) == [{"type": "websocket.close", "code": 1013}]


def test_a_websocket_is_denied_with_the_whole_answer_where_that_is_possible() -> None:
    limited = RateLimit(hello, "1/minute")
    sent(limited, request())
    scope = request("websocket", extensions={"websocket.http.response": {}})
    start, body = sent(limited, scope, {"type": "websocket.connect"})
    assert (start["type"], start["status"]) == ("websocket.http.response.start", 429)
    assert (b"retry-after", b"60") in start["headers"]
    assert body["type"] == "websocket.http.response.body"


def test_a_refusal_that_the_application_lets_out_is_answered() -> None:
    inner = RateLimiter(Quota("1/hour", name="export"))

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await inner.check(scope)
        await hello(scope, receive, send)

    limited = RateLimit(app, "100/minute")
    assert sent(limited, request())[0]["status"] == 200
    start, body = sent(limited, request())
    assert start["status"] == 429
    assert dict(start["headers"])[b"retry-after"] == b"3600"
    assert b"export" in body["body"]


def test_a_refusal_after_the_head_stays_an_error() -> None:
    inner = RateLimiter("1/hour")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await inner.check(scope, 2)

    with pytest.raises(RateLimited):
        sent(RateLimit(app, "100/minute"), request())


def test_when_nobody_can_tell_closed_answers_503() -> None:
    engine = RedisRates(f"redis://127.0.0.1:{free_port()}", on_failure="closed")
    start, _ = sent(RateLimit(hello, "100/minute", engine=engine), request())
    assert start["status"] == 503
    assert (b"retry-after", b"1") in start["headers"]


def test_a_limiter_has_its_engine_already() -> None:
    with pytest.raises(ValueError, match="engine already"):
        RateLimit(hello, RateLimiter("1/s"), engine=RedisRates("redis://localhost"))


# -- Under Sojourn, on real sockets


@on_both_loops
def test_a_refused_client_keeps_its_connection(loop: str) -> None:
    app = RateLimit(text_app(b"hello"), Quota("3/minute", path="/api/*"))
    with serving(app, settings(), loop) as served:
        wire = served.connect()
        answers = [wire.send(get("/api/a")).answer() for _ in range(5)]
        assert [each.status for each in answers] == [200, 200, 200, 429, 429]
        assert answers[3]["retry-after"] == "20"
        assert answers[0]["ratelimit"] == '"default";r=2;t=20'
        assert wire.send(get("/other")).answer().status == 200
        body = wire.send(get("/api/a", method="POST", body=b"x" * 1000)).answer()
        assert body.status == 429
        assert wire.send(get("/other")).answer().body == b"hello"


def test_who_watches_is_told_of_refusals_and_of_an_outage_once() -> None:
    engine = RedisRates(f"redis://127.0.0.1:{free_port()}")
    app = RateLimit(text_app(b"hello"), Quota("1/minute", name="api"), engine=engine)
    with serving(app) as served:
        wire = served.connect()
        for _ in range(5):
            wire.send(get("/x")).answer()
        first, second, *_ = served.wait(RequestLimited, 4)
        assert (first.client, first.path, first.quotas) == ("127.0.0.1", "/x", ("api",))
        assert 59 < first.retry_after <= 60
        assert first.connection == second.connection
        (outage,) = served.wait(CircuitChanged)
        assert (outage.guard, outage.open) == ("rate_limits", True)
        assert "each worker counts for itself" in outage.detail


def test_the_client_is_who_trusted_proxies_say() -> None:
    with serving(RateLimit(text_app(b"hello"), "1/minute")) as served:
        wire = served.connect()
        statuses = [
            wire.send(get("/", f"x-forwarded-for: {client}")).answer().status
            for client in ("192.0.2.1", "192.0.2.2", "192.0.2.1", "2001:db8::1", "2001:db8::2")
        ]
        assert statuses == [200, 200, 429, 200, 429]


# -- Frameworks, and another server


@contextmanager
def under_uvicorn(app: Any) -> Iterator[str]:
    """Serve an application by another server."""
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error", lifespan="off", ws="websockets-sansio"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        for _ in range(500):
            if server.started:
                break
            threading.Event().wait(0.01)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(10)


@contextmanager
def under_sojourn(app: Any) -> Iterator[str]:
    with serving(app) as served:
        yield f"http://127.0.0.1:{served.port}"


servers = pytest.mark.parametrize("server", [under_sojourn, under_uvicorn])


def starlette_app() -> Any:
    async def stream(request: Request) -> Response:
        return StreamingResponse((f"{number}\n" for number in range(3)), media_type="text/plain")

    async def socket(websocket: WebSocket) -> None:
        limiter: RateLimiter = websocket.app.state.messages
        await websocket.accept()
        for _ in range(4):
            text = await websocket.receive_text()
            allowed = await limiter.try_take("alice")
            await websocket.send_text(text if allowed else "slower")
        await websocket.close()

    app = Starlette(routes=[Route("/stream", stream)])
    app.add_websocket_route("/ws", socket) if hasattr(app, "add_websocket_route") else app.router.add_websocket_route(
        "/ws", socket
    )
    app.state.messages = RateLimiter("2/minute")
    return app


@servers
def test_a_framework_is_limited_from_outside(server: Any) -> None:
    app = starlette_app()
    app.add_middleware(RateLimit, limits=[Quota("2/minute", path="/stream")])
    with server(app) as url, httpx.Client(base_url=url) as client:
        answers = [client.get("/stream") for _ in range(3)]
        assert [each.status_code for each in answers] == [200, 200, 429]
        assert answers[0].text == "0\n1\n2\n"
        assert answers[0].headers["ratelimit"] == '"default";r=1;t=30'
        assert answers[2].json()["violated-policies"] == ["default"]
        assert client.get("/none").status_code == 404


@servers
def test_websockets_are_limited_by_handshake_and_by_message(server: Any) -> None:
    app = RateLimit(starlette_app(), Quota("1/minute", path="/ws"))
    with server(app) as url:
        with connect(f"ws{url.removeprefix('http')}/ws") as socket:
            answers = []
            for number in range(4):
                socket.send(str(number))
                answers.append(socket.recv(timeout=5))
            assert answers == ["0", "1", "slower", "slower"]
        with pytest.raises(InvalidStatus) as caught:
            connect(f"ws{url.removeprefix('http')}/ws")
        response = caught.value.response
        assert (response.status_code, response.headers["retry-after"]) == (429, "60")


@servers
def test_fastapi_limits_by_user_and_route_in_a_dependency(server: Any) -> None:
    app = fastapi.FastAPI()
    limiter = RateLimiter(Quota("2/minute", name="items", per=(lambda scope: scope["state"].get("user"), "route")))

    async def limited(request: fastapi.Request) -> None:
        request.state.user = request.headers.get("x-user")
        await limiter.check(request)

    @app.exception_handler(RateLimited)
    async def refused(request: fastapi.Request, error: RateLimited) -> Response:
        return Response(error.body, error.status, headers=error.headers)

    @app.get("/items/{number}", dependencies=[fastapi.Depends(limited)])
    async def item(number: int) -> dict[str, int]:
        return {"number": number}

    @app.get("/other", dependencies=[fastapi.Depends(limited)])
    async def other() -> PlainTextResponse:
        return PlainTextResponse("other")

    with server(app) as url, httpx.Client(base_url=url) as client:

        def statuses(user: str, *paths: str) -> list[int]:
            return [client.get(path, headers={"x-user": user}).status_code for path in paths]

        assert statuses("alice", "/items/1", "/items/2", "/items/3") == [200, 200, 429]
        assert statuses("alice", "/other") == [200]
        assert statuses("bob", "/items/1") == [200]
        refusal = client.get("/items/9", headers={"x-user": "alice"})
        assert refusal.headers["content-type"] == "application/problem+json"
        assert refusal.headers["retry-after"] in ("29", "30")
