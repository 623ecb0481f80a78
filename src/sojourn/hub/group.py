"""Members of a channel that get the same bytes: the hot path of fan-out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sojourn.hub.direct import DirectMember

__all__ = ["Group"]


class Group:
    """Those who are written to straight, in one form.

    What a member costs here, everybody waits for. So what is kept for a write is only a list of functions: what each
    member got is counted for the group as a whole, and settled with a member when it comes, goes, falls behind or is
    looked at. A member that is behind is not in the list; its server says so (``Connection.on_blocked``).

    Attributes:
        members: All of them, each with what the group had written when it was settled last: messages and bytes.
    """

    __slots__ = ("_at", "_behind", "_bytes", "_messages", "_settled", "_writes", "members")

    def __init__(self) -> None:
        self.members: dict[DirectMember, tuple[int, int]] = {}
        self._behind: dict[DirectMember, None] = {}
        self._writes: list[Callable[[bytes], None]] | None = None
        self._messages = self._bytes = self._settled = 0
        #: When something was written last, in served time.
        self._at = 0.0

    def __len__(self) -> int:
        return len(self.members)

    def __iter__(self) -> Iterator[DirectMember]:
        return iter(self.members)

    def add(self, member: DirectMember) -> None:
        """One comes."""
        self.members[member] = (self._messages, self._bytes)
        if member.behind:
            self._behind[member] = None
        self._writes = None

    def remove(self, member: DirectMember) -> None:
        """One goes."""
        self.settle(member)
        del self.members[member]
        self._behind.pop(member, None)
        self._writes = None

    def fell_behind(self, member: DirectMember) -> None:
        """A member takes no more at present; what was written last it has got."""
        self.settle(member)
        self._behind[member] = None
        self._writes = None

    def caught_up(self, member: DirectMember) -> None:
        """A member is not behind any more."""
        self.members[member] = (self._messages, self._bytes)
        self._behind.pop(member, None)
        self._writes = None

    def settle(self, member: DirectMember) -> None:
        """Count for a member what it got with all others."""
        messages, size = self.members[member]
        if messages != self._messages and member not in self._behind:
            self.members[member] = (self._messages, self._bytes)
            member.got(self._messages - messages, self._bytes - size, self._at)

    def settle_all(self) -> None:
        """Count for all of them what was written since the last time."""
        if self._settled != self._messages:
            self._settled = self._messages
            for member in list(self.members):
                self.settle(member)

    def write(self, data: bytes, messages: int, now: float) -> list[DirectMember]:
        """Write to all that keep up.

        Args:
            data: What they get.
            messages: How many messages that is.
            now: Served time, in seconds.

        Returns:
            Those that were behind already, and have got nothing.
        """
        behind = list(self._behind)
        writes = self._writes
        if writes is None:
            writes = self._writes = [member.write for member in self.members if member not in self._behind]
        self._messages += messages
        self._bytes += len(data)
        self._at = now
        for write in writes:
            write(data)
        return behind
