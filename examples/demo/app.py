"""What Sojourn is for, on one page: a hub with a chat, prices and a client that stalls; streams, a slow endpoint, an
upload, an export that outlives its process, and every connection as it lives.

    make demo

This is plain ASGI without a framework, so any ASGI server can run it. What the page shows of connections, deadlines and
endings comes from Sojourn: see ``live.py``.
"""

from __future__ import annotations

import asyncio
import json
import time
from typing import Final
from urllib.parse import parse_qs

import sojourn
from examples.demo.absence import Absence
from examples.demo.channels import make_hub
from examples.demo.exports import PATH, Exports
from examples.demo.live import Live
from examples.demo.market import Market
from examples.demo.panel import Panel
from examples.demo.web import event_stream, respond, respond_json, static_files
from sojourn.typing import ASGIApp, Receive, Scope, Send

__all__ = ["Demo", "app"]

#: Seconds in which the slow endpoint must have answered.
SLOW_DEADLINE: Final = 4.0


class Demo:
    """The application: one handler for each path, and what they share."""

    def __init__(self) -> None:
        self.hub = make_hub()
        self.market = Market(self.hub)
        self.panel = Panel(self.hub, self.market)
        self.absence = Absence(self.hub)
        self.exports = Exports()
        self.live = Live()
        self._began = time.monotonic()
        self._files = static_files()
        self._hub_app = self.hub.app()
        self._tasks_app = self.exports.tasks.app()
        self._handlers: dict[tuple[str, str], ASGIApp] = {
            ("POST", "/cut"): self.absence.cut,
            ("POST", "/ghost"): self.absence.haunt,
            ("POST", "/stall"): self.panel.stall,
            ("DELETE", "/stall"): self.panel.read_on,
            ("GET", "/ticks"): self.ticks,
            ("GET", "/connections"): self.connections,
            ("POST", "/exports"): self.exports.start,
            ("POST", "/kill"): self.exports.kill,
            ("GET", "/slow"): slow,
            ("POST", "/upload"): upload,
            ("POST", "/upload/limited"): count_body,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.lifespan(receive, send)
            return
        self.live.follow(scope)
        if scope["path"] == "/hub" or scope["path"].startswith("/hub/"):
            self.panel.follow(scope)
            await self._hub_app(scope, receive, send)
            return
        if scope["path"].startswith(f"{PATH}/"):
            await self._tasks_app(scope, receive, send)
            return
        method = scope.get("method", "WEBSOCKET").replace("HEAD", "GET")  # the server leaves the body of a HEAD away
        handler = self._handlers.get((method, scope["path"]))
        if handler is not None:
            await handler(scope, receive, send)
        elif method == "WEBSOCKET":
            await send({"type": "websocket.close"})
        elif method == "GET" and scope["path"] in self._files:
            content_type, body = self._files[scope["path"]]
            await respond(send, 200, body, content_type)
        else:
            await respond(send, 404, b"not found\n", b"text/plain")

    async def lifespan(self, receive: Receive, send: Send) -> None:
        """The hub, what is published in it, and the tasks live as long as the application."""
        await receive()
        self.exports.make_room()
        async with self.hub, self.exports.tasks:
            running = [asyncio.create_task(part.run()) for part in (self.market, self.panel)]
            try:
                await send({"type": "lifespan.startup.complete"})
                await receive()
            finally:
                for task in running:
                    task.cancel()
                await asyncio.wait(running)
                self.absence.close()
        await send({"type": "lifespan.shutdown.complete"})

    async def ticks(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A tick every second; its number is the second, so that a client sees what it missed."""

        def tick() -> sojourn.ServerSentEvent:
            number = int(time.monotonic() - self._began)
            return sojourn.ServerSentEvent({"number": number, "at": time.time()}, event="tick", id=str(number))

        await event_stream(receive, send, tick, every=1.0)

    async def connections(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The open connections and the last endings, twice a second."""

        def snapshot() -> sojourn.ServerSentEvent:
            return sojourn.ServerSentEvent(json.dumps(self.live.snapshot(scope)), event="connections")

        await event_stream(receive, send, snapshot, every=0.5)


@sojourn.timeouts(handler=SLOW_DEADLINE)
async def slow(scope: Scope, receive: Receive, send: Send) -> None:
    """Work for as many seconds as the client asks. Above SLOW_DEADLINE the server answers 504 and cancels this."""
    given = parse_qs(scope["query_string"].decode("latin-1")).get("seconds", ["1"])[0]
    if not given.replace(".", "", 1).isdecimal():
        await respond(send, 400, b"seconds is a number\n", b"text/plain")
        return
    seconds = min(float(given), 60.0)
    await asyncio.sleep(seconds)
    await respond_json(send, {"worked": seconds, "deadline": SLOW_DEADLINE})


async def count_body(scope: Scope, receive: Receive, send: Send) -> None:
    """Count a request body piece by piece; it is never held as a whole. The limit is the configured 8 MiB."""
    began = time.monotonic()
    size = pieces = 0
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        size += len(message.get("body", b""))
        pieces += 1
        more = message.get("more_body", False)
    await respond_json(send, {"bytes": size, "pieces": pieces, "seconds": round(time.monotonic() - began, 3)})


#: The same without the limit. Idle time and minimum rate still hold: a client that stops is answered 408.
upload: Final = sojourn.limits(body=None)(count_body)


app = Demo()
