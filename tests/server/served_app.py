"""Applications that the process tests serve: everything one can be in the middle of when a signal comes."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

#: Keeps tasks of the application's own alive.
KEPT: set[asyncio.Task[None]] = set()


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
    elif scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        note(f"websocket {(await receive())['code']}")
    else:
        query = {name: values[0] for name, values in parse_qs(scope["query_string"].decode()).items()}
        await PAGES[scope["path"].strip("/")](receive, send, **query)


async def lifespan(receive: Any, send: Any) -> None:
    for phase in ("startup", "shutdown"):
        await receive()
        note(phase)
        await send({"type": f"lifespan.{phase}.complete"})


def note(what: str) -> None:
    """Remember what happened, in a file that the test reads."""
    if "NOTES" in os.environ:
        with Path(os.environ["NOTES"]).open("a") as notes:
            print(what, file=notes)


async def answer(send: Any, body: bytes = b"done", *, more: bool = False, kind: bytes = b"text/plain") -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
    await send({"type": "http.response.body", "body": body, "more_body": more})


async def quick(receive: Any, send: Any) -> None:
    await answer(send)


async def slow(receive: Any, send: Any, seconds: str) -> None:
    note("begun")
    await asyncio.sleep(float(seconds))
    await answer(send)


async def download(receive: Any, send: Any, seconds: str) -> None:
    await answer(send, b"half", more=True)
    await asyncio.sleep(float(seconds))
    await send({"type": "http.response.body", "body": b"half"})


async def events(receive: Any, send: Any) -> None:
    await answer(send, b"data: 1\n\n", more=True, kind=b"text/event-stream")
    await asyncio.sleep(3600)


async def background(receive: Any, send: Any, seconds: str) -> None:
    await answer(send)
    await asyncio.sleep(float(seconds))
    note("background done")


async def resist(receive: Any, send: Any) -> None:
    note("begun")
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            note("resisted")


async def thread(receive: Any, send: Any) -> None:
    note("begun")
    await asyncio.to_thread(hang)


def hang() -> None:
    import threading

    threading.Event().wait(3600)


async def own_task(receive: Any, send: Any, resists: str) -> None:
    """A task that the application makes for itself."""
    task = asyncio.create_task(resist(receive, send) if resists == "yes" else slow(receive, send, "3600"), name="own")
    KEPT.add(task)
    await asyncio.sleep(0.01)
    await answer(send)


PAGES: dict[str, Any] = {
    "": quick,
    "slow": slow,
    "download": download,
    "events": events,
    "background": background,
    "resist": resist,
    "thread": thread,
    "own_task": own_task,
}


# -- applications that can't start or stop


async def fails_to_start(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    try:
        raise ConnectionRefusedError("no database")
    except ConnectionRefusedError:
        await send({"type": "lifespan.startup.failed", "message": "no database"})
        raise


async def exits(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    sys.exit("DATABASE_URL is not set")


async def starts_for_ever(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    note("begun")
    try:
        await asyncio.sleep(3600)
    except asyncio.CancelledError:
        note("cancelled")
        raise


async def fails_to_stop(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    raise RuntimeError("the queue is not empty")


async def stops_for_ever(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await asyncio.sleep(3600)
