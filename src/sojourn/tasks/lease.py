"""When leases are renewed, and when a node must not count on them any more. Pure: `now` is an argument.

    renewed ─────── beat ─────── fence ─────── over
       0          1/3 lease    2/3 lease      lease

What a node holds is renewed a third of the lease after it was last. When that can't be done until two thirds are over,
it cancels its own runs: a third of the lease is left for them to end in, before anybody else may have them. So a try
that hangs is given up by then. A process that was frozen asks once before it gives up: unless all of the lease is over,
which is longer than anybody may believe.

All moments are those *before* a call was sent: what the journal has written is later.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

__all__ = ["BEAT", "FENCE", "beat_at", "fenced", "patience"]

#: Shares of the lease.
BEAT: Final = 1 / 3
FENCE: Final = 2 / 3


def beat_at(renewed: Iterable[float], lease: float) -> float | None:
    """When to renew next; None when nothing is held.

    Args:
        renewed: When each lease that is held was last renewed, or taken.
        lease: Its length in seconds.
    """
    oldest = min(renewed, default=None)
    return None if oldest is None else oldest + lease * BEAT


def patience(oldest: float | None, lease: float, now: float) -> float:
    """Seconds that one try to renew may take: a third of the lease, and not beyond the moment to give up.

    Args:
        oldest: When the lease of a run was renewed, or taken, that was longest ago; None when nothing runs.
        lease: Its length in seconds.
        now: The time.
    """
    third = lease * BEAT
    if oldest is None:
        return third
    fence = oldest + lease * FENCE
    left = fence - now if now < fence else oldest + lease - now
    return min(third, max(left, third / 10))


def fenced(renewed: float, lease: float, now: float, tried: float) -> bool:
    """Whether a run is to be cancelled, because its lease could not be renewed.

    Args:
        renewed: When it was last renewed, or taken.
        lease: Its length in seconds.
        now: The time.
        tried: When it was last tried, without success; before ``renewed`` when it was not.
    """
    age = now - renewed
    return age >= lease or (age >= lease * FENCE and tried > renewed)
