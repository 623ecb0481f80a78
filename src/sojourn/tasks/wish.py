"""What is asked of one task beside its arguments."""

from __future__ import annotations

import math
from typing import Any, Final, NamedTuple

from sojourn.errors import TaskArguments

__all__ = ["PRIORITIES", "Wish"]

#: Characters of an idempotency key.
_KEY: Final = 1000
#: Seconds that can still be written as a date: up to the year 9999, a hundred years being enough for a wait.
_LAST: Final = 253_370_764_800.0
_LONGEST: Final = 100 * 365.25 * 86_400.0
#: What all engines can hold.
PRIORITIES: Final = range(-(2**31), 2**31)


class Wish(NamedTuple):
    """Options of one task; see ``Tasks.start``."""

    key: str = ""
    delay: float = 0.0
    run_at: float | None = None
    priority: int | None = None
    callback: str = ""
    expires: float | None = None

    @property
    def now(self) -> bool:
        """Whether it is due at once."""
        return self.delay <= 0.0 and self.run_at is None

    def check(self, kind: str) -> None:
        """See that engines can hold it.

        Args:
            kind: Of the task, for the error.

        Raises:
            TaskArguments: An option is none.
        """
        given: tuple[Any, ...] = self  # by applications, whatever the annotations say
        key, delay, run_at, priority, callback, expires = given
        for right, what, value in (
            (isinstance(key, str) and len(key) <= _KEY, f"key is text of at most {_KEY} characters", key),
            (not isinstance(key, str) or _is_plain(key), "key is text without NUL and halves of characters", key),
            (_within(delay, -_LONGEST, _LONGEST), "delay is a number of seconds", delay),
            (
                run_at is None or _within(run_at, 0.0, _LAST),
                "run_at is a time in seconds since 1970, such as datetime.timestamp()",
                run_at,
            ),
            (
                priority is None or (isinstance(priority, int) and priority in PRIORITIES),
                "priority is a whole number of 32 bits",
                priority,
            ),
            (isinstance(callback, str), "callback is a URL", callback),
            (
                expires is None or _within(expires, 0.0, math.inf),
                "expires is a number of seconds, not below 0",
                expires,
            ),
        ):
            if not right:
                raise TaskArguments(kind, f"{what}, not {value!r:.100}")


def _within(value: Any, least: float, most: float) -> bool:
    return isinstance(value, int | float) and least <= value <= most  # which no NaN is


def _is_plain(text: str) -> bool:
    return "\0" not in text and (text.isascii() or not any("\ud800" <= each <= "\udfff" for each in text))
