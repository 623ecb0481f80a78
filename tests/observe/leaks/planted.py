"""An application with planted faults, one for each path. The lines that make them are marked."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from sojourn.observe.leaks.leases import lease
from tests.observe.leaks.scene import answer

KEPT: list[Any] = []  # line: keeps
SOCKETS: list[socket.socket] = []


async def forever(event: asyncio.Event) -> None:
    await event.wait()  # line: waits


async def unwanted() -> None:
    """Nobody awaits it."""


def lose() -> None:
    """A task that waits for something only it holds: the collector may take both."""

    async def alone() -> None:
        await asyncio.get_running_loop().create_future()  # line: lost

    asyncio.ensure_future(alone())  # noqa: RUF006  # line: loses


async def app(scope: Any, receive: Any, send: Any) -> None:
    match scope["path"]:
        case "/task":
            event = asyncio.Event()
            KEPT.append(event)
            KEPT.append(asyncio.create_task(forever(event)))  # line: makes
        case "/lease":
            KEPT.append(lease("pg"))  # line: takes
        case "/coroutine":
            unwanted()  # type: ignore[unused-coroutine]  # line: forgets
        case "/lost":
            lose()
        case "/descriptor":
            SOCKETS.append(socket.socket())  # line: opens
        case "/connection":
            KEPT.append(scope)
        case "/tidy":
            with lease("pg"):
                await asyncio.create_task(asyncio.sleep(0))
            with socket.socket():
                pass
    await answer(send)


def line(mark: str) -> str:
    """``file:line`` of a marked line."""
    with open(__file__, encoding="utf-8") as source:
        for number, text in enumerate(source, 1):
            if text.rstrip().endswith(f"# line: {mark}"):
                return f"{__file__}:{number}"
    raise LookupError(mark)


def forget() -> None:
    """Undo what was planted."""
    for kept in KEPT:
        if isinstance(kept, asyncio.Task):
            kept.cancel()
    KEPT.clear()
    while SOCKETS:
        SOCKETS.pop().close()
