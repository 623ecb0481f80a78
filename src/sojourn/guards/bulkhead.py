"""A bulkhead: a dependency that is slow holds so many calls up and no more, so it can't hold up everything."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Final, ParamSpec, TypeVar

from sojourn.clock import Clock
from sojourn.errors import BulkheadFull
from sojourn.guards.decorator import decorated
from sojourn.guards.line import Line
from sojourn.guards.registry import GUARDS, Figures, Guards, met

__all__ = ["Bulkhead"]

P = ParamSpec("P")
T = TypeVar("T")


class Bulkhead:
    """Lets so many calls run at once; a few more wait in line, in order and not for long; the others are refused.

    ``async with bulkhead:``, ``await bulkhead.call(...)`` and ``@bulkhead`` do the same.

    Args:
        name: Of the dependency; errors and metrics call it so.
        limit: Calls that run at once; at least one.
        queue: Calls that may wait; 0 refuses at once what can't run.
        wait: Longest wait in seconds; the ambient deadline may end it sooner.
        clock: Where time comes from.

    Attributes:
        name: As given.

    Belongs to one event loop, as what it guards does.

    Example:
        >>> import asyncio
        >>> search = Bulkhead("search", 20, queue=50, wait=0.2)
        >>> async def main():
        ...     async with search:
        ...         return search.running
        >>> asyncio.run(main())
        1
    """

    __slots__ = ("__weakref__", "_full", "_guards", "_line", "_ran", "_slots", "_waited", "name")

    kind: Final = "bulkhead"

    def __init__(self, name: str, limit: int, *, queue: int = 0, wait: float = 1.0, clock: Clock | None = None) -> None:
        self.name = name
        self._line = Line(name, limit, queue, wait, clock)
        self._slots = self._line.slots
        self._ran = self._full = self._waited = 0
        self._guards: Guards | None = None

    @property
    def running(self) -> int:
        """Calls that run."""
        return self._slots.running

    @property
    def waiting(self) -> int:
        """Calls that wait."""
        return self._slots.waiting

    def figures(self) -> Figures:
        """For the metrics."""
        counts = {"ran": self._ran, "full": self._full, "waited": self._waited}
        return Figures(counts, self.running, self.waiting)

    async def __aenter__(self) -> Bulkhead:
        guards = GUARDS.get()
        if guards is not self._guards:
            self._guards = met(guards, self)
        slots = self._slots
        if slots.running < slots.limit:
            slots.running += 1
        else:
            await self._stand()
        self._ran += 1
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._line.leave()

    async def call(self, function: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Await ``function(*args, **kwargs)`` when there is room.

        Raises:
            BulkheadFull: There is none, or not in time.
            DeadlineExceeded: The ambient deadline passed before there was.

        Cancel: safe; who waits leaves the line.
        """
        async with self:
            return await function(*args, **kwargs)

    def __call__(self, function: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
        """Guard all calls of an ``async def`` function."""
        return decorated(self, function)

    async def _stand(self) -> None:
        """Stand in line for a slot."""
        refusal = await self._line.enter()
        if refusal is None:
            return
        slots = self._slots
        if refusal == "full":
            self._full += 1
            raise BulkheadFull(self.name, f"{slots.running} calls run and {slots.waiting} wait, as many as may")
        self._waited += 1
        raise BulkheadFull(self.name, f"no place in {slots.queue_wait:g} s: {slots.running} calls run")
