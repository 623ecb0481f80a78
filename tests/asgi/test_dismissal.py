"""What a request is told when its credential does not count any more."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from sojourn.asgi.context import current_request
from sojourn.asgi.control import RequestControl
from sojourn.config import Config, Timeouts
from sojourn.events import ConnectionEnded, RequestEnded, TaskSurvived
from sojourn.testing import MemoryClient, MemoryServer, Outcome
from tests.asgi.ws_harness import Served, accept, on_both_loops, serving

Act = Callable[[MemoryServer, RequestControl, MemoryClient], Coroutine[Any, Any, None]]


def play(app: Any, act: Act) -> None:
    """Serve one request, and act while its application waits."""
    controls: list[RequestControl] = []

    async def whole(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            control = current_request()
            assert control is not None
            controls.append(control)
            await app(scope, receive, send)

    async def main() -> None:
        config = Config(timeouts=Timeouts(response_start=None, stream_idle=None, disconnect_grace=1.0))
        async with asyncio.timeout(20), MemoryServer(whole, config) as server:
            client = server.connect()
            client.get("/")
            await server.settle()
            await act(server, controls[0], client)

    asyncio.run(main())


async def silent(scope: Any, receive: Any, send: Any) -> None:
    await asyncio.Event().wait()


def streaming(kind: bytes, swallow: bool = False) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal swallow
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
        await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if not swallow:
                    raise
                swallow = False

    return app


def test_the_function_is_called_once_at_its_time() -> None:
    async def act(server: MemoryServer, control: RequestControl, client: MemoryClient) -> None:
        called: list[float] = []
        began = server.clock.monotonic()
        control.expire(5.0, lambda: called.append(server.clock.monotonic() - began))
        await server.advance(4.9)
        assert called == []
        await server.advance(10.0)
        (after,) = called
        assert 5.0 <= after <= 5.4

    play(silent, act)


def test_another_time_takes_the_place_of_the_one_before() -> None:
    async def act(server: MemoryServer, control: RequestControl, client: MemoryClient) -> None:
        called: list[str] = []
        control.expire(5.0, lambda: called.append("first"))
        control.expire(10.0, lambda: called.append("second"))
        await server.advance(6.0)
        assert called == []
        await server.advance(5.0)
        control.expire(1.0, lambda: called.append("third"))
        control.expire(None, lambda: called.append("fourth"))
        await server.advance(5.0)
        assert called == ["second"]

    play(silent, act)


def test_after_the_answer_it_is_not_called() -> None:
    called: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        control = current_request()
        assert control is not None
        control.expire(5.0, lambda: called.append("late"))
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})
        control.expire(5.0, lambda: called.append("later"))
        control.dismiss("credentials_revoked", "too late")

    async def act(server: MemoryServer, control: RequestControl, client: MemoryClient) -> None:
        await server.advance(10.0)
        assert called == []
        assert client.response().status == 204
        assert control.connection.ending is None

    play(app, act)


@pytest.mark.parametrize(
    ("reason", "status", "challenge"), [("credentials_revoked", 401, "Bearer"), ("access_withdrawn", 403, None)]
)
def test_a_request_without_an_answer_gets_one(reason: str, status: int, challenge: str | None) -> None:
    async def act(server: MemoryServer, control: RequestControl, client: MemoryClient) -> None:
        control.dismiss(reason, "said why", b"Bearer")
        await server.settle()
        answer = client.response()
        assert (answer.status, answer.header("www-authenticate")) == (status, challenge)
        assert json.loads(answer.body)["detail"] == "said why"
        assert server.seen(RequestEnded)[-1].ending.reason == reason
        assert control.connection.ending is None

    play(silent, act)


def test_half_an_answer_is_cut() -> None:
    async def act(server: MemoryServer, control: RequestControl, client: MemoryClient) -> None:
        control.dismiss("credentials_revoked", "said why")
        await server.settle()
        assert client.response().outcome is Outcome.RESET
        assert server.seen(ConnectionEnded)[-1].ending.reason == "credentials_revoked"

    play(streaming(b"text/plain"), act)


@pytest.mark.parametrize("swallow", [False, True])
def test_an_event_stream_ends_whole_even_if_its_application_does_not_listen(swallow: bool) -> None:
    async def act(server: MemoryServer, control: RequestControl, client: MemoryClient) -> None:
        control.dismiss("credentials_revoked", "said why")
        await server.advance(2.0)
        answer = client.response()
        assert (answer.complete, answer.body) == (True, b"data: 1\n\n")
        assert server.seen(TaskSurvived) == []

    play(streaming(b"text/event-stream", swallow), act)


@on_both_loops
async def test_a_websocket_gets_the_close_code_of_the_reason() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await accept(receive, send)
            control = scope["extensions"]["sojourn"]
            await receive()
            control.dismiss("access_withdrawn", "said why")
            told.append(await receive())

    told: list[Any] = []

    async def act(served: Served) -> None:
        client = await served.connect()
        client.send("now")
        assert await client.closed() == (4502, "said why")
        client.close_frame(4502)
        assert (await served.ended()).ending.reason == "access_withdrawn"
        assert told == [{"type": "websocket.disconnect", "code": 4502, "reason": "said why"}]

    async with serving(app) as served:
        await act(served)
