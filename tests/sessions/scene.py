"""Clients of an application in memory: one for HTTP that keeps cookies, and one end of a WebSocket."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import httpx
import uvicorn

from tests.databases import free_port

__all__ = ["Socket", "browser", "cookie_of", "endpoint", "open_socket", "play", "under_uvicorn", "until"]

NAME = "__Host-session"


def play(main: Coroutine[Any, Any, None]) -> None:
    """Run a test, within 20 seconds; no task may be left."""

    async def bounded() -> None:
        async with asyncio.timeout(20):
            await main

    asyncio.run(bounded())


async def until(condition: Callable[[], Any], seconds: float = 5.0) -> Any:
    """Wait until something is true."""
    async with asyncio.timeout(seconds):
        while not (value := condition()):  # noqa: ASYNC110 - what it waits for has no event
            await asyncio.sleep(0.005)
        return value


@asynccontextmanager
async def browser(app: Any, cookie: str = "") -> AsyncIterator[httpx.AsyncClient]:
    """A client that keeps cookies, over HTTPS as far as it knows."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    headers = {"cookie": f"{NAME}={cookie}"} if cookie else {}
    async with httpx.AsyncClient(transport=transport, base_url="https://test", headers=headers) as client:
        yield client


def cookie_of(answer: httpx.Response) -> str:
    """The id that an answer sets; "" when it sets none."""
    fields = [text for text in answer.headers.get_list("set-cookie") if text.startswith(NAME)]
    assert len(fields) <= 1, fields
    return fields[0].partition(";")[0].partition("=")[2] if fields else ""


def endpoint(call: Callable[[Any], Any]) -> Any:
    """An application that calls a function with the session, and answers with what it returns, or its content."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body = call(scope["session"])
        if asyncio.iscoroutine(body):
            body = await body
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": repr(body).encode()})

    return app


@contextmanager
def under_uvicorn(app: Any) -> Iterator[str]:
    """Serve an application with its lifespan by another server."""
    config = uvicorn.Config(app, port=free_port(), log_level="error", lifespan="on", ws="websockets-sansio")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        for _ in range(500):
            if server.started:
                break
            threading.Event().wait(0.01)
        yield f"http://127.0.0.1:{config.port}"
    finally:
        server.should_exit = True
        thread.join(10)


class Socket:
    """The client's end of a WebSocket in memory."""

    def __init__(self, headers: list[tuple[bytes, bytes]]) -> None:
        self.scope = {
            "type": "websocket",
            "path": "/",
            "headers": headers,
            "extensions": {"websocket.http.response": {}},
        }
        self.sent: list[Any] = []
        self._inbox: asyncio.Queue[Any] = asyncio.Queue()
        self._inbox.put_nowait({"type": "websocket.connect"})
        self.task: asyncio.Task[None]

    async def receive(self) -> Any:
        """ASGI."""
        return await self._inbox.get()

    async def send(self, message: Any) -> None:
        """ASGI."""
        self.sent.append(message)

    def say(self, text: str) -> None:
        """Send a message to the application."""
        self._inbox.put_nowait({"type": "websocket.receive", "text": text})

    async def leave(self) -> None:
        """Close, and wait for the application."""
        self._inbox.put_nowait({"type": "websocket.disconnect", "code": 1000})
        await asyncio.wait((self.task,), timeout=5)
        assert self.task.done()

    def types(self) -> list[str]:
        """What it got, by type."""
        return [message["type"] for message in self.sent]

    @property
    def code(self) -> int | None:
        """With what it was closed."""
        return next((each["code"] for each in self.sent if each["type"] == "websocket.close"), None)


@asynccontextmanager
async def open_socket(app: Any, cookie: str = "", name: str = NAME) -> AsyncIterator[Socket]:
    """Open a WebSocket, and wait until it is accepted or refused."""
    socket = Socket([(b"cookie", f"{name}={cookie}".encode())] if cookie else [])
    socket.task = asyncio.create_task(app(socket.scope, socket.receive, socket.send))
    try:
        await until(lambda: socket.sent or socket.task.done())
        yield socket
    finally:
        if not socket.task.done():
            await socket.leave()
        if not socket.task.cancelled():
            socket.task.exception()
