"""Real servers, ours and another one, at which tests put hubs; and clients that speak every form of the wire."""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from sojourn.config import Config, Timeouts
from sojourn.hub.hub import Hub
from sojourn.hub.rules import Channel, History, Presence
from tests.examples.serving import serving
from tests.sessions.scene import under_uvicorn

__all__ = [
    "SERVERS",
    "Address",
    "Host",
    "Talk",
    "closed",
    "cut_in_opening",
    "events",
    "hosts",
    "hub_of",
    "refused",
    "until",
]

T = TypeVar("T")
App = Callable[[Any, Any, Any], Coroutine[Any, Any, None]]
#: Ours, and one that knows nothing of hubs.
SERVERS: dict[str, Callable[[Any], Any]] = {
    "sojourn": lambda app: serving(app, Config(timeouts=Timeouts(disconnect_grace=0.01))),
    "uvicorn": under_uvicorn,
}
_BOUND = 3.0


def hub_of(**settings: Any) -> Hub:
    """A hub with a channel of each kind that these tests need."""
    return Hub(
        channels=[
            Channel("chat:{room}", history=History(size=5), public=True, publish=True),
            Channel("room:{room}", presence=Presence(batch=0.0), public=True),
            Channel("news", history=History(size=50), public=True),
            Channel("price:{symbol}", history=History(size=1, mode="latest"), public=True),
            Channel("secret:{room}", history=History(size=5), publish=True),
        ],
        **settings,
    )


def until(condition: Callable[[], T], what: str = "") -> T:
    """Wait until something is true in the thread of a server."""
    end = time.monotonic() + _BOUND
    while not (value := condition()):
        assert time.monotonic() < end, f"it does not become true: {what}"
        threading.Event().wait(0.002)
    return value


class Talk:
    """A client of ``sojourn.v1``, line by line."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self._lines: list[str] = []
        self._numbers = itertools.count(1)

    def say(self, *objects: Any) -> None:
        """Say so many lines in one frame; what is text already goes as it is."""
        lines = [each if isinstance(each, str) else json.dumps(each) for each in objects]
        self.connection.send("\n".join(lines))

    def hear(self) -> dict[str, Any]:
        """The next line."""
        while not self._lines:
            frame = self.connection.recv(timeout=_BOUND)
            assert isinstance(frame, str)
            self._lines = frame.split("\n")
        found: dict[str, Any] = json.loads(self._lines.pop(0))
        return found

    def ask(self, **command: Any) -> dict[str, Any]:
        """Ask for something; what is pushed before the answer is dropped."""
        number = next(self._numbers)
        self.say({"id": number, **command})
        while True:
            said = self.hear()
            if said.get("id") == number:
                return said

    def rest(self) -> list[dict[str, Any]]:
        """All that is still said, to the end."""
        said = []
        while True:
            try:
                said.append(self.hear())
            except ConnectionClosed:
                return said

    @property
    def code(self) -> int | None:
        """With what it was closed."""
        return self.connection.close_code


class Address:
    """Where one application is served."""

    def __init__(self, host: Host, url: str, hub: Hub, stack: ExitStack) -> None:
        self.url = url
        self.hub = hub
        self._host = host
        self._stack = stack

    def do(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run something in the server's loop."""
        return self._host.do(coroutine)

    def publish(self, channel: str, data: Any, **more: Any) -> str:
        """Publish; gives the cursor."""
        return str(self.do(self.hub.publish(channel, data, **more)).cursor)

    def get(self, query: str = "", **more: Any) -> httpx.Response:
        """GET."""
        return self._host.client.get(self.url + query, **more)

    def post(self, *lines: Any, query: str = "", **more: Any) -> httpx.Response:
        """POST commands."""
        body = "\n".join(each if isinstance(each, str) else json.dumps(each) for each in lines)
        return self._host.client.post(self.url + query, content=body, **more)

    def ask(self, command: Any, **more: Any) -> dict[str, Any]:
        """POST one command, and read its answer."""
        answer = self.post(command, **more)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def plain(self, query: str = "", **more: Any) -> ClientConnection:
        """A WebSocket without a subprotocol."""
        opening = connect(self.url.replace("http", "ws", 1) + query, compression=None, **more)
        connection: ClientConnection = self._stack.enter_context(opening)
        return connection

    def talk(self, query: str = "", subprotocols: Sequence[str] = ("sojourn.v1",), **more: Any) -> Talk:
        """A WebSocket of ``sojourn.v1``."""
        return Talk(self.plain(query, subprotocols=list(subprotocols), **more))

    def greeted(self, query: str = "", **more: Any) -> Talk:
        """One that has heard ``hello``."""
        talk = self.talk(query, **more)
        assert "hello" in talk.hear()
        return talk

    @contextmanager
    def stream(self, query: str = "", **headers: str) -> Iterator[Iterator[dict[str, str]]]:
        """The events of a stream."""
        asked = {"accept": "text/event-stream", **{name.replace("_", "-"): value for name, value in headers.items()}}
        with self._host.client.stream("GET", self.url + query, headers=asked) as answer:
            assert answer.status_code == 200, answer.read()
            assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
            yield events(answer)
            # A server may wait a moment before it takes a client as gone that only says nothing more; tests need not.
            self.do(self._end_streams())

    async def _end_streams(self) -> None:
        node = self.hub._node
        if node is not None:
            node.end([each for each in node.members.values() if each.transport == "sse"], 1000, "")

    @property
    def members(self) -> int:
        """How many there are."""
        node = self.hub._node
        return 0 if node is None else len(node.members)

    def wait_for(self, members: int, channels: int | None = None) -> None:
        """Wait until there are so many members, and so many channels with all of their members in them."""
        until(lambda: self.members == members, f"{members} members, not {self.members}")
        if channels is not None:
            until(lambda: len(self._channels()) == channels, f"{channels} channels, not {self._channels()}")

    def _channels(self) -> set[str]:
        return {channel for member in list(self.hub.node.members.values()) for channel in list(member.topics)}

    def assert_empty(self) -> None:
        """No member, no user, no channel, and no task of anybody is left."""
        self.wait_for(0)
        node = self.hub.node
        # A channel is kept for a moment, for whoever comes back; but nobody is in it, or about to be.
        until(
            lambda: not any(topic.users or topic.size or topic.catching for topic in node.topics.all()),
            "nobody is in a channel",
        )
        assert not node.users
        assert self.hub.door._doors.total == 0
        until(lambda: not self.do(_hub_tasks()), "no task is left")


class Host:
    """A server at which applications can be put while it runs."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.client = httpx.Client(verify=False, timeout=_BOUND)
        self.failures: list[BaseException] = []
        self._apps: dict[str, App] = {}
        self._hubs: list[Hub] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._url = ""
        self._numbers = itertools.count(1)

    @contextmanager
    def open(self) -> Iterator[Host]:
        """Serve."""

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await self._serve(scope, receive, send)

        with SERVERS[self.name](app) as self._url, self.client:
            self.client.get(self._url)
            yield self
            for hub in self._hubs:
                self.do(hub.aclose())

    @contextmanager
    def at(self, hub: Hub, app: App | None = None, *, fails: bool = False) -> Iterator[Address]:
        """Put an application here, by default the hub's own; nothing may be left of its members afterwards.

        Args:
            hub: The hub.
            app: The application.
            fails: Whether it may raise.
        """
        prefix = f"/{next(self._numbers)}"
        self._apps[prefix] = app or hub.app()
        self._hubs.append(hub)
        self.failures.clear()
        with ExitStack() as stack:
            address = Address(self, f"{self._url}{prefix}/", hub, stack)
            yield address
        if hub._node is not None:
            address.assert_empty()
        assert fails or not self.failures, self.failures

    def do(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run something in the server's loop."""
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(_BOUND)

    async def _serve(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            while (await receive())["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            await send({"type": "lifespan.shutdown.complete"})
            return
        self._loop = asyncio.get_running_loop()
        prefix, slash, rest = scope["path"][1:].partition("/")
        app = self._apps.get(f"/{prefix}")
        if app is None:
            await send({"type": "http.response.start", "status": 404, "headers": []})
            await send({"type": "http.response.body", "body": b""})
            return
        inner = {**scope, "path": slash + rest, "raw_path": (slash + rest).encode()}
        try:
            await app(inner, receive, send)
        except Exception as error:
            self.failures.append(error)
            raise


def hosts() -> Any:
    """The fixture of a module: each test runs on each server."""

    @pytest.fixture(scope="module", params=sorted(SERVERS))
    def host(request: pytest.FixtureRequest) -> Iterator[Host]:
        with Host(request.param).open() as opened:
            yield opened

    return host


def closed(connection: ClientConnection) -> tuple[int | None, str | None]:
    """Wait until a server has closed a WebSocket; gives how."""
    try:
        while True:
            connection.recv(timeout=_BOUND)
    except ConnectionClosed:
        return connection.close_code, connection.close_reason


def cut_in_opening(address: Address, query: str) -> None:
    """Ask for a WebSocket, and be gone before the answer."""
    name, _, path = address.url.removeprefix("http://").partition("/")
    with socket.create_connection(tuple(name.split(":"))) as opening:
        lines = [f"GET /{path}{query} HTTP/1.1", f"host: {name}", "connection: Upgrade", "upgrade: websocket"]
        lines += ["sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==", "sec-websocket-version: 13"]
        opening.sendall("\r\n".join([*lines, "sec-websocket-protocol: sojourn.v1", "", ""]).encode())


def refused(opening: Callable[[], Any]) -> tuple[int, str, str | None]:
    """Status, text and ``Retry-After`` with which a WebSocket is refused."""
    with pytest.raises(InvalidStatus) as error:
        opening()
    answer = error.value.response
    return answer.status_code, answer.body.decode(), answer.headers.get("retry-after")


def events(answer: httpx.Response) -> Iterator[dict[str, str]]:
    """Server-sent events by their fields; several ``data`` are joined as a browser does it."""
    event: dict[str, str] = {}
    for line in answer.iter_lines():
        if not line and event:
            yield event
            event = {}
        elif line and not line.startswith(":"):
            name, _, value = line.partition(": ")
            event[name] = f"{event[name]}\n{value}" if name in event else value


async def _hub_tasks() -> list[str]:
    names = [task.get_name() for task in asyncio.all_tasks()]
    return [name for name in names if name in ("hub writer", "hub receive", "hub stream", "hub poll")]
