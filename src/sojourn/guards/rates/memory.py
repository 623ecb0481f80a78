"""Buckets in the memory of one process, of which there are never more than a number."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

from sojourn.clock import Clock, SystemClock
from sojourn.policy.rate import Bucket, Demand, Standing, fits, leaked, standing

__all__ = ["MemoryRates"]

#: Old buckets looked at when a new one comes: two keep the number near that of those in use.
_LOOKS: Final = 2
#: The same when there is no room.
_LOOKS_FOR_ROOM: Final = 8
#: The bucket of all who find no room.
_CROWD: Final = "\0crowd"


class MemoryRates:
    """Counts in the memory of this process. Each worker counts for itself.

    The number of buckets is bounded. Full ones are forgotten, oldest first: they say nothing. When none is full, the
    least used of a few old ones goes; one that would refuse a request never does, so nobody gets a new one by sending
    under many names. When there is nothing to forget, newcomers of a quota share one bucket.

    Args:
        keys: Most buckets.
        clock: Where time comes from; None takes the machine's.

    Attributes:
        crowded: How often a newcomer found no room.

    Example:
        >>> import asyncio
        >>> rates, one = MemoryRates(keys=1000), Demand("alice", rate=1.0, burst=1.0, cost=1.0)
        >>> [asyncio.run(rates.take([one]))[0].wait > 0 for _ in range(2)]
        [False, True]
    """

    __slots__ = ("_buckets", "_keys", "_now", "crowded")

    def __init__(self, keys: int = 65_536, *, clock: Clock | None = None) -> None:
        if keys < 1:
            raise ValueError(f"room for {keys} buckets is too little: write 1 or more")
        self._keys = keys
        self._now = (clock or SystemClock()).monotonic
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()
        self.crowded = 0

    def __len__(self) -> int:
        """How many buckets are remembered."""
        return len(self._buckets)

    async def take(self, demands: Sequence[Demand]) -> Sequence[Standing]:
        """Take from all buckets, or from none; how each stands is the answer.

        Cancel: safe; nothing is awaited.
        """
        now = self._now()
        known = self._buckets
        if len(demands) == 1:  # the most frequent case, without the lists
            (demand,) = demands
            bucket = known.get(demand.key)
            if bucket is not None:
                used = leaked(bucket.used, bucket.at, now, demand.rate)
                taken = fits(used, demand)
                if taken:
                    bucket.take(demand, used, now)
                return (standing(used, demand, taken),)
        found = [known.get(demand.key) for demand in demands]
        buckets = self._with_new(demands, found, now)
        gone = [leaked(each.used, each.at, now, demand.rate) for each, demand in zip(buckets, demands, strict=True)]
        taken = all(map(fits, gone, demands))
        if taken:
            for bucket, demand, used in zip(buckets, demands, gone, strict=True):
                bucket.take(demand, used, now)
        return [standing(used, demand, taken) for used, demand in zip(gone, demands, strict=True)]

    async def aclose(self) -> None:
        """Forget everything."""
        self._buckets.clear()

    def _with_new(self, demands: Sequence[Demand], found: Sequence[Bucket | None], now: float) -> list[Bucket]:
        """The buckets that were found, and new ones in the place of the others."""
        known = [bucket for bucket in found if bucket is not None]
        if len(known) == len(found):
            return known
        refused = not all(
            fits(leaked(bucket.used, bucket.at, now, demand.rate), demand)
            for bucket, demand in zip(found, demands, strict=True)
            if bucket is not None
        )
        if refused:  # nothing will be taken, so nobody has to go for it
            return [bucket or Bucket(demand, now) for bucket, demand in zip(found, demands, strict=True)]
        spared = {demand.key for demand in demands}
        return [bucket or self._add(demand, spared, now) for bucket, demand in zip(found, demands, strict=True)]

    def _add(self, demand: Demand, spared: set[str], now: float) -> Bucket:
        buckets, key = self._buckets, demand.key
        self._sweep(spared, now)
        if len(buckets) >= self._keys and not self._make_room(spared, now):
            self.crowded += 1
            key = key.partition("|")[0] + _CROWD  # one for each quota, beside the number of keys: quotas are few
            bucket = buckets.get(key)
            if bucket is not None:
                return bucket
        bucket = buckets[key] = Bucket(demand, now)
        return bucket

    def _sweep(self, spared: set[str], now: float) -> None:
        """Forget what is full among the oldest; what is not becomes the newest."""
        buckets = self._buckets
        for _ in range(min(_LOOKS, len(buckets))):
            key, bucket = next(iter(buckets.items()))
            if key not in spared and bucket.share(now) == 0.0:
                del buckets[key]
            else:
                buckets.move_to_end(key)

    def _make_room(self, spared: set[str], now: float) -> bool:
        """Forget the least used of a few old buckets. False when each of them would refuse a request."""
        buckets = self._buckets
        least, least_share = "", 1.0
        for _ in range(min(_LOOKS_FOR_ROOM, len(buckets))):
            key, bucket = next(iter(buckets.items()))
            buckets.move_to_end(key)
            share = bucket.share(now)
            if share < least_share and bucket.burst * (1.0 - share) >= 1.0 and key not in spared:
                least, least_share = key, share
        if not least:
            return False
        del buckets[least]
        return True
