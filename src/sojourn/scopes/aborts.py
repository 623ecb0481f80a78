"""What to break when a cancelled task does not end: the transport that it waits for.

A cancellation is not a bound on a peer that has vanished: a driver may wait for an answer in its clean-up, too. So who
waits for a peer says how the wait is broken, and the ladder breaks it at its second rung.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final

__all__ = ["abort_all", "aborting"]

#: Kept in the task itself, so that it is forgotten with it.
_ATTRIBUTE: Final = "sojourn_aborts"


class aborting:
    """While inside, ``abort`` is called if the present task is cancelled and has not ended half a second later.

    Args:
        abort: Breaks what the task waits for, at once and without waiting, such as ``transport.abort``. It may be
            called more than once, and what it raises is told to the loop's exception handler.

    Raises:
        RuntimeError: Entered outside a task.

    Example:
        >>> import asyncio
        >>> async def query(transport):
        ...     with aborting(transport.abort):
        ...         ...
    """

    __slots__ = ("_abort", "_aborts")

    def __init__(self, abort: Callable[[], object]) -> None:
        self._abort = abort

    def __enter__(self) -> None:
        task: asyncio.Task[Any] | None = asyncio.current_task()
        if task is None:
            raise RuntimeError("aborting() needs a task")
        aborts: list[Callable[[], object]] | None = getattr(task, _ATTRIBUTE, None)
        if aborts is None:
            aborts = []
            setattr(task, _ATTRIBUTE, aborts)
        self._aborts = aborts
        aborts.append(self._abort)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._aborts.remove(self._abort)


def abort_all(task: asyncio.Task[Any]) -> None:
    """Break everything that a task waits for, innermost first."""
    for abort in reversed(getattr(task, _ATTRIBUTE, ())):
        try:
            abort()
        except Exception as error:  # noqa: BLE001 - one that fails must not keep the others from their turn
            task.get_loop().call_exception_handler(
                {"message": f"could not abort what task {task.get_name()!r} waits for", "exception": error}
            )
