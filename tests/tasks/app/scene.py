"""An application with durable tasks, under Sojourn or uvicorn, and clients of it."""

from __future__ import annotations

import asyncio
import json
import socket
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.routing import Mount
from websockets.asyncio.client import connect

from sojourn.clock import SystemClock
from sojourn.config import Admission, Config, Drain, Timeouts
from sojourn.policy.retry import Backoff
from sojourn.scopes.context import SecurityContext, acting_as
from sojourn.tasks.current import current_task
from sojourn.tasks.record import Event
from sojourn.tasks.tasks import Tasks
from tests.asgi.ws_harness import serving
from tests.hub.stand_ins import until

__all__ = ["SERVERS", "Scene", "events", "played", "service", "under"]

SERVERS = ("sojourn", "uvicorn")


class Scene:
    """What is served.

    Attributes:
        tasks: The service.
        base: Host and port.
        gate: Set, it lets tasks that talk go on.
        server: Sojourn's; None under another.
    """

    def __init__(self, tasks: Tasks, gate: asyncio.Event, port: int, server: Any = None) -> None:
        self.tasks = tasks
        self.gate = gate
        self.base = f"127.0.0.1:{port}"
        self.server = server

    @asynccontextmanager
    async def client(self, user: str = "") -> AsyncIterator[httpx.AsyncClient]:
        """A client with a connection for each request, as the server's harness wants it."""
        headers = {"connection": "close"} | ({"x-user": user} if user else {})
        async with httpx.AsyncClient(base_url=f"http://{self.base}", timeout=8, headers=headers) as client:
            yield client

    def ws(self, path: str, user: str = "") -> Any:
        """A WebSocket."""
        return connect(f"ws://{self.base}{path}", additional_headers={"x-user": user} if user else {})

    async def spoken(self, task_id: str, number: int) -> None:
        """Wait until a task has said so much."""
        async with aclosing(self.tasks.watch(task_id)) as told:
            async for each in told:
                if isinstance(each, Event) and each.seq == number:
                    return

    async def ended(self, task_id: str) -> Any:
        """A task when it has ended."""
        return await self.tasks.wait(task_id, 8)


def service(folder: str, gate: asyncio.Event, **options: Any) -> Tasks:
    """Tasks of every kind that clients may meet."""
    tasks = Tasks(str(Path(folder) / "tasks.db"), **options)

    @tasks.define(public=True)
    async def area(width: int, height: int = 2) -> int:
        return width * height

    @tasks.define(public=True)
    async def talk(words: list[str]) -> int:
        for word in words:
            await current_task().progress({"word": word})
        await gate.wait()
        await current_task().progress({"word": "done"})
        return len(words)

    @tasks.define(public=True, retries=0)
    async def fail() -> None:
        raise ValueError("it can't be done")

    @tasks.define(public=True, retries=1, backoff=Backoff(0.01, 0.01))
    async def moody() -> int:
        if current_task().attempt == 1:
            raise ValueError("not yet")
        return current_task().attempt

    @tasks.define
    async def hidden() -> None: ...

    return tasks


def acting(app: Any) -> Any:
    """Lets whom the header ``x-user`` names act, such as ``ada``, or ``ada of acme``."""

    async def layer(scope: Any, receive: Any, send: Any) -> None:
        user = dict(scope.get("headers", ())).get(b"x-user", b"").decode("latin-1")
        if user:
            name, _, tenant = user.partition(" of ")
            with acting_as(SecurityContext(name, tenant=tenant or None)):
                await app(scope, receive, send)
        else:
            await app(scope, receive, send)

    return layer


@asynccontextmanager
async def under(server: str, app: Any, admission: Admission | None = None) -> AsyncIterator[tuple[int, Any]]:
    """Serve an application on a free port."""
    if server == "sojourn":
        config = Config(
            drain=Drain(delay=0, close_rate=None),
            timeouts=Timeouts(disconnect_grace=0.05),
            admission=admission or Admission(),
        )
        async with serving(app, config, clock=SystemClock()) as served:
            yield served.address[1], served.server
        return
    with socket.create_server(("127.0.0.1", 0)) as listener:
        running = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1))
        task = asyncio.ensure_future(running._serve([listener]))
        await until(lambda: running.started)
        try:
            yield listener.getsockname()[1], None
        finally:
            running.should_exit = True
            await task


@asynccontextmanager
async def played(
    server: str = "sojourn",
    build: Callable[[Tasks], Any] | None = None,
    admission: Admission | None = None,
    **options: Any,
) -> AsyncIterator[Scene]:
    """Tasks, mounted in Starlette beside FastAPI unless ``build`` makes another application."""
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        gate = asyncio.Event()
        tasks = service(folder, gate, **options)
        app = (build or _mounted)(tasks)
        async with tasks, under(server, acting(app), admission) as (port, running):
            yield Scene(tasks, gate, port, running)
            gate.set()
            node = await tasks.begin()
            await until(lambda: not node.watchers._waiting)


def _mounted(tasks: Tasks) -> Any:
    fastapi = FastAPI()
    fastapi.mount("/inner/tasks", tasks.app())
    return Starlette(routes=[Mount("/_tasks", tasks.app()), Mount("/", fastapi)])


async def events(answer: httpx.Response, most: int = 1000) -> list[dict[str, str]]:
    """The events of a stream, up to its end or so many."""
    found: list[dict[str, str]] = []
    event: dict[str, str] = {}
    async for line in answer.aiter_lines():
        if line:
            name, _, value = line.partition(": ")
            event[name] = value
        elif event.keys() & {"event", "data"}:
            found.append(event)
            event = {}
            if len(found) == most:
                break
        else:
            event = {}
    return found


def words(found: list[dict[str, str]]) -> list[str]:
    """What was said in events."""
    return [json.loads(each["data"])["word"] for each in found if each["event"] == "progress"]
