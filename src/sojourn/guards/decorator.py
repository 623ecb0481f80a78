"""A guard as a decorator."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, ParamSpec, Protocol, TypeVar

__all__ = ["decorated"]

P = ParamSpec("P")
T = TypeVar("T")


class Caller(Protocol):
    """A guard through which functions are called."""

    @property
    def kind(self) -> str: ...
    @property
    def name(self) -> str: ...
    async def call(self, function: Callable[..., Awaitable[Any]], /, *args: Any, **kwargs: Any) -> Any: ...


def decorated(guard: Caller, function: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
    """A function that calls another one through a guard.

    Raises:
        TypeError: It is not made with ``async def``; what a generator does while it is read would not be guarded.
    """
    if not inspect.iscoroutinefunction(function):
        raise TypeError(f"{guard.kind} {guard.name!r} guards functions made with 'async def', not {function!r}")
    call = guard.call

    @functools.wraps(function)
    async def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
        result: T = await call(function, *args, **kwargs)
        return result

    return guarded
