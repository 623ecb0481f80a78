"""The request that runs here, and decorators that give it settings of its own."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable
from typing import Any, Final, TypeVar, cast

from sojourn.asgi.control import RequestControl
from sojourn.asgi.inbound import REQUEST_LIMITS, REQUEST_TIMEOUTS
from sojourn.asgi.site import CURRENT

__all__ = ["current_request", "limits", "timeouts"]

F = TypeVar("F", bound=Callable[..., Any])

#: Of a request, and of a WebSocket.
_TIMEOUTS: Final = (*REQUEST_TIMEOUTS, "idle", "write")


def current_request() -> RequestControl | None:
    """The request or WebSocket whose application runs in the present context.

    Returns:
        None outside a request, or when another server runs the application.

    Example:
        >>> current_request() is None
        True
    """
    return CURRENT.get(None)


def timeouts(**seconds: float | None) -> Callable[[F], F]:
    """Give the requests of an endpoint other timeouts; under another server the decorator does nothing.

    Args:
        seconds: As in :meth:`RequestControl.set_timeout`; None takes a limit away.

    Raises:
        ValueError: There is no such timeout, or one is not above zero.

    Example:
        >>> @timeouts(handler=2.5)
        ... async def report(request):
        ...     return "done"
    """
    for name, value in seconds.items():
        if name not in _TIMEOUTS:
            raise ValueError(f"there is no timeout {name!r}; there are {', '.join(_TIMEOUTS)}")
        if value is not None and not value > 0:
            raise ValueError(f"timeout {name} must be above zero, not {value!r}")
    return _decorator(lambda request: [request.set_timeout(name, value) for name, value in seconds.items()])


def limits(**values: int | None) -> Callable[[F], F]:
    """Give the requests of an endpoint other limits; under another server the decorator does nothing.

    An endpoint is reached after its framework has routed, and some frameworks read the body before that: a limit that
    must hold for them belongs into ``[[routes]]`` of the configuration.

    Args:
        values: As in :meth:`RequestControl.set_limit`; None takes a limit away.

    Raises:
        ValueError: There is no such limit, or one is negative.

    Example:
        >>> @limits(body=None)
        ... async def upload(request):
        ...     return "stored"
    """
    for name, value in values.items():
        if name not in REQUEST_LIMITS:
            raise ValueError(f"there is no limit {name!r}; there are {', '.join(REQUEST_LIMITS)}")
        if value is not None and value < 0:
            raise ValueError(f"limit {name} can't be negative: {value!r}")
    return _decorator(lambda request: [request.set_limit(name, value) for name, value in values.items()])


def _runs_in(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether this is the thread of a loop."""
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:  # no loop runs here
        return False


def _decorator(apply: Callable[[RequestControl], object]) -> Callable[[F], F]:
    def decorate(function: F) -> F:
        if inspect.isasyncgenfunction(function):
            raise TypeError("decorate the endpoint, not a generator it returns")

        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def wrapped(*args: Any, **kwargs: Any) -> Any:
                request = CURRENT.get(None)
                if request is not None:
                    apply(request)
                return await function(*args, **kwargs)

        else:

            @functools.wraps(function)
            def wrapped(*args: Any, **kwargs: Any) -> Any:
                request = CURRENT.get(None)
                if request is not None:
                    loop = request.connection.runtime.loop
                    if _runs_in(loop):
                        apply(request)
                    else:  # it runs in a thread; the slots belong to the loop
                        loop.call_soon_threadsafe(apply, request)
                return function(*args, **kwargs)

        return cast(F, wrapped)

    return decorate
