"""Who may do what with which task over HTTP."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, Literal

from sojourn.tasks.record import Task

__all__ = ["INTERNAL", "Access", "Action", "Authorizer"]

Action = Literal["start", "read", "cancel", "retry"]
#: Asked with the action, the task and who asks, as in ``Task.owner`` ("" for nobody); says whether it may be.
Authorizer = Callable[[Action, Task, str], Awaitable[bool]]

#: Kinds of the library's own begin so. Nobody sees them over HTTP.
INTERNAL: Final = "sojourn."


class Access:
    """The rule that is asked, and what counts without one.

    Without one a task is its owner's; one without an owner is of whoever knows its id, which nobody guesses. Anybody
    may start what is public, and nobody may retry over HTTP.
    """

    __slots__ = ("_authorizer",)

    def __init__(self) -> None:
        self._authorizer: Authorizer | None = None

    def authorize(self, call: Authorizer) -> Authorizer:
        """Set the rule; it stands in the place of the one above, and of the one before. Usable as a decorator.

        Args:
            call: Asked for each request. To ``start``, the task is one that is not there yet: it has a kind, an owner
                and the arguments (``payload``), and no id.
        """
        self._authorizer = call
        return call

    async def may(self, action: Action, task: Task, principal: str) -> bool:
        """Whether somebody may do something.

        Cancel: safe.
        """
        if task.kind.startswith(INTERNAL):
            return False
        if self._authorizer is not None:
            return await self._authorizer(action, task, principal)
        return action != "retry" and (not task.owner or task.owner == principal)
