"""When it makes sense to ask again for a task: from how long tasks of its kind take lately."""

from __future__ import annotations

from typing import Final

__all__ = ["Pace"]

#: How much the latest counts.
_WEIGHT: Final = 0.2
#: Seconds between which a client is told to come back.
_LEAST: Final = 1.0
_MOST: Final = 30.0
#: Kinds that are remembered; records may name kinds that nobody here has defined.
_KINDS: Final = 1000


class Pace:
    """How long tasks take, by kind, from submission to end.

    Example:
        >>> pace = Pace()
        >>> pace.note("resize", 12.0)
        >>> pace.retry_after("resize"), pace.retry_after("resize", elapsed=10.0), pace.retry_after("other")
        (12.0, 2.0, 1.0)
    """

    __slots__ = ("_typical",)

    def __init__(self) -> None:
        self._typical: dict[str, float] = {}

    def note(self, kind: str, seconds: float) -> None:
        """A task has taken so long."""
        before = self._typical.get(kind)
        if before is not None:
            self._typical[kind] = max(0.0, before + _WEIGHT * (seconds - before))
        elif len(self._typical) < _KINDS:
            self._typical[kind] = max(0.0, seconds)

    def retry_after(self, kind: str, elapsed: float = 0.0, delay: float = 0.0) -> float:
        """Seconds, from 1 to 30, until it probably has ended. One that takes longer is asked for ever less often.

        Args:
            kind: Of the task.
            elapsed: Seconds since it was due.
            delay: Seconds until it is due.
        """
        left = delay + self._typical.get(kind, 0.0) - elapsed
        if left < _LEAST:
            left = elapsed / 8.0
        return min(_MOST, max(_LEAST, left))
