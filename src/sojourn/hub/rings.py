"""What is kept of one channel: the last publications, or the latest of each key."""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections import OrderedDict, deque
from collections.abc import Iterator
from itertools import islice
from operator import attrgetter
from typing import Final, Literal

from sojourn.hub.publication import Publication
from sojourn.hub.rules import History

__all__ = ["Latest", "Ring", "Stream", "cost_of"]

#: Bytes that a publication takes beside its payload: the object, its place in the ring, and what it is looked up by.
_OVERHEAD: Final = 512
_SEQ: Final = attrgetter("seq")


def cost_of(publication: Publication) -> int:
    """Bytes that it takes while it is kept, about."""
    return len(publication.data) + len(publication.key) + _OVERHEAD


class Ring(ABC):
    """A channel, and what is kept of it.

    Args:
        forgotten_to: Number up to which the channel may have had publications that nobody remembers.

    Attributes:
        last: Number of its last publication; 0 when none is known.
        evicted_to: Number of the last of its publications that is not kept any more, or may have been one.
        used: When it was published to or read last.
        ttl: Seconds for which each publication is kept.
        cost: Bytes that it takes, about.
    """

    __slots__ = ("cost", "evicted_to", "last", "ttl", "used")

    mode: Literal["stream", "latest"]

    def __init__(self, forgotten_to: int) -> None:
        self.last = 0
        self.evicted_to = forgotten_to
        self.used = 0.0
        self.ttl = 0.0
        self.cost = 0

    @abstractmethod
    def add(self, publication: Publication, now: float, history: History) -> None:
        """Keep a publication, and no more than the rule says."""

    @abstractmethod
    def expire(self, now: float) -> None:
        """Let go what is older than its time."""

    @abstractmethod
    def evict(self) -> None:
        """Let the oldest go."""

    @abstractmethod
    def after(self, since: int) -> Iterator[Publication]:
        """The publications behind a number, in order; to be read before anything changes."""

    @abstractmethod
    def __len__(self) -> int: ...


class Stream(Ring):
    """The last publications, in order."""

    __slots__ = ("_kept", "_times")

    mode = "stream"

    def __init__(self, forgotten_to: int) -> None:
        super().__init__(forgotten_to)
        self._kept: deque[Publication] = deque()
        #: When each of them came.
        self._times: deque[float] = deque()

    def add(self, publication: Publication, now: float, history: History) -> None:
        self.last, self.used, self.ttl = publication.seq, now, history.ttl
        size = history.size
        if size == 0 and not self._kept:
            self.evicted_to = publication.seq
            return
        self._kept.append(publication)
        self._times.append(now)
        self.cost += cost_of(publication)
        while len(self._kept) > size:
            self.evict()
        self.expire(now)

    def expire(self, now: float) -> None:
        ttl, times = self.ttl, self._times
        while times and times[0] + ttl <= now:
            self.evict()

    def evict(self) -> None:
        publication = self._kept.popleft()
        self._times.popleft()
        self.evicted_to = publication.seq
        self.cost -= cost_of(publication)

    def after(self, since: int) -> Iterator[Publication]:
        kept = self._kept
        return islice(kept, bisect_right(kept, since, key=_SEQ) if since else 0, None)

    def __len__(self) -> int:
        return len(self._kept)


class Latest(Ring):
    """The latest publication of each key, in the order of their numbers."""

    __slots__ = ("_kept",)

    mode = "latest"

    def __init__(self, forgotten_to: int) -> None:
        super().__init__(forgotten_to)
        self._kept: OrderedDict[str, tuple[Publication, float]] = OrderedDict()

    def add(self, publication: Publication, now: float, history: History) -> None:
        self.last, self.used, self.ttl = publication.seq, now, history.ttl
        before = self._kept.pop(publication.key, None)
        if before is not None:
            self._let_go(before[0])
        self._kept[publication.key] = (publication, now)
        self.cost += cost_of(publication)
        while len(self._kept) > history.size:
            self.evict()
        self.expire(now)

    def expire(self, now: float) -> None:
        kept = self._kept
        while kept and next(iter(kept.values()))[1] + self.ttl <= now:
            self.evict()

    def evict(self) -> None:
        self._let_go(self._kept.popitem(last=False)[1][0])

    def _let_go(self, publication: Publication) -> None:
        self.evicted_to = max(self.evicted_to, publication.seq)
        self.cost -= cost_of(publication)

    def after(self, since: int) -> Iterator[Publication]:
        return (publication for publication, _ in self._kept.values() if publication.seq > since)

    def __len__(self) -> int:
        return len(self._kept)
