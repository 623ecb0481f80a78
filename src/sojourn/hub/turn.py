"""What one turn of the event loop has published, written to everybody at its end: one write per member and turn."""

from __future__ import annotations

import asyncio
from contextvars import Context
from operator import attrgetter
from typing import TYPE_CHECKING, Final

from sojourn.hub.publication import Publication
from sojourn.hub.topic import Topic

if TYPE_CHECKING:
    from sojourn.hub.direct import DirectMember
    from sojourn.hub.forms import Form
    from sojourn.hub.pulled import PulledMember

__all__ = ["Turn"]

#: A turn in which so much is published is written in pieces: what is joined for everybody must not grow without bound.
_MOST: Final = 256
_MOST_BYTES: Final = 64 * 1024
_BY_SEQ: Final = attrgetter("seq")


class Turn:
    """Gathers publications until the loop's present turn is over.

    Args:
        loop: The hub's loop.
        context: In which it writes: not that of whoever publishes first, whose deadline would be everybody's.
    """

    __slots__ = ("_bytes", "_context", "_count", "_loop", "_topics")

    def __init__(self, loop: asyncio.AbstractEventLoop, context: Context) -> None:
        self._loop = loop
        self._context = context
        self._topics: list[Topic] = []
        self._count = self._bytes = 0

    def add(self, topic: Topic, publication: Publication) -> None:
        """Something was published."""
        if topic.late:
            self._let_in(topic, publication)
        if not topic.batch:
            if not self._topics:
                self._loop.call_soon(self.flush, context=self._context)
            self._topics.append(topic)
        topic.batch.append(publication)
        self._count += 1
        self._bytes += len(publication.data)
        if self._count >= _MOST or self._bytes >= _MOST_BYTES:
            self.flush()

    def _let_in(self, topic: Topic, publication: Publication) -> None:
        for member, late in list(topic.late.items()):
            if not publication.seq or late.misses(publication.cursor):
                self.flush()  # what came before this one is not for it
                del topic.late[member]
                member.enter(topic)

    def flush(self) -> None:
        """Write what was gathered. Whoever changes who is in a topic does this first: each gets what is its own."""
        topics, self._topics = self._topics, []
        self._count = self._bytes = 0
        if not topics:
            return
        batches = []
        for topic in topics:
            batches.append(topic.batch)
            for missed in topic.catching.values():
                missed.extend(topic.batch)
            topic.batch = []
        if len(topics) == 1:
            _write_one(topics[0], batches[0])
        else:
            _write_several(topics, batches)


def _write_one(topic: Topic, batch: list[Publication]) -> None:
    for form, group in list(topic.groups.items()):
        data, first = _encoded(form, batch), next(iter(group))
        behind = group.write(data, len(batch), first.connection.runtime.ticker.now)
        stats = first.node.stats
        stats.deliveries += len(batch) * (len(group) - len(behind))
        stats.bytes_out += len(data) * (len(group) - len(behind))
        for member in behind:
            member.deliver(batch)
    for each in list(topic.pulled):
        each.deliver(batch)


def _write_several(topics: list[Topic], batches: list[list[Publication]]) -> None:
    """Members are in several of the topics, and each gets all in the order of their numbers, in one write."""
    direct: dict[DirectMember, int] = {}
    pulled: dict[PulledMember, int] = {}
    for number, topic in enumerate(topics):
        bit = 1 << number
        for group in topic.groups.values():
            for member in group:
                direct[member] = direct.get(member, 0) | bit
        for other in topic.pulled:
            pulled[other] = pulled.get(other, 0) | bit
    merged: dict[int, list[Publication]] = {}
    alike: dict[tuple[int, Form], list[DirectMember]] = {}
    for member, mask in direct.items():
        alike.setdefault((mask, member.form), []).append(member)
    for (mask, form), members in alike.items():
        _write(members, form, _merged(mask, batches, merged))
    for each, mask in pulled.items():
        each.deliver(_merged(mask, batches, merged))


def _merged(mask: int, batches: list[list[Publication]], known: dict[int, list[Publication]]) -> list[Publication]:
    found = known.get(mask)
    if found is None:
        found = [publication for number, batch in enumerate(batches) if mask >> number & 1 for publication in batch]
        found.sort(key=_BY_SEQ)
        known[mask] = found
    return found


def _write(members: list[DirectMember], form: Form, batch: list[Publication]) -> None:
    """Write to members that were picked by the topics they are in."""
    data = _encoded(form, batch)
    size, count, written = len(data), len(batch), 0
    now = members[0].connection.runtime.ticker.now
    for member in members:
        if member.behind:
            member.deliver(batch)
            continue
        written += 1
        member.got(count, size, now)
        member.write(data)
    stats = members[0].node.stats
    stats.deliveries += count * written
    stats.bytes_out += size * written


def _encoded(form: Form, batch: list[Publication]) -> bytes:
    return form.of(batch[0]) if len(batch) == 1 else b"".join([form.of(publication) for publication in batch])
