"""What a task waits for, in words."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Any, Final, NamedTuple

from sojourn.observe.tasks.chain import waiter_of

__all__ = ["Wait", "wait_of"]


class Wait(NamedTuple):
    """What a task waits for.

    Attributes:
        kind: A few words that equal waits share: ``Event``, ``sleep``, ``task``; "" when it waits for nothing.
        detail: What makes it this one: ``3.2 s left``, ``17 (Task-17)``; "" when nothing is known.
    """

    kind: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.detail}".rstrip()


#: By the last two parts of the path and the qualified name: what waits there.
_KNOWN: Final = {
    "asyncio/tasks.py": {
        "sleep": "sleep",
        "_wait": "several",
        "wait_for": "wait_for",
        "_AsCompletedIterator._wait_for_one": "as_completed",
    },
    "asyncio/locks.py": {
        "Event.wait": "Event",
        "Lock.acquire": "Lock",
        "Condition.wait": "Condition",
        "Semaphore.acquire": "Semaphore",
        "Barrier._wait": "Barrier",
        "Barrier._block": "Barrier",
    },
    "asyncio/queues.py": {"Queue.get": "Queue.get", "Queue.put": "Queue.put", "Queue.join": "Queue.join"},
    "asyncio/streams.py": {
        "StreamReader._wait_for_data": "stream data",
        "FlowControlMixin._drain_helper": "stream drain",
        "StreamReaderProtocol._drain_helper": "stream drain",
    },
    "asyncio/taskgroups.py": {"TaskGroup.__aexit__": "TaskGroup", "TaskGroup._aexit": "TaskGroup"},
    "asyncio/base_subprocess.py": {"BaseSubprocessTransport._wait": "process"},
    "asyncio/selector_events.py": {
        "BaseSelectorEventLoop.sock_recv": "socket read",
        "BaseSelectorEventLoop.sock_recv_into": "socket read",
        "BaseSelectorEventLoop.sock_sendall": "socket write",
        "BaseSelectorEventLoop.sock_connect": "socket connect",
        "BaseSelectorEventLoop.sock_accept": "socket accept",
    },
    "asgi/inbound.py": {"Inbound._wait_for_body": "request body", "Inbound._wait": "end of the request"},
    "asgi/websocket_inbound.py": {"WebSocketInbound.receive": "WebSocket message"},
    "asgi/websocket.py": {"WebSocketHandler._send_queued": "client to read"},
    "net/connection.py": {"Connection.writable": "client to read"},
    "_backends/_asyncio.py": {
        "run_sync_in_worker_thread": "thread",
        "AsyncIOBackend.run_sync_in_worker_thread": "thread",
    },
}
#: Where it is, when it is one of the connections served here.
_SERVED: Final = frozenset(("request body", "end of the request", "WebSocket message", "client to read"))
#: Names of callbacks that say what a bare future stands for.
_SHIELD: Final = "shield.<locals>._outer_done_callback"
_THREAD: Final = "_chain_future.<locals>._call_check_cancel"


def wait_of(
    task: asyncio.Task[Any],
    frames: list[FrameType],
    name_of: Callable[[asyncio.Task[Any]], str],
    now: float,
    connection: int | None,
) -> Wait:
    """What a task waits for.

    Args:
        task: The task.
        frames: Its frames, innermost first.
        name_of: What to call another task.
        now: The monotonic clock.
        connection: Number of the connection it belongs to; None when it belongs to none.
    """
    waiter = waiter_of(task)
    if waiter is None or waiter.done():
        return Wait("")
    if isinstance(waiter, asyncio.Task):
        return Wait("task", name_of(waiter))
    children = getattr(waiter, "_children", None)
    if children is not None:
        return Wait("gather", _counted(children))
    known = _known(frames)
    if known is not None:
        kind, frame = known
        served = kind in _SERVED and connection is not None
        return Wait(kind, f"of connection {connection}" if served else _detail(kind, frame, name_of, now))
    for callback, *_ in getattr(waiter, "_callbacks", None) or ():
        name = getattr(callback, "__qualname__", "")
        if name == _THREAD:
            return Wait("thread")
        if name == _SHIELD:
            inner = _closure(callback).get("inner")
            return Wait("task", f"{name_of(inner)}, shielded") if isinstance(inner, asyncio.Task) else Wait("shield")
    return Wait(type(waiter).__name__)


def _known(frames: list[FrameType]) -> tuple[str, FrameType] | None:
    """What the innermost frames are known to wait for: ``Queue.join`` rather than the Event that it waits for."""
    found = None
    for frame in frames:
        kind = _kind(frame)
        if not kind or (found is not None and kind == "wait_for"):  # around something that says more
            break
        found = kind, frame
    return found


def _kind(frame: FrameType) -> str:
    code = frame.f_code
    known = _KNOWN.get("/".join(code.co_filename.replace("\\", "/").rsplit("/", 2)[-2:]))
    return known.get(code.co_qualname, "") if known is not None else ""


def _detail(kind: str, frame: FrameType, name_of: Callable[[asyncio.Task[Any]], str], now: float) -> str:
    """More about a wait inside asyncio, from the variables of its own functions."""
    there = frame.f_locals
    if kind == "sleep":
        timer = there.get("h")
        return f"{max(0.0, timer.when() - now):.1f} s left" if timer is not None else ""
    if kind == "several":
        first = there.get("return_when") != asyncio.ALL_COMPLETED
        return f"{'the first of' if first else 'all of'} {_counted(there.get('fs', ()))}"
    if kind == "wait_for":
        inner = there.get("fut")
        return name_of(inner) if isinstance(inner, asyncio.Task) else ""
    if kind == "TaskGroup":
        return _counted(getattr(there.get("self"), "_tasks", ()))
    if kind == "stream data":
        transport = getattr(there.get("self"), "_transport", None)
        peer = transport.get_extra_info("peername") if transport is not None else None
        return f"from {peer[0]}:{peer[1]}" if isinstance(peer, tuple) else ""
    return ""


def _counted(futures: Iterable[Any]) -> str:
    several = list(futures)
    return f"{sum(not future.done() for future in several)} of {len(several)}"


def _closure(function: Any) -> dict[str, Any]:
    names = function.__code__.co_freevars
    return {name: cell.cell_contents for name, cell in zip(names, function.__closure__ or (), strict=True)}
