"""Who acts, and work that has an owner, in what frameworks make of an application."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any

import httpx
import pytest
from fastapi import Depends, FastAPI
from fastapi.responses import StreamingResponse
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket
from websockets.asyncio.client import connect

from sojourn.errors import SecurityContextError
from sojourn.events import ApplicationFailed, TaskFailed
from sojourn.scopes.afterwards import after_response
from sojourn.scopes.context import SecurityContext, acting_as, current_security, require, security, stream_as
from sojourn.scopes.offload import offload
from sojourn.scopes.spawn import spawn
from tests.server.serving import both_loops, serving, until


def who() -> str:
    found = current_security()
    return "nobody" if found is None else found.principal


class Asks(BaseHTTPMiddleware):
    """Lets the application act as who the header names; it runs in a task of its own."""

    async def dispatch(self, request: Request, call_next: Any) -> Any:
        name = request.headers.get("x-user")
        if name is None:
            return await call_next(request)
        with acting_as(SecurityContext(name, roles=frozenset({"reader"}))):
            return await call_next(request)


notes: list[str] = []


async def asynchronous(request: Request) -> JSONResponse:
    async def note() -> None:
        notes.append(f"after for {who()}")

    after_response(note)
    task = spawn(offload(who))
    return JSONResponse([who(), await task], background=BackgroundTask(lambda: notes.append(f"background for {who()}")))


def synchronous(request: Request) -> JSONResponse:
    after_response(notes.append, f"registered in a thread for {who()}")
    return JSONResponse([who(), require("reader").principal])


STARLETTE = Starlette(
    routes=[Route("/async", asynchronous), Route("/sync", synchronous)], middleware=[Middleware(Asks)]
)


@both_loops
def test_endpoints_of_starlette_act_as_who_asks(run: Any) -> None:
    notes.clear()

    async def main() -> None:
        async with serving(STARLETTE) as served:
            async with httpx.AsyncClient(base_url=served.server.addresses[0]) as client:
                for name in ("alice", "bob"):
                    for path in ("/async", "/sync"):
                        assert (await client.get(path, headers={"x-user": name})).json() == [name, name]
                assert (await client.get("/async")).json() == ["nobody", "nobody"]
                assert (await client.get("/sync")).status_code == 500
            await until(lambda: len(notes) == 8)
            assert [event for event in served.of(TaskFailed) if "never left" in str(event.error)] == []

    run(main())
    assert sorted(notes) == sorted(
        [
            f"{kind} for {name}"
            for name in ("alice", "bob")
            for kind in ("after", "background", "registered in a thread")
        ]
        + ["after for nobody", "background for nobody"]
    )


async def acting() -> AsyncIterator[SecurityContext]:
    with acting_as(SecurityContext("alice")) as context:
        yield context


def acting_in_a_thread() -> Iterator[SecurityContext]:
    with acting_as(SecurityContext("alice")) as context:
        yield context


FASTAPI = FastAPI()


@FASTAPI.get("/dependency")
async def dependency(context: Annotated[SecurityContext, Depends(acting)]) -> list[str]:
    return [security().principal, context.principal, await offload(who)]


@FASTAPI.get("/thread")
async def thread(context: Annotated[SecurityContext, Depends(acting_in_a_thread)]) -> str:
    return who()


@FASTAPI.get("/stream")
async def stream() -> StreamingResponse:
    async def lines() -> AsyncIterator[str]:
        for _ in range(3):
            await asyncio.sleep(0)
            yield f"{security().principal}\n"

    return StreamingResponse(stream_as(SecurityContext("alice"), lines()))


@both_loops
def test_a_dependency_of_fastapi_may_act_for_its_endpoint(run: Any) -> None:
    async def main() -> None:
        async with (
            serving(FASTAPI) as served,
            httpx.AsyncClient(base_url=served.server.addresses[0]) as client,
        ):
            assert (await client.get("/dependency")).json() == ["alice", "alice", "alice"]
            assert (await client.get("/stream")).text == "alice\n" * 3
            # A plain generator is run in two threads: nobody acts in between, and that is no secret.
            assert (await client.get("/thread")).json() == "nobody"
            await until(lambda: served.of(ApplicationFailed))
            (event,) = served.of(ApplicationFailed)
            assert isinstance(event.error, SecurityContextError)
            assert "in acting_in_a_thread was left in another task or thread" in str(event.error)

    run(main())


@both_loops
@pytest.mark.parametrize("leaves", ["client", "application"])
def test_what_belongs_to_a_websocket_ends_with_it(run: Any, leaves: str) -> None:
    tasks: list[asyncio.Task[Any]] = []
    done: list[str] = []

    async def record() -> None:
        done.append(who())

    async def endpoint(socket: WebSocket) -> None:
        with acting_as(SecurityContext("alice")):
            tasks.append(spawn(_for_ever(), name="feed"))
            after_response(record)
            await socket.accept()
            async for text in socket.iter_text():
                if text == "end":
                    return

    async def main() -> None:
        async with serving(Starlette(routes=[WebSocketRoute("/", endpoint)])) as served:
            async with connect(served.server.addresses[0].replace("http", "ws")) as socket:
                await socket.send("end" if leaves == "application" else "hello")
                if leaves == "application":
                    await until(lambda: done)
            await until(lambda: done)
            assert tasks[0].cancelled()
            assert done == ["alice"]

    run(main())


async def _for_ever() -> None:
    await asyncio.get_running_loop().create_future()
