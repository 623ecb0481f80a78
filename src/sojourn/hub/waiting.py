"""What waits for one member that is behind: in order, within bounds, and never a loss that is not told.

Everything stands in one line, in the order in which it came, and each rule has its share of it with bounds of its own.
What is dropped leaves a notice in its place, which names the first that is missing: everything before it was sent, and
nothing behind it has a lower number, so a client that is cut off right after the notice resumes from it without a hole.
Two notices never stand side by side in a channel, so there is at most one more of them than there are publications.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from sojourn.clock import NEVER
from sojourn.hub.keys import key_of
from sojourn.hub.publication import Publication
from sojourn.hub.rules import Outbox
from sojourn.hub.shares import Entry, Gap, Line, Share
from sojourn.wire.hub.cursor import Cursor

__all__ = ["Gap", "Verdict", "Waiting"]


class Verdict(Enum):
    """What became of a publication that was to wait."""

    #: It waits.
    KEPT = "kept"
    #: It or others were dropped, and a notice stands where something is missing.
    DROPPED = "dropped"
    #: Too much waits, or for too long: close the member. It was not kept.
    CLOSE = "close"
    #: It waits, above the bounds of its rule: let publishers wait until :meth:`Waiting.full` is False.
    BLOCK = "block"


# To name a member of an Enum costs a call on Python 3.11, a global does not.
_KEPT: Final = Verdict.KEPT
_DROPPED: Final = Verdict.DROPPED
_CLOSE: Final = Verdict.CLOSE
_BLOCK: Final = Verdict.BLOCK


class Waiting:
    """The queue of one member.

    What a rule bounds is its share: the publications of the channels that have it. With ``block`` twice as much may
    wait, for what is on its way while publishers are told to wait.

    Args:
        total: Bytes of all shares together; None: those of the largest share there has been.

    Attributes:
        bytes: Bytes that wait.
        count: Things that wait: publications, and notices of gaps.
        dropped: Publications that were dropped, up to now.
        conflated: Publications whose place was taken by a later one of the same key, up to now.
        mark: Stands for all that waits now, and has waited before; for :meth:`passed`.
    """

    __slots__ = ("_last", "_line", "_shares", "_total", "bytes", "conflated", "count", "dropped", "mark")

    def __init__(self, total: int | None = None) -> None:
        self._total = total
        self._line = Line()
        self._shares: dict[int, Share] = {}
        #: The last that stands in the line, by channel.
        self._last: dict[str, Entry] = {}
        self.bytes = 0
        self.count = 0
        self.dropped = 0
        self.conflated = 0
        self.mark = 0

    def push(self, publication: Publication, rule: Outbox, size: int, now: float) -> Verdict:
        """Let a publication wait.

        Args:
            publication: Which.
            rule: The rule of its channel; the same object for all that are to share its bounds.
            size: Bytes, as it is sent.
            now: Present moment, in seconds; never before an earlier one.
        """
        share = self._shares.get(id(rule))
        if share is None:
            share = self._shares[id(rule)] = Share(rule)
        verdict = _KEPT
        key = None
        if share.latest is not None and size <= rule.max_bytes:
            key = (publication.channel, key_of(publication, rule.key))
            older = share.latest.get(key)
            if older is not None:
                self._release(older)
                self._vanish(older)
                self.conflated += 1
        if not share.fits(size):
            verdict = self._full(share, size)
            if verdict is _DROPPED and not share.fits(size):
                self.dropped += 1
                self.tell_gap(publication.channel, publication.cursor)
                return verdict
        most = self._total
        if most is None:
            most = max(other.most for other in self._shares.values())
        if verdict is _CLOSE or self.bytes + size > most:
            return _CLOSE
        entry = Entry(publication, share, size, now)
        entry.key = key
        share.add(entry)
        self.bytes += size
        self._append(entry, publication.channel)
        return verdict

    def tell_gap(self, channel: str, cursor: Cursor) -> None:
        """Something of a channel is missing here, up to a place. One notice is enough until more of it comes."""
        last = self._last.get(channel)
        if last is None or last.share is not None:
            self._append(Entry(Gap(channel, cursor), None, 0, 0.0), channel)

    def take(self, room: int) -> list[Publication | Gap]:
        """Take what comes first.

        Args:
            room: Bytes at most; what is first is taken in any case.
        """
        taken: list[Publication | Gap] = []
        line = self._line
        while (entry := line.first()) is not None:
            if taken and entry.size > room:
                break
            room -= entry.size
            item = entry.item
            assert item is not None  # it stands in the line
            taken.append(item)
            if entry.share is not None:
                self._release(entry)
            self._vanish(entry)
        return taken

    def expire(self, now: float) -> Verdict:
        """Look whether something has waited too long.

        Returns:
            ``KEPT`` if not, ``DROPPED`` if that was all right and is told, ``CLOSE`` if the member must be closed.
        """
        verdict = _KEPT
        for share in self._shares.values():
            while share.aged(now):
                if not share.lossy:
                    return _CLOSE
                self._drop_oldest(share)
                verdict = _DROPPED
        return verdict

    def forget(self, channel: str) -> None:
        """The member has left a channel: nothing of it waits any more, and nothing of it is missed."""
        entry = self._last.pop(channel, None)
        while entry is not None:
            before = entry.before
            if entry.share is not None:
                self._release(entry)
            entry.item = entry.before = entry.after = None
            self._line.went()
            self.count -= 1
            entry = before

    def clear(self) -> None:
        """Nothing waits any more; makes no garbage that has to be looked for."""
        self._line.clear()
        self._shares.clear()
        self._last.clear()
        self.bytes = self.count = 0

    def passed(self, mark: int) -> bool:
        """Whether all that had waited up to a mark was taken, dropped or forgotten, and its notices were taken."""
        first = self._line.first()
        return first is None or first.number > mark

    def full(self, rule: Outbox) -> bool:
        """Whether the share of a rule has reached its bounds."""
        share = self._shares.get(id(rule))
        return share is not None and not share.fits(1)

    @property
    def slow(self) -> bool:
        """Whether a share has passed its high watermark, and not fallen below the low one since."""
        return any(share.slow for share in self._shares.values())

    @property
    def oldest(self) -> float:
        """Since when the oldest publication waits, in seconds; NEVER when none does."""
        return min((first.at for share in self._shares.values() if (first := share.line.first())), default=NEVER)

    @property
    def next_expiry(self) -> float:
        """When ``expire`` has something to do, in seconds; NEVER when nothing waits."""
        return min(
            (first.at + share.rule.max_age for share in self._shares.values() if (first := share.line.first())),
            default=NEVER,
        )

    # In the line

    def _full(self, share: Share, size: int) -> Verdict:
        """A publication does not fit. Make room, if the rule says so."""
        on_full = share.rule.on_full
        if on_full == "disconnect":
            return _CLOSE
        if on_full == "block":
            return _BLOCK if share.fits(size, 2) else _CLOSE
        if on_full != "drop_newest" and size <= share.rule.max_bytes:
            while not share.fits(size):
                self._drop_oldest(share)
        return _DROPPED

    def _drop_oldest(self, share: Share) -> None:
        """Drop the oldest of a share; a notice stands in its place, unless one stands beside it."""
        entry = share.line.first()
        assert entry is not None  # otherwise anything would fit
        assert isinstance(entry.item, Publication)
        publication = entry.item
        self.dropped += 1
        self._release(entry)
        if _is_notice(entry.before):
            self._vanish(entry)
            return
        entry.item = Gap(publication.channel, publication.cursor)
        entry.size = 0
        if entry.after is not None and _is_notice(entry.after):
            self._vanish(entry.after)

    def _append(self, entry: Entry, channel: str) -> None:
        last = self._last.get(channel)
        if last is not None:
            last.after = entry
            entry.before = last
        self._last[channel] = entry
        self._line.append(entry)
        self.mark = entry.number = self.mark + 1
        self.count += 1

    def _release(self, entry: Entry) -> None:
        assert entry.share is not None
        entry.share.release(entry)
        self.bytes -= entry.size

    def _vanish(self, entry: Entry) -> None:
        """Take something out of the line. Of two notices that meet in its place the earlier one stays."""
        assert entry.item is not None
        channel = entry.item.channel
        before, after = entry.before, entry.after
        entry.item = entry.before = entry.after = None
        self._line.went()
        self.count -= 1
        if before is not None:
            before.after = after
        if after is not None:
            after.before = before
        elif before is not None:
            self._last[channel] = before
        else:
            del self._last[channel]
        if _is_notice(before) and after is not None and _is_notice(after):
            self._vanish(after)


def _is_notice(entry: Entry | None) -> bool:
    return entry is not None and entry.share is None
