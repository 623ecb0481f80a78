"""Reading what is kept of a channel to its end, whatever happens to the store meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Final, NamedTuple

from sojourn.hub.engine import Engine
from sojourn.hub.publication import Publication
from sojourn.hub.topic import Lost, Topic
from sojourn.wire.hub.cursor import Cursor

__all__ = ["PAGE", "Read", "read_history", "with_live"]

#: Publications that are read from history at a time.
PAGE: Final = 500


class Read(NamedTuple):
    """What was read of one channel.

    Attributes:
        publications: In order.
        position: The engine's place at the end: all of the channel up to it is here, or missing.
        gap: Whether something is missing.
    """

    publications: list[Publication]
    position: Cursor
    gap: bool

    @property
    def start(self) -> int:
        """With a gap: number of the last that is missing before the first of these; the position without any."""
        return self.publications[0].prev if self.publications else self.position.seq


async def read_history(engine: Engine, topic: Topic, since: Cursor | None) -> Read:
    """Read the history of a channel after a place.

    Args:
        engine: Where it is.
        topic: The channel.
        since: The place; None for all that is kept.

    Raises:
        EngineUnavailable: It can't be read.

    Cancel: safe.
    """
    publications: list[Publication] = []
    gap = False
    while True:
        page = await engine.history(topic.channel, since, PAGE, topic.rule.history)
        if publications and publications[0].epoch != page.position.epoch:
            publications = []  # the store has forgotten meanwhile, and the page says so
        publications.extend(page.publications)
        gap = gap or page.gap
        since = page.position
        if not page.more:
            return Read(publications, since, gap)


def with_live(found: Read, since: Cursor | None, came: Sequence[Publication | Lost]) -> Read:
    """What has gone from history while that was read is not missing when it came live.

    Args:
        found: What was read, with a gap.
        since: The place after which it was read.
        came: What came live of the channel, in order; all of it up to the place to which it is given.
    """
    if since is None or since.epoch != found.position.epoch:
        return found
    last, live = since.seq, []
    for each in came:
        if not isinstance(each, Publication) or each.epoch != since.epoch or each.prev > last:
            return found  # something is missing here as well
        if each.seq > last:
            live.append(each)
            last = each.seq
    if not live or (found.publications and found.start > last):
        return found
    behind = found.publications[0].seq if found.publications else inf
    return found._replace(publications=[*(each for each in live if each.seq < behind), *found.publications], gap=False)
