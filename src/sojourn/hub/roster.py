"""Who is present, by channel and node. Pure: ``now`` is an argument.

Members that nobody refreshes are let go. A process that stood still could not be told that they are there, so that
time does not count: a frozen loop must not look like thousands of members that are gone.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from itertools import islice

from sojourn.hub.engine import Present

__all__ = ["Roster"]


class _Entry:
    """One member in one channel.

    Attributes:
        until: When it is gone, unless it is refreshed.
        due: When it is looked at: the one place in the heap that counts.
    """

    __slots__ = ("channel", "due", "gone", "node", "present", "until")

    def __init__(self, channel: str, node: str, present: Present, until: float) -> None:
        self.channel = channel
        self.node = node
        self.present = present
        self.until = self.due = until
        self.gone = False

    def __lt__(self, other: _Entry) -> bool:
        return id(self) < id(other)  # equal moments in the heap: any order will do


class _Room:
    """The members of one channel."""

    __slots__ = ("members", "users")

    def __init__(self) -> None:
        self.members: dict[str, _Entry] = {}
        #: How often each user is there.
        self.users: dict[str, int] = {}

    def count(self, user: str, step: int) -> None:
        if user:
            times = self.users.get(user, 0) + step
            if times:
                self.users[user] = times
            else:
                del self.users[user]


class Roster:
    """The members of all nodes.

    Args:
        most: Members at most, each counted once in each of its channels; who comes then is not shown.
        step: Seconds that may pass between two calls; what is beyond was a standstill, and does not count.

    Attributes:
        refused: How many were not shown.

    Example:
        >>> roster = Roster()
        >>> came = roster.enter("node-1", "chat:1", [Present("m1", "ada"), Present("m2", "ada")], ttl=60, now=0.0)
        >>> [present.member for present in came]
        ['m1', 'm2']
        >>> roster.count("chat:1")
        (2, 1)
        >>> roster.gone("node-1")
        {'chat:1': ['m1', 'm2']}
    """

    def __init__(self, most: int = 1_000_000, step: float = 2.0) -> None:
        self.refused = 0
        self._most = most
        self._rooms: dict[str, _Room] = {}
        self._nodes: dict[str, dict[tuple[str, str], _Entry]] = {}
        #: By the moment at which to look at each: it may have been refreshed since, or be gone.
        self._due: list[tuple[float, _Entry]] = []
        self._total = 0
        self._step = step
        #: The time that counts, and when it was read last.
        self._served = 0.0
        self._read: float | None = None

    def __len__(self) -> int:
        return self._total

    def enter(self, node: str, channel: str, members: Sequence[Present], ttl: float, now: float) -> list[Present]:
        """Members of a node are in a channel.

        Returns:
            Those that were not, or were otherwise.
        """
        came = []
        room = self._rooms.get(channel)
        until = self._moment(now) + ttl
        for present in members:
            entry = room.members.get(present.member) if room is not None else None
            if entry is not None and entry.node == node:
                self._keep(entry, until)
                if entry.present != present:
                    self._change(entry, present)
                    came.append(present)
                continue
            if entry is not None:  # it has moved: ids are those of one member, wherever it is
                self._remove(entry)
            if self._total >= self._most:
                self.refused += 1
                continue
            room = self._rooms.setdefault(channel, _Room())
            entry = room.members[present.member] = _Entry(channel, node, present, until)
            room.count(present.user, 1)
            self._nodes.setdefault(node, {})[channel, present.member] = entry
            self._total += 1
            self._await(entry)
            came.append(present)
        return came

    def leave(self, node: str, channel: str, members: Sequence[str]) -> list[str]:
        """Members of a node (by id) are in a channel no more.

        Returns:
            Those that were.
        """
        owned = self._nodes.get(node, {})
        found = [owned[channel, member] for member in members if (channel, member) in owned]
        for entry in found:
            self._remove(entry)
        return [entry.present.member for entry in found]

    def refresh(self, node: str, present: Mapping[str, Sequence[str]], ttl: float, now: float) -> dict[str, list[str]]:
        """Members of a node (ids by channel) are still there.

        Returns:
            Those of them that are not known: their node has to say again who they are.
        """
        owned = self._nodes.get(node, {})
        unknown: dict[str, list[str]] = {}
        until = self._moment(now) + ttl
        for channel, members in present.items():
            for member in members:
                entry = owned.get((channel, member))
                if entry is None:
                    unknown.setdefault(channel, []).append(member)
                else:
                    self._keep(entry, until)
        return unknown

    def gone(self, node: str) -> dict[str, list[str]]:
        """A node is gone, and all its members.

        Returns:
            Their ids by channel.
        """
        return self._remove_all(list(self._nodes.get(node, {}).values()))

    def expire(self, now: float) -> dict[str, dict[str, list[str]]]:
        """Let go who was not refreshed in time.

        Returns:
            Their ids, by node and channel.
        """
        late: dict[str, list[_Entry]] = {}
        now = self._moment(now)
        due = self._due
        while due and due[0][0] <= now:
            moment, entry = heapq.heappop(due)
            if entry.gone or moment != entry.due:
                continue
            if entry.until > now:
                self._await(entry)
            else:
                late.setdefault(entry.node, []).append(entry)
        return {node: self._remove_all(entries) for node, entries in late.items()}

    def present(self, channel: str, limit: int) -> list[Present]:
        """Who is in a channel, who came first before the others."""
        room = self._rooms.get(channel)
        return [] if room is None else [entry.present for entry in islice(room.members.values(), limit)]

    def count(self, channel: str) -> tuple[int, int]:
        """How many members and how many users are in a channel. Who has no user is a member only."""
        room = self._rooms.get(channel)
        return (0, 0) if room is None else (len(room.members), len(room.users))

    def _moment(self, now: float) -> float:
        """The time that counts, at a moment."""
        if self._read is not None:
            self._served += min(now - self._read, self._step)
        self._read = now
        return self._served

    def _await(self, entry: _Entry) -> None:
        """Look at an entry when its time is over."""
        if len(self._due) > 2 * self._total + 1000:  # most of them have left meanwhile
            self._due[:] = [item for item in self._due if not item[1].gone and item[0] == item[1].due]
            heapq.heapify(self._due)
        entry.due = entry.until
        heapq.heappush(self._due, (entry.due, entry))

    def _keep(self, entry: _Entry, until: float) -> None:
        entry.until = until
        if until < entry.due:
            self._await(entry)

    def _change(self, entry: _Entry, present: Present) -> None:
        room = self._rooms[entry.channel]
        room.count(entry.present.user, -1)
        room.count(present.user, 1)
        entry.present = present

    def _remove_all(self, entries: Sequence[_Entry]) -> dict[str, list[str]]:
        left: dict[str, list[str]] = {}
        for entry in entries:
            self._remove(entry)
            left.setdefault(entry.channel, []).append(entry.present.member)
        return left

    def _remove(self, entry: _Entry) -> None:
        entry.gone = True
        room, present = self._rooms[entry.channel], entry.present
        del room.members[present.member]
        room.count(present.user, -1)
        if not room.members:
            del self._rooms[entry.channel]
        owned = self._nodes[entry.node]
        del owned[entry.channel, present.member]
        if not owned:
            del self._nodes[entry.node]
        self._total -= 1
