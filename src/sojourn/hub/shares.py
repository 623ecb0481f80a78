"""What stands in a member's queue, and the share that one rule has of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from operator import attrgetter
from typing import Any, Final, NamedTuple

from sojourn.hub.publication import Publication
from sojourn.hub.rules import Outbox
from sojourn.wire.hub.cursor import Cursor

__all__ = ["Entry", "Gap", "Line", "Share"]

#: Entries that have gone from the middle of a line before it is closed up.
_FEW: Final = 32
_ITEM: Final = attrgetter("item")
_SHARE: Final = attrgetter("share")


class Gap(NamedTuple):
    """Something of a channel is missing before its next publication.

    Attributes:
        channel: Which; "" for messages to one user or connection.
        cursor: Nothing of the channel up to here is still to come. Its ``seq`` is 0 when what is missing had no number.
    """

    channel: str
    cursor: Cursor


class Entry:
    """One place in a queue.

    Attributes:
        item: What stands there; None: it has gone, and its place is not closed up yet.
        share: Whose bounds it counts against; None for a notice, and for what has gone.
        size: Bytes.
        at: Since when, in seconds.
        key: Channel and key, in shares that keep the latest.
        number: Which of all that ever stood in its queue, from 1.
        before: The one before it in its channel.
        after: The one after it in its channel.
    """

    __slots__ = ("after", "at", "before", "item", "key", "number", "share", "size")

    def __init__(self, item: Publication | Gap, share: Share | None, size: int, at: float) -> None:
        self.item: Publication | Gap | None = item
        self.share = share
        self.size = size
        self.at = at
        self.key: tuple[str, bytes] | None = None
        self.number = 0
        self.before: Entry | None = None
        self.after: Entry | None = None


class Line:
    """Entries in order, some of which go out of turn. All that is done with it takes constant time on average.

    Args:
        stands: What is not None of an entry that still stands in the line.
    """

    __slots__ = ("_entries", "_gone", "_stands")

    def __init__(self, stands: Callable[[Entry], Any] = _ITEM) -> None:
        self._stands = stands
        self._entries: deque[Entry] = deque()
        self._gone = 0

    def append(self, entry: Entry) -> None:
        """It is the last now."""
        self._entries.append(entry)

    def first(self) -> Entry | None:
        """The first that still stands; None when there is none."""
        entries, stands = self._entries, self._stands
        while entries:
            entry = entries[0]
            if stands(entry) is not None:
                return entry
            entries.popleft()
            self._gone -= 1
        return None

    def went(self) -> None:
        """One that stood in the line does so no more."""
        self._gone += 1
        if self._gone > _FEW and self._gone * 2 > len(self._entries):
            self._entries = deque(filter(self._stands, self._entries))
            self._gone = 0

    def clear(self) -> None:
        """Nothing stands in it, and what stood there holds on to nothing."""
        for entry in self._entries:
            entry.before = entry.after = entry.share = entry.item = None
        self._entries.clear()
        self._gone = 0

    def __len__(self) -> int:
        return len(self._entries) - self._gone


class Share:
    """The part of a queue that one rule bounds.

    Args:
        rule: The rule.

    Attributes:
        line: Its publications, in order.
        bytes: Bytes of them.
        count: How many they are.
        latest: They by channel and key, in a share that keeps the latest; else None.
        slow: Whether it has passed the high watermark, and not fallen below the low one since.
        most: Bytes that it may have in any case.
    """

    __slots__ = ("bytes", "count", "latest", "line", "most", "rule", "slow")

    def __init__(self, rule: Outbox) -> None:
        self.rule = rule
        self.line = Line(_SHARE)
        self.bytes = 0
        self.count = 0
        self.latest: dict[tuple[str, bytes], Entry] | None = {} if rule.on_full == "latest" else None
        self.slow = False
        self.most = rule.max_bytes * 2 if rule.on_full == "block" else rule.max_bytes

    @property
    def lossy(self) -> bool:
        """Whether something may be dropped."""
        return self.rule.on_full in ("latest", "drop_oldest", "drop_newest")

    def fits(self, size: int, times: int = 1) -> bool:
        """Whether another one of this size stays within the bounds, or so many times the bounds."""
        rule = self.rule
        return self.bytes + size <= rule.max_bytes * times and self.count < rule.max_messages * times

    def add(self, entry: Entry) -> None:
        """Take an entry in, behind all others."""
        self.line.append(entry)
        self.bytes += entry.size
        self.count += 1
        if self.latest is not None and entry.key is not None:
            self.latest[entry.key] = entry
        rule = self.rule
        if not self.slow:
            self.slow = self.bytes > rule.high * rule.max_bytes or self.count > rule.high * rule.max_messages

    def release(self, entry: Entry) -> None:
        """An entry counts no more."""
        entry.share = None
        self.line.went()
        self.line.first()  # lets go of what has gone in turn
        self.bytes -= entry.size
        self.count -= 1
        if self.latest is not None and entry.key is not None:
            del self.latest[entry.key]
        rule = self.rule
        if self.slow:
            self.slow = self.bytes > rule.low * rule.max_bytes or self.count > rule.low * rule.max_messages

    def aged(self, now: float) -> bool:
        """Whether the oldest has waited too long. One that is about to makes the share slow."""
        first = self.line.first()
        if first is None:
            return False
        if first.at + self.rule.high * self.rule.max_age < now:
            self.slow = True
        return first.at + self.rule.max_age <= now
