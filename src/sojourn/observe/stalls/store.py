"""The last stalls, those with the same stack together."""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Final, NamedTuple

from sojourn.observe.profiles.model import Frame, Kind, Profile, Sample

__all__ = ["KEPT", "StallInfo", "StallStore"]

#: Stalls kept.
KEPT: Final = 100
#: Frames that make the stack of a stall: the innermost.
_DEPTH: Final = 64


class StallInfo(NamedTuple):
    """Stalls that one function is to blame for, with the same stack.

    Attributes:
        cause: ``code``, ``gc``, ``native`` or ``machine``.
        function: ``module.function file:line``; "" when none was seen.
        thread: Name of the thread it ran on, when that is not the event loop's.
        known: How many.
        seconds: How long all of them were.
        longest: The longest, in seconds.
        processor: Seconds of processor time that the event loop's thread used meanwhile.
        collector: Seconds in the garbage collector.
        first_seen: When the first of them ended, in seconds since the epoch.
        last_seen: When the last did.
        stack: Innermost first.
    """

    cause: str
    function: str
    thread: str
    known: int
    seconds: float
    longest: float
    processor: float
    collector: float
    first_seen: float
    last_seen: float
    stack: tuple[Frame, ...]


_Key = tuple[str, str, tuple[Frame, ...]]


class StallStore:
    """The last hundred."""

    def __init__(self) -> None:
        self._last: deque[tuple[_Key, StallInfo]] = deque()
        #: How many there were, and how long, since the start.
        self.count = 0
        self.seconds = 0.0

    def add(self, stall: StallInfo) -> None:
        """A stall is over: ``known`` is 1, and both moments are its end."""
        stall = stall._replace(stack=stall.stack[:_DEPTH])
        self._last.append(((stall.cause, stall.thread, stall.stack), stall))
        if len(self._last) > KEPT:
            self._last.popleft()
        self.count += 1
        self.seconds += stall.seconds

    def known(self) -> list[StallInfo]:
        """Those that are kept, equal ones together; who cost most comes first."""
        groups: OrderedDict[_Key, StallInfo] = OrderedDict()
        for key, stall in self._last:
            group = groups.get(key)
            groups[key] = stall if group is None else _together(group, stall)
        return sorted(groups.values(), key=lambda stall: -stall.seconds)

    def profile(self, moment: float) -> Profile:
        """As a profile of count and time.

        Args:
            moment: Now, in seconds since the epoch.
        """
        known = self.known()
        first = min((stall.first_seen for stall in known), default=moment)
        kept = sum(stall.known for stall in known)
        return Profile(
            name="stall",
            kinds=(Kind("stalls", "count"), Kind("delay", "nanoseconds")),
            samples=[Sample(stall.stack, (stall.known, round(stall.seconds * 1e9)), _labels(stall)) for stall in known],
            moment=moment,
            seconds=moment - first,
            default=1,
            comments=[
                f"the last {kept} of {self.count} stalls, {self.seconds:.3g} s in all",
                "gathered by a thread that wakes three times a second: at most 0.1 % of the processor",
            ],
        )


def _labels(stall: StallInfo) -> tuple[tuple[str, str | int], ...]:
    return (("cause", stall.cause), ("thread", stall.thread)) if stall.thread else (("cause", stall.cause),)


def _together(group: StallInfo, stall: StallInfo) -> StallInfo:
    return group._replace(
        known=group.known + stall.known,
        seconds=group.seconds + stall.seconds,
        longest=max(group.longest, stall.longest),
        processor=group.processor + stall.processor,
        collector=group.collector + stall.collector,
        last_seen=max(group.last_seen, stall.last_seen),
    )
