"""Tasks that may outlive the request that made them."""

from __future__ import annotations

import asyncio
from typing import Any, Final, TypeVar

__all__ = ["adopt", "adopter_of"]

#: Kept in the task itself, so that it is forgotten with it.
_ATTRIBUTE: Final = "sojourn_owner"

AnyTask = TypeVar("AnyTask", bound="asyncio.Task[Any]")


def adopt(task: AnyTask, owner: str) -> AnyTask:
    """Say that a task is meant to live on when the request that made it has ended: it is no leak.

    It goes on being the application's: the server does not wait for it and does not cancel it. What an adopted task
    awaits is adopted with it. Under another server this does nothing.

    Args:
        task: Whom.
        owner: What it belongs to from now on, such as ``"cache refresher"``, for reports.

    Returns:
        The task.

    Raises:
        ValueError: The owner has no name.

    Example:
        >>> import asyncio
        >>> async def main():
        ...     task = adopt(asyncio.create_task(asyncio.sleep(0)), owner="cache refresher")
        ...     await task
        >>> asyncio.run(main())
    """
    if not owner:
        raise ValueError("an adopted task has an owner with a name")
    setattr(task, _ATTRIBUTE, owner)
    return task


def adopter_of(task: asyncio.Task[Any]) -> str:
    """Who adopted a task; "" when nobody did."""
    owner = getattr(task, _ATTRIBUTE, "")
    return owner if isinstance(owner, str) else ""
