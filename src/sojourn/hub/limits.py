"""How many members there may be, how fast they may come, and how much each may say."""

from __future__ import annotations

from math import ceil
from typing import Final, NamedTuple

from sojourn.hub.rules import HubLimits
from sojourn.policy.admission import client_key
from sojourn.policy.rate import SLACK, Bucket, Demand, fits, leaked, standing

__all__ = ["Doors", "Inbound", "Refused"]

#: Seconds after which somebody may try again for whom there is no room; room is made by others, at no known moment.
_LATER: Final = 5.0
_TOO_MANY: Final = 4504
_OVERLOAD: Final = 1013


class Refused(NamedTuple):
    """Why somebody can't come in.

    Attributes:
        limit: The limit that was reached, as it is named in :class:`~sojourn.hub.rules.HubLimits`.
        status: HTTP status, before the connection was accepted: 429 is about this client, 503 about all.
        code: Close code, after it was accepted.
        detail: For the client.
        retry_after: Whole seconds; None when it is of no use to come again by itself.
    """

    limit: str
    status: int
    code: int
    detail: str
    retry_after: int | None = None


class Doors:
    """Counts the members of this process.

    What is asked is not counted yet: somebody who has to prove who it is may be in the doorway for as long as
    ``auth_within``. So it is asked again by :meth:`admit` when it enters, and no limit is passed by those who came
    together.

    Args:
        limits: How many may be in.

    Attributes:
        total: Members that are in.
    """

    __slots__ = ("_addresses", "_bucket", "_demand", "_limits", "_users", "total")

    def __init__(self, limits: HubLimits) -> None:
        self._limits = limits
        self.total = 0
        self._addresses: dict[str, int] = {}
        self._users: dict[str, int] = {}
        rate = limits.connect_rate
        self._demand = None if rate is None else Demand("", rate, max(1.0, 2 * rate), 1.0)
        self._bucket: Bucket | None = None

    def come(self, address: str, now: float) -> Refused | None:
        """Somebody knocks: one of those who may come in this second, if there is room.

        Args:
            address: Of the client; "" when it is not known.
            now: Present moment, in seconds.
        """
        # Whoever is over a limit of its own takes nothing from the rate of the others.
        return self._room() or self._address(address) or self._rate(now)

    def user(self, user: str) -> Refused | None:
        """Whether one more member of a user may be in; "" is nobody in particular, and is not counted."""
        most = self._limits.per_user
        if not user or most is None or self._users.get(user, 0) < most:
            return None
        return Refused("per_user", 429, _TOO_MANY, "too many connections of this user")

    def admit(self, address: str, user: str) -> Refused | None:
        """Let somebody in and count it, unless others have taken the room meanwhile; :meth:`leave` must follow."""
        refused = self._room() or self._address(address) or self.user(user)
        if refused is None:
            self.total += 1
            _more(self._addresses, client_key(address))
            _more(self._users, user)
        return refused

    def leave(self, address: str, user: str) -> None:
        """Somebody who was let in, with the same arguments, is not in any more."""
        self.total -= 1
        _less(self._addresses, client_key(address))
        _less(self._users, user)

    def _room(self) -> Refused | None:
        most = self._limits.total
        if most is None or self.total < most:
            return None
        return Refused("total", 503, _OVERLOAD, "there is no room", int(_LATER))

    def _address(self, address: str) -> Refused | None:
        most = self._limits.per_ip
        if not address or most is None or self._addresses.get(client_key(address), 0) < most:
            return None
        return Refused("per_ip", 429, _TOO_MANY, "too many connections of this address")

    def _rate(self, now: float) -> Refused | None:
        demand = self._demand
        if demand is None:
            return None
        bucket = self._bucket
        if bucket is None:
            bucket = self._bucket = Bucket(demand, now)
        used = leaked(bucket.used, bucket.at, now, demand.rate)
        if fits(used, demand):
            bucket.take(demand, used, now)
            return None
        wait = standing(used, demand, False).wait
        return Refused("connect_rate", 503, _OVERLOAD, "too many come at once", max(1, ceil(wait)))


class Inbound:
    """How many messages one member may send: a bucket of tokens that is refilled evenly.

    Args:
        rate: Messages in a second, on average.
        burst: Messages at once.
        now: Present moment, in seconds.
    """

    __slots__ = ("_at", "_most", "_rate", "_used")

    def __init__(self, rate: float, burst: int, now: float) -> None:
        self._rate = rate
        self._most = burst * (1.0 + SLACK)
        self._used = 0.0
        self._at = now

    def take(self, now: float) -> float:
        """One more message comes; it counts in any case.

        Returns:
            Seconds to wait before it is heeded, so that the rate is kept; 0.0 when it is within it.
        """
        used = self._used
        if now > self._at:
            used -= (now - self._at) * self._rate
            if used < 0.0:
                used = 0.0
            self._at = now
        self._used = used = used + 1.0
        return (used - self._most) / self._rate if used > self._most else 0.0


def _more(counts: dict[str, int], key: str) -> None:
    if key:
        counts[key] = counts.get(key, 0) + 1


def _less(counts: dict[str, int], key: str) -> None:
    if key:
        left = counts[key] - 1
        if left:
            counts[key] = left
        else:
            del counts[key]
