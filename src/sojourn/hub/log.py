"""The log of one store: one sequence over all channels, and what is kept of each. Pure: ``now`` is an argument.

What has gone from a channel leaves a watermark there (``evicted_to``), and a channel that was dropped leaves one for
all (``forgotten_to``). Whoever resumes from before a watermark is told of a gap; so nothing is missing in silence.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Container, Sequence
from itertools import islice
from operator import attrgetter
from typing import Final

from sojourn.hub.engine import REMEMBERED, Page, Publish, Published, Wanted
from sojourn.hub.publication import Publication
from sojourn.hub.rings import Latest, Ring, Stream
from sojourn.hub.rules import History
from sojourn.wire.hub.cursor import Cursor

__all__ = ["UNUSED", "Log"]

#: Seconds after which a channel that nobody uses, and of which nothing is kept, is dropped.
UNUSED: Final = 3600.0
#: Channels that one sweep looks at.
_STEP: Final = 1000
_SEQ: Final = attrgetter("seq")


class Log:
    """Publications in their order, and the last of them by channel.

    Args:
        epoch: Names this life of the store; no other has the same.
        channels: Channels at most; then the one that was used least recently is dropped.
        size: Bytes that are kept at most, about; then each channel in turn loses its oldest publication.
        ids: Ids at most that are remembered; then the oldest are dropped before their time.

    Attributes:
        epoch: As given.
        seq: Number of the last publication; 0 before the first.
        cost: Bytes that are kept, about.
        forgotten_to: Number up to which a channel that is not known may have had publications.

    Example:
        >>> from sojourn.hub.publication import Kind
        >>> log, kept = Log("k3f9"), History(size=2)
        >>> for text in (b"a", b"b", b"c"):
        ...     _ = log.publish(Publish("chat:1", Kind.TEXT, text, kept), now=0.0)
        >>> page = log.page([Wanted("chat:1", Cursor("k3f9", 0), kept)], 10, now=1.0)
        >>> [publication.data for publication in page.publications], page.lost
        ([b'b', b'c'], {'chat:1': 1})
    """

    def __init__(
        self, epoch: str, *, channels: int = 100_000, size: int = 256 * 1024 * 1024, ids: int = 250_000
    ) -> None:
        self.epoch = epoch
        self.seq = 0
        self.cost = 0
        self.forgotten_to = 0
        self._most_channels, self._most_cost, self._most_ids = channels, size, ids
        #: All channels that are known, the least recently used first.
        self._rings: OrderedDict[str, Ring] = OrderedDict()
        #: Those of which something is kept, in the order of their turns.
        self._kept: OrderedDict[str, Ring] = OrderedDict()
        #: Number and moment by channel and id, the oldest first.
        self._ids: OrderedDict[tuple[str, str], tuple[int, float]] = OrderedDict()

    @property
    def position(self) -> Cursor:
        """The present place."""
        return Cursor(self.epoch, self.seq)

    def __len__(self) -> int:
        return len(self._rings)

    def publish(self, publish: Publish, now: float) -> Publication | Published:
        """Give a publication its number, and keep it as its rule says.

        Args:
            publish: What. An id counts within its channel.
            now: The present moment.

        Returns:
            The publication; or, when its id was published before, what became of it then.
        """
        channel, kind, data, history, key, name = publish
        if name:
            self._forget_ids(now)
            known = self._ids.get((channel, name))
            if known is not None:
                return Published(Cursor(self.epoch, known[0]), True)
        ring = self._rings.get(channel)
        if ring is None or ring.mode != history.mode:
            ring = self._make(channel, history)
        else:
            self._rings.move_to_end(channel)
        self.seq = seq = self.seq + 1
        publication = Publication(channel, self.epoch, seq, ring.last, kind, data, key)
        before = ring.cost
        ring.add(publication, now, history)
        self._settle(channel, ring, before)
        if name:
            self._ids[channel, name] = (seq, now)
        if self.cost > self._most_cost:
            self._shrink()
        return publication

    def page(self, wanted: Sequence[Wanted], limit: int, now: float) -> Page:
        """What is kept of some channels, each after its place.

        Args:
            wanted: Which, from where on; the rule counts for a channel that is not known.
            limit: Publications at most; at least one is given when there is one.
            now: The present moment.
        """
        limit = max(limit, 1)
        found: list[Publication] = []
        bound: int | None = None  # nothing behind it can be among the first
        lost: dict[str, int] = {}
        for channel, since, history in wanted:
            known = since is not None and since.epoch == self.epoch and since.seq <= self.seq
            start = since.seq if since is not None and known else 0
            ring = self._rings.get(channel)
            if ring is None:
                empty, latest, evicted_to = True, history.mode == "latest", self.forgotten_to
            else:
                self._rings.move_to_end(channel)
                ring.used = now
                self._expire(channel, ring, now)
                empty, latest, evicted_to = not len(ring), ring.mode == "latest", ring.evicted_to
                some = list(islice(ring.after(start), limit + 1))
                if bound is not None:
                    del some[bisect_right(some, bound, key=_SEQ) :]
                found += some
                if len(found) > 2 * limit:
                    found.sort(key=_SEQ)
                    del found[limit + 1 :]
                    bound = found[-1].seq
            if since is None:
                continue
            # Of another life, or ahead of this one: what came after it is not known.
            missing = not latest and evicted_to > start if known else not latest or empty
            if missing:
                lost[channel] = evicted_to
        found.sort(key=_SEQ)
        more = len(found) > limit
        del found[limit:]
        return Page(found, found[-1].cursor if more else self.position, lost, more)

    def sweep(self, now: float, used: Container[str] = ()) -> None:
        """Let go what nobody asks for: call it about once a second.

        Args:
            now: The present moment.
            used: Channels that are in use, so that they are not dropped.
        """
        self._forget_ids(now)
        for _ in range(min(_STEP, len(self._kept))):
            channel, ring = next(iter(self._kept.items()))
            self._kept.move_to_end(channel)
            self._expire(channel, ring, now)
        for _ in range(min(_STEP, len(self._rings))):
            channel, ring = next(iter(self._rings.items()))
            if ring.used + UNUSED > now:
                break
            self._expire(channel, ring, now)
            if len(ring) or channel in used:
                ring.used = now
                self._rings.move_to_end(channel)
            else:
                self._drop(channel)

    def _make(self, channel: str, history: History) -> Ring:
        before = self._rings.pop(channel, None)
        ring: Ring = (Latest if history.mode == "latest" else Stream)(self.forgotten_to)
        if before is not None:  # its rule has changed: what was kept by the other one is gone
            ring.last = ring.evicted_to = before.last
            self.cost -= before.cost
            self._kept.pop(channel, None)
        elif len(self._rings) >= self._most_channels:
            self._drop(next(iter(self._rings)))
            ring.evicted_to = self.forgotten_to
        self._rings[channel] = ring
        return ring

    def _drop(self, channel: str) -> None:
        ring = self._rings.pop(channel)
        self._kept.pop(channel, None)
        self.cost -= ring.cost
        self.forgotten_to = max(self.forgotten_to, ring.last)

    def _expire(self, channel: str, ring: Ring, now: float) -> None:
        before = ring.cost
        ring.expire(now)
        self._settle(channel, ring, before)

    def _settle(self, channel: str, ring: Ring, before: int) -> None:
        """Count what a ring has gained or lost."""
        after = ring.cost
        self.cost += after - before
        if not before:
            if after:
                self._kept[channel] = ring
        elif not after:
            del self._kept[channel]

    def _shrink(self) -> None:
        """Come below the bound: each channel in turn loses its oldest."""
        while self.cost > self._most_cost and self._kept:
            channel, ring = next(iter(self._kept.items()))
            self._kept.move_to_end(channel)
            before = ring.cost
            ring.evict()
            self._settle(channel, ring, before)

    def _forget_ids(self, now: float) -> None:
        ids = self._ids
        while ids:
            _, at = next(iter(ids.values()))
            if at + REMEMBERED > now and len(ids) < self._most_ids:
                return
            ids.popitem(last=False)
