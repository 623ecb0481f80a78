"""What came and waits for the application: bounded, and a reason to read no more."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

from sojourn.clients.hub.events import Gap
from sojourn.clients.hub.rules import ClientRules

__all__ = ["Inbox"]

E = TypeVar("E")

#: So many times the bounds are taken while an answer is awaited: it comes behind what is read before it.
_AHEAD: Final = 4


class Inbox(Generic[E]):
    """What came for one channel.

    While nobody has begun to read, the oldest goes when it is full, and the reader begins with a :class:`Gap`: a
    channel that is only published to holds nobody up. From then on nothing goes: the client reads no more until there
    is room.

    Args:
        channel: Its name, for the gap.
        rules: How much may wait.
        changed: Called when it has become full, and each time it has more room from then on.

    Attributes:
        full: Whether as much waits as may, and somebody reads.
        position: Cursor of what was handed over last; "" before.
    """

    __slots__ = (
        "_bytes",
        "_changed",
        "_channel",
        "_dropped",
        "_error",
        "_items",
        "_over",
        "_read",
        "_rules",
        "_waiter",
        "full",
        "position",
    )

    def __init__(self, channel: str, rules: ClientRules, changed: Callable[[Inbox[Any]], None]) -> None:
        self._channel = channel
        self._rules = rules
        self._changed = changed
        self._items: deque[tuple[E, int]] = deque()
        self._bytes = 0
        #: Where it goes on behind what was dropped; None when nothing was.
        self._dropped: str | None = None
        self._read = False
        self._over = False
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        self.full = False
        self.position = ""

    def __len__(self) -> int:
        return len(self._items)

    @property
    def brimming(self) -> bool:
        """Whether not even an answer is worth reading on."""
        return self._exceeds(_AHEAD)

    def put(self, item: E, size: int) -> None:
        """Something came."""
        if self._over:
            return
        self._items.append((item, size))
        self._bytes += size
        while not self._read and self._exceeds(1):
            dropped, length = self._items.popleft()
            self._bytes -= length
            self._dropped = getattr(dropped, "position", "") or self._dropped or ""
        self._look()
        self._wake()

    def end(self, error: Exception | None = None) -> None:
        """Nothing comes any more; the reader gets what is here, then the error or its end."""
        if not self._over:
            self._over, self._error = True, error
            self._look()
            self._wake()

    async def next(self) -> E | Gap:
        """The next one.

        Raises:
            StopAsyncIteration: Nothing comes any more.
            RuntimeError: Somebody else waits for it.

        Cancel: safe; nothing is lost.
        """
        if not self._read:
            self._read = True
            self._look()
        while not self._items and self._dropped is None:
            if self._over:
                raise self._error or StopAsyncIteration
            await self._wait()
        if self._dropped is not None:
            position, self._dropped = self._dropped, None
            self.position = position or self.position
            return Gap(self._channel, position)
        item, size = self._items.popleft()
        self._bytes -= size
        self.position = getattr(item, "position", "") or self.position
        self._look()
        return item

    async def _wait(self) -> None:
        if self._waiter is not None:
            raise RuntimeError(f"{self._channel or 'messages'!r} is read by another task already")
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _exceeds(self, times: float) -> bool:
        return len(self._items) > self._rules.buffer * times or self._bytes > self._rules.buffer_bytes * times

    def _look(self) -> None:
        # It is full above the mark, and has room again below half of it.
        full = self._read and not self._over and self._exceeds(0.5 if self.full else 1)
        if full or self.full:
            self.full = full
            self._changed(self)
