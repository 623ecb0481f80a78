"""The model of a hub behind a real WebSocket server; it can do what a correct hub does not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

from websockets.asyncio.server import Request, Response, ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from sojourn.clients.hub.client import HubClient
from sojourn.clients.hub.rules import ClientRules
from tests.clients.hub.model import ModelHub, Session

__all__ = ["QUICK", "StandIn", "client_of", "standing", "until"]

#: Rules of a client that comes back at once.
QUICK = ClientRules(first=0.01, most=0.05, connect=5.0, reply=5.0, rate=100_000.0, burst=100_000)


class StandIn:
    """The server.

    Attributes:
        tokens: The ``Authorization`` of each handshake.
        statuses: HTTP statuses by which the next handshakes are refused.
        greets: Whether it greets.
        closes: Close codes that clients have sent.
    """

    url: str
    port: int

    def __init__(self, hub: ModelHub | None = None, protocol: str | None = "sojourn.v1") -> None:
        self.hub = hub or ModelHub()
        self.hub.hello["retry"] = [0, 10]
        self.protocol = protocol
        self.tokens: list[str | None] = []
        self.statuses: list[int] = []
        self.greets = True
        self.closes: list[int | None] = []
        self.sockets: set[ServerConnection] = set()

    async def serve(self, socket: ServerConnection) -> None:
        lines: asyncio.Queue[bytes] = asyncio.Queue()
        session = Session(self.hub, lines.put_nowait)
        self.sockets.add(socket)
        if self.greets:
            session.greet()

        async def write() -> None:
            while True:
                await socket.send((await lines.get()).decode())

        writer = asyncio.ensure_future(write())
        try:
            async for frame in socket:
                session.hear(frame)
        except ConnectionClosed:
            pass  # told below
        finally:
            self.closes.append(socket.close_code)
            self.sockets.discard(socket)
            session.end()
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)

    def handshake(self, socket: ServerConnection, request: Request) -> Response | None:
        self.tokens.append(request.headers.get("Authorization"))
        return socket.respond(HTTPStatus(self.statuses.pop(0)), "no") if self.statuses else None

    async def close(self, code: int) -> None:
        """Close all connections."""
        for socket in list(self.sockets):
            await socket.close(code, "because")


@asynccontextmanager
async def standing(stand_in: StandIn | None = None) -> AsyncIterator[StandIn]:
    """A stand-in that serves."""
    made = stand_in or StandIn()
    options: dict[str, Any] = {"ping_interval": None, "close_timeout": 0.2}
    if made.protocol is not None:
        options["subprotocols"] = [made.protocol]
    server = await serve(made.serve, "127.0.0.1", 0, process_request=made.handshake, **options)
    made.port = server.sockets[0].getsockname()[1]
    made.url = f"ws://127.0.0.1:{made.port}/hub"
    try:
        yield made
    finally:
        server.close()
        await server.wait_closed()


def client_of(stand_in: StandIn, port: int | None = None, **more: Any) -> HubClient:
    """A client of it that comes back at once; through a proxy, if there is a port."""
    url = stand_in.url if port is None else f"ws://127.0.0.1:{port}/hub"
    return HubClient(url, rules=more.pop("rules", QUICK), **more)


async def until(condition: Callable[[], Any]) -> None:
    """Wait until a condition holds."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - of others' making, without an event
            await asyncio.sleep(0.002)
