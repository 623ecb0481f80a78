"""An application with as many tasks as one asks for, that tells how long its event loop was busy with one thing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

#: Seconds between two beats of the probe.
BEAT = 0.001


class Probe:
    """Processor time of the loop's thread between two beats: what one turn of the loop takes.

    The clock is the thread's: whoever else uses the core does not count.
    """

    def __init__(self) -> None:
        self.longest = 0.0
        self._loop = asyncio.get_running_loop()
        self._last = time.thread_time()
        self._loop.call_later(BEAT, self._beat)

    def _beat(self) -> None:
        now = time.thread_time()
        self.longest = max(self.longest, now - self._last)
        self._last = now
        self._loop.call_later(BEAT, self._beat)

    def take(self) -> float:
        """The longest since this was last asked, in seconds."""
        longest, self.longest = self.longest, 0.0
        return longest


async def wait(event: asyncio.Event) -> None:
    """What a handler waits for."""
    await event.wait()


async def step(event: asyncio.Event) -> None:
    """A call between."""
    await wait(event)


async def job(event: asyncio.Event) -> None:
    """One of the crowd."""
    await step(event)


async def lifespan(receive: Receive, send: Send, state: dict[str, Any]) -> None:
    """Starts the probe."""
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            state["probe"] = Probe()
            state["crowd"] = []
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def answer(send: Send, body: bytes) -> None:
    """A plain answer."""
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def echo(receive: Receive, send: Send) -> None:
    """A WebSocket that sends every text back."""
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] != "websocket.disconnect":
        await send({"type": "websocket.send", "text": message["text"]})


async def app(scope: Message, receive: Receive, send: Send) -> None:
    """GET /crowd/N makes N tasks, GET /longest tells and forgets the longest turn."""
    if scope["type"] == "lifespan":
        await lifespan(receive, send, scope["state"])
        return
    if scope["type"] == "websocket":
        await echo(receive, send)
        return
    state = scope["state"]
    word, _, number = scope["path"][1:].partition("/")
    if word == "crowd":
        event = asyncio.Event()
        for index in range(int(number)):
            state["crowd"].append(asyncio.create_task(job(event), name=f"job {index}"))
            if index % 500 == 499:
                await asyncio.sleep(0)
        await answer(send, number.encode())
    elif word == "longest":
        await answer(send, repr(state["probe"].take()).encode())
    else:
        await answer(send, b"hello")
