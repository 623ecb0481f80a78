"""How long each dependency may take, by its name; the numbers are the operator's."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Final

from sojourn.clock import NEVER
from sojourn.scopes.deadline import Deadline

__all__ = ["BUDGETS", "Budgets", "budget"]


class Budgets:
    """The budgets in force.

    Attributes:
        seconds: By the name of a dependency. Replaced as a whole when the configuration changes.
    """

    __slots__ = ("seconds",)

    def __init__(self, seconds: Mapping[str, float]) -> None:
        self.seconds = seconds


#: Set by a server in the context of everything it runs.
BUDGETS: Final[ContextVar[Budgets]] = ContextVar("sojourn_budgets")


def budget(dependency: str, default: float | None = None) -> Deadline:
    """A deadline as long as ``deadlines.budgets`` of the configuration says for a dependency; only ever tightens.

    Args:
        dependency: Its name, such as ``"cache"``; errors call the deadline so.
        default: Seconds when the configuration says nothing, or no Sojourn server runs the application. None: only what
            is around it counts.

    Raises:
        DeadlineExceeded: As :func:`sojourn.deadline`.

    Cancel: safe, as :func:`sojourn.deadline`.

    Example:
        >>> import asyncio
        >>> async def main():
        ...     async with budget("cache", default=0.05):
        ...         await asyncio.sleep(0)
        >>> asyncio.run(main())
    """
    budgets = BUDGETS.get(None)
    seconds = default if budgets is None else budgets.seconds.get(dependency, default)
    frame = sys._getframe(1)
    return Deadline(NEVER if seconds is None else seconds, NEVER, dependency, frame.f_code, frame.f_lasti)
