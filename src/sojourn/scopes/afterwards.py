"""Work that begins when the answer is complete: its client does not wait for it, the drain does."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine
from contextvars import Context
from functools import partial
from typing import Any

from sojourn.scopes.deadline import deadline
from sojourn.scopes.failures import WORK
from sojourn.scopes.offload import offload
from sojourn.scopes.snapshot import Inherit, inherited
from sojourn.scopes.spawn import Host, begin, host_of

__all__ = ["after_response"]

Call = Callable[..., Any] | Coroutine[Any, Any, Any]


def after_response(
    call: Call,
    *args: Any,
    seconds: float | None = 30.0,
    always: bool = False,
    inherit: Inherit = "all",
    name: str = "",
) -> None:
    """Do something when the answer is complete and the application has returned from the request.

    It belongs to the server: a drain waits for it, from now on, as for a request. Several run at the same time. What it
    raises is told as an event and in the log. Of a WebSocket it is the end of that. May be called from a thread that
    the request's code runs in. Under another server it follows the task that calls.

    Args:
        call: A coroutine function; a plain function, which is called in a thread; or a coroutine.
        args: For the function.
        seconds: How long it may take; None for no limit.
        always: Also if the request failed: without a complete answer, or with a status of 500 or above.
        inherit: As for ``sojourn.spawn``; the deadline of the request never bounds it.
        name: What errors and reports call it; the function's own name when empty.

    Raises:
        RuntimeError: The request is over, or neither a request nor a task is here.
        ValueError: There is no such ``inherit``.

    Cancel: nothing is awaited.

    Example:
        >>> import asyncio
        >>> async def record(what):
        ...     print(what)
        >>> async def endpoint():
        ...     after_response(record, "answered")
        ...     return "the answer"
        >>> async def main():
        ...     task = asyncio.create_task(endpoint())
        ...     print(await task)
        ...     await asyncio.sleep(0.01)
        >>> asyncio.run(main())
        the answer
        answered
    """
    try:
        work = WORK.get(None)
        host = host_of()
        context = inherited(inherit, Context() if work is None else work.context(), outlives=True)
    except BaseException:
        if inspect.iscoroutine(call):
            call.close()
        raise
    name = name or getattr(call, "__qualname__", "") or "after the response"

    def start() -> None:
        begin(_afterwards(host, always, partial(_run, call, args, seconds, name), call), name, context, host.owner)

    if _in_loop():
        start()
    elif work is not None:
        work.loop.call_soon_threadsafe(start)
    else:
        raise RuntimeError("no event loop runs in this thread")


def _in_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:  # a thread without one
        return False
    return True


async def _afterwards(host: Host, always: bool, run: Callable[[], Coroutine[Any, Any, None]], call: Call) -> None:
    begun = False
    try:
        await asyncio.wait((host.task,))
        if always or not _failed(host):
            begun = True
            await run()
    finally:
        if not begun and inspect.iscoroutine(call):
            call.close()


async def _run(call: Call, args: tuple[Any, ...], seconds: float | None, name: str) -> None:
    async with deadline(seconds, name):
        if inspect.iscoroutine(call):
            await call
        elif inspect.iscoroutinefunction(call):
            await call(*args)
        elif callable(call):
            await offload(call, *args, name=name)


def _failed(host: Host) -> bool:
    """Whether the request did not end as it should."""
    if host.request is not None:
        status: int = getattr(host.request, "status", 0)
        return status >= 500 or getattr(host.request, "failure", None) is not None
    return host.task.cancelled() or host.task.exception() is not None
