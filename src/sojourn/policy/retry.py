"""Whether, and when, something that failed is tried again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final

__all__ = ["Backoff", "RetryBudget", "retry_after_of"]

#: A doubling more is beyond every cap, and beyond the range of floats at last.
_DOUBLINGS: Final = 60


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait between tries: exponential, with full jitter.

    Full jitter takes any wait from 0 to the ceiling of its try: so callers that failed together do not come back
    together.

    Args:
        first: Ceiling of the wait before the second try, in seconds; it doubles with each.
        most: Ceiling of all of them. A ``Retry-After`` that asks for more than ten times that is not waited for.

    Source: AWS Architecture Blog, "Exponential Backoff And Jitter".

    Example:
        >>> [Backoff(0.1, 1.0).delay(tries, chance=1.0) for tries in (1, 2, 3, 4, 5)]
        [0.1, 0.2, 0.4, 0.8, 1.0]
    """

    first: float = 0.1
    most: float = 5.0

    def __post_init__(self) -> None:
        if not 0 < self.first <= self.most:
            raise ValueError(f"a backoff from {self.first!r} s to {self.most!r} s: above zero, and not falling")

    @property
    def patience(self) -> float:
        """The longest ``Retry-After`` that is waited for, in seconds."""
        return 10.0 * self.most

    def delay(self, tries: int, chance: float) -> float:
        """Seconds to wait.

        Args:
            tries: How many have failed.
            chance: A random number from 0 to 1.
        """
        return chance * min(self.most, self.first * 2.0 ** min(tries - 1, _DOUBLINGS))


class RetryBudget:
    """How many retries a dependency is given, over all calls: a share of them, and a few per second.

    Without one, a dependency that fails gets as many times its load as there are attempts, at the moment when it can
    bear least. One budget may serve several :class:`sojourn.Retry` that call the same dependency.

    Args:
        share: Retries for each call; 0.1 adds a tenth to the load at most.
        per_second: Retries for each second, so that a service with few calls can retry at all.
        most: What is saved up at most; it begins with so many.

    Example:
        >>> budget = RetryBudget(share=0.5, per_second=0.0, most=1.0)
        >>> [budget.take(0.0), budget.take(0.0)]
        [True, False]
    """

    __slots__ = ("_since", "_tokens", "most", "per_second", "share")

    def __init__(self, share: float = 0.1, per_second: float = 1.0, most: float = 10.0) -> None:
        if share < 0 or per_second < 0 or most < 1:
            raise ValueError(f"a budget of {share!r}, {per_second!r}/s, at most {most!r}: not below 0, 0 and 1")
        self.share = share
        self.per_second = per_second
        self.most = most
        self._tokens = most
        self._since: float | None = None

    def left(self, now: float) -> float:
        """Retries that it would give at ``now``, in monotonic seconds."""
        if self._since is None:
            return self._tokens
        return min(self.most, self._tokens + (now - self._since) * self.per_second)

    def called(self) -> None:
        """A call has begun; its retries are none."""
        self._tokens = min(self.most, self._tokens + self.share)

    def take(self, now: float) -> bool:
        """Whether there may be a retry at ``now``; then it is counted."""
        left = self.left(now)
        self._since = now
        self._tokens = left - 1.0 if left >= 1.0 else left
        return left >= 1.0


def retry_after_of(error: object, wall: float) -> float | None:
    """How long the one who refused asks to wait.

    Args:
        error: What was raised. Read are a number of seconds in its ``retry_after``, and the header ``Retry-After`` in
            its ``headers`` or those of its ``response``: errors of Sojourn, httpx, requests and aiohttp have one.
        wall: Seconds since 1970, because the header may be a date.

    Returns:
        Seconds, not below 0; None when nothing is asked for, or it can't be read.

    Source: RFC 9110 section 10.2.3.
    """
    seconds = getattr(error, "retry_after", None)
    if isinstance(seconds, int | float):
        return max(0.0, float(seconds)) if seconds == seconds else None
    for holder in (error, getattr(error, "response", None)):
        headers = getattr(holder, "headers", None)
        if isinstance(headers, Mapping):
            value = headers.get("retry-after") or headers.get("Retry-After")
            if isinstance(value, str):
                return _seconds(value.strip(), wall)
    return None


def _seconds(value: str, wall: float) -> float | None:
    if value.isascii() and value.isdigit() and len(value) < 10:
        return float(value)
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, OverflowError):  # no date, or none that a computer knows
        return None
    if date.tzinfo is None:  # "-0000": in UTC, of nowhere in particular
        date = date.replace(tzinfo=UTC)
    return max(0.0, date.timestamp() - wall)
