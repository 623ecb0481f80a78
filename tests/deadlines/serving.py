"""A real server on a real socket, with everything it observed at hand."""

from __future__ import annotations

import asyncio
import functools
import inspect
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar, get_args

import uvloop

from sojourn import Config, Server
from sojourn.bus import Bus
from sojourn.config import Bind
from sojourn.events import ConnectionEnded, DeadlineMissed, Event, RequestEnded
from sojourn.testing import Outcome, RawHttp, Response
from sojourn.typing import ASGIApp, Receive, Scope, Send

__all__ = ["Serving", "app_of", "hello", "on_asyncio", "on_uvloop", "problem_of", "read_all", "serving"]

E = TypeVar("E", bound=Event)
#: Longest time for anything that is bound to happen, on a machine that is busy with something else.
PATIENCE = 15.0


class Serving:
    """A server that runs, and what it has told."""

    def __init__(self, server: Server, events: list[Event]) -> None:
        self.server = server
        self.events = events
        self.address = server.addresses[0]

    async def client(self, **options: Any) -> RawHttp:
        return await RawHttp.open(self.address, timeout=PATIENCE, **options)

    def seen(self, kind: type[E]) -> list[E]:
        return [event for event in self.events if type(event) is kind]

    async def until(self, happened: Callable[[], object]) -> None:
        """Wait for something that is bound to happen."""
        async with asyncio.timeout(PATIENCE):
            while not happened():  # noqa: ASYNC110 - what is waited for is counted, not signalled
                await asyncio.sleep(0.01)

    async def ended(self, reason: str, deadline: str | None = None) -> ConnectionEnded:
        """The end of the one connection there was; its counter, its event and its deadline say the same."""
        await self.until(lambda: self.seen(ConnectionEnded))
        (ended,) = self.seen(ConnectionEnded)
        assert ended.ending.reason == reason
        assert self.server.runtime.registry.ended_by == {reason: 1}
        if deadline is not None:
            self.missed(deadline)
        return ended

    def missed(self, deadline: str) -> DeadlineMissed:
        """The one deadline that was missed."""
        (missed,) = self.seen(DeadlineMissed)
        assert missed.deadline == deadline
        return missed

    def request_ended(self, reason: str, status: int) -> RequestEnded:
        """The end of the first request."""
        ended = self.seen(RequestEnded)[0]
        assert (ended.ending.reason, ended.status) == (reason, status)
        return ended


@asynccontextmanager
async def serving(app: ASGIApp, **groups: Any) -> AsyncIterator[Serving]:
    """Serve an application with these groups of settings on a free port."""
    bus, events = Bus(), []
    for kind in get_args(Event):
        bus.observe(kind, events.append)
    server = Server(app, Config(**{"bind": Bind(port=0), **groups}), bus=bus)
    async with server:
        yield Serving(server, events)


def app_of(handle: Callable[[Scope, Receive, Send], Awaitable[None]]) -> ASGIApp:
    """An application without lifespan."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        await handle(scope, receive, send)

    return app


@app_of
async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers at once."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})


@app_of
async def read_all(scope: Scope, receive: Receive, send: Send) -> None:
    """Reads the body and says how long it was."""
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        size += len(message["body"])
        if not message["more_body"]:
            break
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"%d" % size})


def problem_of(answer: Response) -> dict[str, Any]:
    """The problem document of an answer (RFC 9457)."""
    assert answer.outcome is Outcome.COMPLETE
    assert answer.header("content-type") == "application/problem+json"
    document: dict[str, Any] = json.loads(answer.body)
    assert document["status"] == answer.status
    return document


def on_uvloop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a coroutine as a test, on the loop that serves by default."""
    return _runs(test, uvloop.run)


def on_asyncio(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a coroutine as a test, on asyncio's own loop."""
    return _runs(test, asyncio.run)


def _runs(
    test: Callable[..., Coroutine[Any, Any, None]], run: Callable[[Coroutine[Any, Any, None]], None]
) -> Callable[..., None]:

    @functools.wraps(test)
    def wrapper(*args: Any, **kwargs: Any) -> None:
        run(test(*args, **kwargs))

    wrapper.__signature__ = inspect.signature(test)  # type: ignore[attr-defined]
    return wrapper
