"""An application that does what it must not, one path for each fault. Comments mark the lines that must be named."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import sojourn
from drills.app import answer, events, lifespan, websocket
from sojourn.typing import Receive, Scope, Send

__all__ = ["app"]

#: What keeps leaked things alive, as a careless cache does.
KEPT: Final[list[Any]] = []
#: Whom somebody wants to call back, and never does.
CALLBACKS: Final[list[Any]] = []  # planted: connection


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Plain ASGI; the path says what goes wrong."""
    match scope["type"], scope["path"] if scope["type"] != "lifespan" else "":
        case "lifespan", _:
            await lifespan(receive, send)
        case "websocket", _:
            await websocket(receive, send)
        case "http", "/events":
            await events(send)
        case "http", path if path in FAULTS:
            await FAULTS[path]()
            await answer(send, path.encode())
        case "http", "/keep-connection":
            CALLBACKS.append(send)
            await answer(send, b"kept")
        case _:
            await well_behaved()
            await answer(send, b"fine")


async def well_behaved() -> None:
    """What a handler may do: tasks that end, leases that are given back, sockets that are closed."""
    with sojourn.lease("good pool"):
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(0.001))
    late = asyncio.create_task(asyncio.sleep(0.2))  # outlives its request for a moment
    KEPT.append(late)
    late.add_done_callback(KEPT.remove)
    one, other = socket.socketpair()
    one.close()
    other.close()


async def leak_task() -> None:
    """A task that nobody will ever end."""
    KEPT.append(asyncio.create_task(never_ends()))  # planted: task


async def never_ends() -> None:
    await asyncio.Event().wait()  # planted: task waits


async def lose_task() -> None:
    """A task that only its own future knows: the collector takes both."""
    asyncio.create_task(held_by_nobody())  # noqa: RUF006 - planted: lost_task
    await asyncio.sleep(0.01)
    gc.collect()


async def held_by_nobody() -> None:
    await asyncio.get_running_loop().create_future()


async def keep_lease() -> None:
    """A lease that its request does not give back."""
    KEPT.append(sojourn.lease("pool"))  # planted: lease


async def hold_lease() -> None:
    """A lease that is given back late."""
    with sojourn.lease("slow pool"):  # planted: overdue
        await asyncio.sleep(5)


async def block() -> None:
    """A blocking call in a handler."""
    ask_somebody()


def ask_somebody() -> None:
    time.sleep(0.6)  # planted: block


async def make_garbage() -> None:
    """Four million cycles at once: more than the collector can take in a moment."""
    pile: list[list[Any]] = []
    for _ in range(160):
        for _ in range(25_000):
            cycle: list[Any] = []
            cycle.append(cycle)
            pile.append(cycle)
        await asyncio.sleep(0)
    pile.clear()
    gc.collect()  # planted: garbage


async def forget_coroutine() -> None:
    """A coroutine that nobody awaits."""
    with contextlib.suppress(ValueError):
        never_ends()  # type: ignore[unused-coroutine]  # planted: coroutine


async def leak_descriptor() -> None:
    """Sockets that stay open."""
    KEPT.extend(socket.socketpair())  # planted: fd


FAULTS: Final[dict[str, Callable[[], Awaitable[None]]]] = {
    "/leak-task": leak_task,
    "/lose-task": lose_task,
    "/keep-lease": keep_lease,
    "/hold-lease": hold_lease,
    "/block": block,
    "/make-garbage": make_garbage,
    "/forget-coroutine": forget_coroutine,
    "/leak-descriptor": leak_descriptor,
}
