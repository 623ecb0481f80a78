"""What the browser talks to: hubs as they are, hubs behind proxies that spoil a way to them, and a scripted server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx
import msgspec

from sojourn import Hub
from sojourn.config import Config, Drain
from sojourn.errors import AuthenticationError
from sojourn.hub.browser.files import BrowserFiles
from sojourn.hub.identity import Caller, Identity
from sojourn.hub.rules import Channel, History, HubDrain, HubLimits, HubPing, Outbox, Presence
from sojourn.testing import FaultProxy
from sojourn.typing import ASGIApp, Receive, Scope, Send
from tests.examples.serving import serving

__all__ = ["SOURCE", "Site", "site"]

T = TypeVar("T")
SOURCE = Path(__file__).resolve().parents[3] / "src" / "sojourn" / "hub" / "browser"

#: Frames are few and far between in tests, so times are short; but no busy machine should look like a dead link.
_PING = HubPing(every=0.3, pong_within=0.7, misses=50)
_RETRY = HubDrain(retry=(20, 60))
_PAGE = b"""<!doctype html><title>hub</title><script>
// Before the client is loaded, so that a test can move its clock.
const clock = Date.now, dice = Math.random, clients = new Set();
Date.now = () => clock() + (window.later ?? 0);
</script><script src="/files/sojourn.classic.js"></script><script type="module">
import { Sojourn } from "/files/sojourn.js";
window.classic = window.Sojourn;
window.dial = (path, options) => {
  const hub = new Sojourn(path, { timeout: 5000, ...options });
  clients.add(hub);
  Object.assign(hub, { states: [], got: [], told: [] });
  hub.on("state", (state, why) => hub.states.push([state, why]));
  hub.on("message", (data) => hub.got.push(data));
  for (const name of ["bye", "expiring", "giveup"]) hub.on(name, (what) => hub.told.push([name, what]));
  return hub;
};
window.enter = (hub, name, options) => {
  const channel = hub.join(name, options);
  Object.assign(channel, { got: [], told: [], joins: [] });
  channel.on("message", (data, info) => channel.got.push(data));
  channel.on("joined", (recovered) => channel.joins.push(recovered ?? null));
  const others = ["gap", "snapshot", "presence", "error"];
  for (const name of others) channel.on(name, (what) => channel.told.push([name, what]));
  return channel;
};
// As if the page had been loaded anew, which takes longer.
window.reset = () => {
  clients.forEach((hub) => hub.close());
  clients.clear();
  Math.random = dice;
  document.title = "hub";
  for (const name of Object.keys(window)) if (!own.has(name)) delete window[name];
};
window.ready = true;
const own = new Set(Object.keys(window));
</script>"""


class Site:
    """Everything that is served, and the loop in which it is.

    Attributes:
        hub: At ``/hub``; at ``/nows`` for those whose WebSockets are refused, at ``/noflow`` also without streams.
        secure: At ``/secure``: it wants a token.
        script: What ``/script`` does with a WebSocket.
        seen: Requests to hubs: kind, path and query, credential.
        tokens: What the authenticator of ``secure`` says to a token.
        proxy: Between browser and server.
    """

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop
        self.proxy: FaultProxy
        self.seen: list[tuple[str, str, str]] = []
        self.tokens: dict[str, Identity] = {}
        self.script: Callable[[Receive, Send], Coroutine[Any, Any, None]]
        self.hub = Hub(
            channels=[
                Channel("chat:{room}", History(size=100), Outbox(), Presence(batch=0.02), public=True, publish=True),
                Channel("short:{x}", History(size=3), public=True, publish=True),
                Channel("state:{x}", History(size=2), public=True),
                Channel("price:{x}", History(size=5, mode="latest"), Outbox(on_full="latest"), public=True),
                Channel("closed:{x}"),
            ],
            ping=_PING,
            drain=_RETRY,
            limits=HubLimits(connect_rate=None, message=2000),
        )
        self.secure = Hub(
            channels=[Channel("chat:{room}", History(size=100), public=True)],
            ping=_PING,
            drain=_RETRY,
            limits=HubLimits(connect_rate=None, auth_within=1.0),
        )
        self.secure.authenticate(self._who)

        @self.hub.snapshot("state:{x}")
        async def state(x: str) -> dict[str, str]:
            return {"whole": x}

        self._files = BrowserFiles()
        self._apps: dict[str, ASGIApp] = {
            "hub": self.hub.app(),
            "nows": self.hub.app(),
            "noflow": self.hub.app(),
            "secure": self.secure.app(),
        }

    async def _who(self, caller: Caller) -> Identity | None:
        if caller.token == "expired":
            raise AuthenticationError("expired", "the credential is over")
        return self.tokens.get(caller.token)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        self.loop = asyncio.get_running_loop()
        first = scope["path"].split("/")[1]
        app = self._apps.get(first)
        if scope["type"] == "http" and (file := self._files.find(scope["path"])) is not None:
            await self._files.send(file, scope, send)
            return
        if app is not None:
            said = dict(scope["headers"]).get(b"authorization", b"").decode()
            kind = "ws" if scope["type"] == "websocket" else scope["method"]
            self.seen.append((kind, f"{first}?{scope['query_string'].decode()}", said))
        if first == "script" and scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept", "subprotocol": "sojourn.v1"})
            await self.script(receive, send)
        elif first in ("nows", "noflow") and scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1000})
        elif first == "noflow" and b"text/event-stream" in dict(scope["headers"])[b"accept"]:
            await _answer(send, b"text/event-stream", b"", more=True)
            while (await receive())["type"] != "http.disconnect":
                pass
        elif app is not None:
            await app(scope, receive, send)
        elif scope["path"] == "/files/source.js":
            await _answer(send, b"text/javascript", (SOURCE / "sojourn.js").read_bytes())
        else:
            await _answer(send, b"text/html", _PAGE)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Await something in the server's loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(10)

    def do(self, call: Callable[[], T]) -> T:
        """Call something there."""

        async def calls() -> T:
            return call()

        return self.run(calls())

    def publish(self, channel: str, *values: Any) -> None:
        """Publish values, one after the other."""

        async def publishes() -> None:
            for value in values:
                await self.hub.publish(channel, value)

        self.run(publishes())

    @contextmanager
    def away(self, *, silent: bool = False) -> Iterator[None]:
        """For the browser the server is away: cut, and not to be reached; ``silent``: nothing gets through."""
        upstream = self.proxy.upstream
        if silent:
            toxic = self.do(self.proxy.timeout)
            yield
            self.do(toxic.remove)
            return
        self.proxy.upstream = ("127.0.0.1", 1)  # nobody listens there
        self.do(self.proxy.cut)
        yield
        self.proxy.upstream = upstream

    def says(self, *lines: Any, close: int | None = None) -> None:
        """What ``/script`` says, each time somebody comes, before it waits for the end."""

        async def script(receive: Receive, send: Send) -> None:
            for line in lines:
                await send({"type": "websocket.send", "text": line if isinstance(line, str) else json.dumps(line)})
            if close is not None:
                await send({"type": "websocket.close", "code": close})
            while (await receive())["type"] != "websocket.disconnect":
                pass

        self.script = script


async def _answer(send: Send, kind: bytes, body: bytes, *, more: bool = False) -> None:
    headers = [(b"content-type", kind), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": more})


@contextmanager
def site() -> Iterator[tuple[Site, str]]:
    """Serve all of it; gives it, and its URL as the browser knows it."""
    app = Site()
    config = msgspec.structs.replace(Config(), drain=Drain(requests=0.2, streams=0.2, sockets=0.2, total=1.0))
    with serving(app, config) as url:
        httpx.get(url).raise_for_status()
        address = httpx.URL(url)

        async def between() -> FaultProxy:
            return await FaultProxy((address.host, address.port or 0)).__aenter__()

        app.proxy = app.run(between())
        host, port = app.proxy.address
        try:
            yield app, f"http://{host}:{port}/"
        finally:
            app.run(app.proxy.__aexit__())
            app.run(app.hub.aclose())
            app.run(app.secure.aclose())
