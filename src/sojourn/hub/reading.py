"""Reading what is kept of channels to its end, all of them as of one moment, and what of it is missing after all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from sojourn.hub.engine import Engine, Wanted
from sojourn.hub.publication import Publication
from sojourn.hub.topic import Lost, Topic
from sojourn.wire.hub.cursor import Cursor

__all__ = ["PAGE", "Read", "read_history", "settled"]

#: Publications that are read from history at a time, over all channels.
PAGE: Final = 1000


class Read(NamedTuple):
    """What was read of one channel.

    Attributes:
        publications: In order.
        lost: Number of the last publication that is missing, which is before the first of these; None: nothing is.
    """

    publications: list[Publication]
    lost: int | None = None

    @property
    def gap(self) -> bool:
        """Whether something is missing."""
        return self.lost is not None


async def read_history(engine: Engine, wanted: Mapping[Topic, Cursor | None]) -> tuple[Cursor, dict[Topic, Read]]:
    """Read the history of some channels.

    Args:
        engine: Where it is.
        wanted: Each with the place after which it is read; None for all that is kept.

    Returns:
        The engine's place at the end, and what was found: all of these channels up to that place, or it is missing.

    Raises:
        EngineUnavailable: It can't be read.

    Cancel: safe.
    """
    topics = {topic.channel: topic for topic in wanted}
    while True:
        epoch = ""
        places = {topic.channel: since for topic, since in wanted.items()}
        found = {topic: Read([]) for topic in wanted}
        while True:
            asked = [Wanted(topic.channel, places[topic.channel], topic.rule.history) for topic in wanted]
            page = await engine.history(asked, PAGE)
            if epoch and epoch != page.position.epoch:
                break  # the store has forgotten meanwhile: all anew
            epoch = page.position.epoch
            for publication in page.publications:
                found[topics[publication.channel]].publications.append(publication)
                places[publication.channel] = page.position
            for channel, last in page.lost.items():
                topic = topics[channel]
                found[topic] = found[topic]._replace(lost=max(last, found[topic].lost or 0))
            if not page.more:
                return page.position, {topic: _behind_the_gap(each) for topic, each in found.items()}
            for channel, since in places.items():
                if since is None or since.epoch != epoch or since.seq < page.position.seq:
                    places[channel] = page.position


def settled(read: Read, since: Cursor, live: Iterable[Publication | Lost], cut: Cursor, *, flows: bool = False) -> Read:
    """What has gone from history is not missing when it has come live. What is missing then, and what is there?

    Everything of the channel up to the place to which it was read is in history, or evicted; and each publication names
    the one before it. So whatever is missing is seen, and nothing else is.

    Args:
        read: What was read, with something lost.
        since: The place after which it was read, in the same life of the store as the cut.
        live: What has come live of the channel, in order.
        cut: The place up to which everything is to be given; what is behind it comes live.
        flows: Whether all that comes behind the cut, and behind the first that has come, does come live.
    """
    came: dict[int, Publication] = {}
    after: Publication | None = None
    for item in live:
        if isinstance(item, Publication) and item.epoch == cut.epoch and item.seq > since.seq:
            if item.seq <= cut.seq:
                came[item.seq] = item
            elif after is None:
                after = item
    came.update((item.seq, item) for item in read.publications if item.seq <= cut.seq)
    here = [came[seq] for seq in sorted(came)]
    last, lost = since.seq, None
    for each in here:
        if each.prev > last:
            lost = each.prev
        last = each.seq
    evicted = read.lost or 0
    if last < evicted <= cut.seq:
        lost = evicted
    elif evicted > cut.seq:  # it is behind the cut: is anything before it missing as well?
        if after is not None:
            lost = after.prev if after.prev > last else lost
        elif not flows:
            lost = evicted
    return _behind_the_gap(Read(here, lost))


def _behind_the_gap(read: Read) -> Read:
    lost, publications = read.lost, read.publications
    if not lost or not publications or publications[0].seq > lost:
        return read
    return Read([each for each in publications if each.seq > lost], lost)
