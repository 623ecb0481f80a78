"""How often something may happen: token buckets.

A bucket holds ``burst`` tokens and is refilled evenly. What is remembered of it is how many tokens are gone, and when
that was so: whole requests are whole numbers then, and a burst of a thousand is a thousand however long the clock runs.
A bucket that is full again is as good as one that was never there.

The same arithmetic, in the same order, is done by a script in Redis (``guards/rates/redis.py``): both agree to the bit.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from sojourn.clock import NEVER

__all__ = ["Bucket", "Demand", "Rate", "Standing", "fits", "leaked", "standing"]

#: Part of a burst by which a bucket may be overdrawn: more than rounding, less than anyone notices.
SLACK: Final = 1e-9

_SECONDS: Final = {
    **dict.fromkeys(("s", "sec", "second", "seconds"), 1),
    **dict.fromkeys(("m", "min", "minute", "minutes"), 60),
    **dict.fromkeys(("h", "hour", "hours"), 3600),
    **dict.fromkeys(("d", "day", "days"), 86400),
}
_RATE: Final = re.compile(r"\s*(\d+(?:\.\d+)?)\s*/\s*(\d+(?:\.\d+)?)?\s*([a-z]+)\s*")


class Rate(NamedTuple):
    """So many in so many seconds.

    Attributes:
        amount: How many; above zero.
        period: Seconds; above zero.
    """

    amount: float
    period: float

    @property
    def per_second(self) -> float:
        """How many in a second."""
        return self.amount / self.period

    @classmethod
    def parse(cls, text: str) -> Rate:
        """Read ``100/minute``, ``5/s``, ``1000/15m``.

        Raises:
            ValueError: It is none of this kind, or one of its numbers is not above zero.
        """
        match = _RATE.fullmatch(text.lower())
        unit = _SECONDS.get(match[3]) if match else None
        if match is not None and unit is not None:
            rate = cls(float(match[1]), float(match[2] or 1) * unit)
            if rate.amount > 0 and rate.period > 0:
                return rate
        raise ValueError(f"{text!r} is no rate: write a number, / and a unit of time, as in 100/minute, 5/s, 1000/15m")


class Demand(NamedTuple):
    """What is asked of one bucket.

    Attributes:
        key: Which bucket.
        rate: Tokens that flow in, each second.
        burst: Tokens it holds.
        cost: Tokens that are asked for; 0.0 only looks.
    """

    key: str
    rate: float
    burst: float
    cost: float


class Standing(NamedTuple):
    """How a bucket stands after it was asked.

    Attributes:
        left: Tokens in it.
        wait: Seconds until what was asked for would be there; 0.0 when it was, and infinite when it never is.
        full: Seconds until it is full.
    """

    left: float
    wait: float
    full: float


class Bucket:
    """One bucket.

    Args:
        demand: What it is asked first; its rate and size.
        now: Monotonic seconds.

    Attributes:
        used: Tokens that were gone at the moment ``at``.
    """

    __slots__ = ("at", "burst", "rate", "used")

    def __init__(self, demand: Demand, now: float) -> None:
        self.rate = demand.rate
        self.burst = demand.burst
        self.used = 0.0
        self.at = now

    def share(self, now: float) -> float:
        """Which part of it is gone: 0.0 is full, 1.0 empty."""
        return leaked(self.used, self.at, now, self.rate) / self.burst

    def take(self, demand: Demand, used: float, now: float) -> None:
        """Take what is asked for.

        Args:
            demand: What; its rate and size are the bucket's from now on.
            used: Tokens that are gone now, before that.
            now: Monotonic seconds.
        """
        self.rate, self.burst = demand.rate, demand.burst
        self.used = used + demand.cost
        self.at = now


def leaked(used: float, at: float, now: float, rate: float) -> float:
    """Tokens that are gone now, of those that were gone at a moment. A clock that went back refills nothing."""
    if now > at:
        used -= (now - at) * rate
        if used < 0.0:
            return 0.0
    return used


def fits(used: float, demand: Demand) -> bool:
    """Whether what is asked for is there."""
    return used + demand.cost <= demand.burst + demand.burst * SLACK


def standing(used: float, demand: Demand, taken: bool) -> Standing:
    """How a bucket stands.

    Args:
        used: Tokens that were gone before.
        demand: What was asked of it.
        taken: Whether it was given: of several demands all are, or none.
    """
    _, rate, burst, cost = demand
    wait = 0.0
    if taken:
        used += cost
    elif not fits(used, demand):
        wait = (used + cost - burst) / rate if cost <= burst else NEVER
    return Standing(burst - used if used < burst else 0.0, wait, used / rate)
