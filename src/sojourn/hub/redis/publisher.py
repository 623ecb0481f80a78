"""Publications on their way to Redis: those of the same moment together, in the order in which they were published.

One batch is on its way at a time; what is published meanwhile is the next one. So the order holds, a round trip is
shared by as many as come during it, and there is no task per publication. Each batch has a number: when its answer was
lost, it is sent again, and Redis answers what it had answered.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, Final

from sojourn.errors import DeadlineExceeded, EngineUnavailable
from sojourn.hub.engine import Publish, Published
from sojourn.hub.redis.envelope import tail
from sojourn.hub.redis.keys import Keys
from sojourn.hub.redis.store import Asked, Store
from sojourn.wire.hub.cursor import Cursor

__all__ = ["Publisher"]

#: Publications, and bytes of them, in one batch: Redis does nothing else meanwhile.
_BATCH: Final = 128
_BATCH_BYTES: Final = 1024 * 1024
#: Publications, and bytes of them, that may wait.
_WAITING: Final = 20_000
_WAITING_BYTES: Final = 64 * 1024 * 1024

_Item = tuple[Publish, bytes, "asyncio.Future[Published]"]


class Publisher:
    """Publishes for one node.

    Args:
        store: Where.
        node: Id of this node; no other has the same.

    Attributes:
        batches: How many have been sent.
    """

    def __init__(self, store: Store, node: str) -> None:
        self._store = store
        self._node = node
        self._waiting: deque[_Item] = deque()
        self._bytes = 0
        self._wake: asyncio.Future[None] | None = None
        self._sent: list[_Item] = []
        self.batches = 0

    def publish(self, publish: Publish) -> asyncio.Future[Published]:
        """Publish with the next batch.

        Returns:
            What becomes of it. Cancelled before it was sent, it is not published.

        Raises:
            EngineUnavailable: As much waits as may.
            ValueError: A name in it is not Unicode.
        """
        data = tail(publish)
        (publish.channel + publish.id).encode()  # one that can't be written fails here, and alone
        if len(self._waiting) >= _WAITING or self._bytes + len(data) > _WAITING_BYTES:
            raise EngineUnavailable(f"{len(self._waiting)} publications wait for Redis already", 0.1)
        future: asyncio.Future[Published] = asyncio.get_running_loop().create_future()
        self._waiting.append((publish, data, future))
        self._bytes += len(data)
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)
        return future

    async def run(self) -> None:
        """Send batches until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            batch = self._sent = self._next()
            if not batch:
                self._wake = loop.create_future()
                await self._wake
                continue
            self.batches += 1
            try:
                _settle(batch, await self._store.run(self._store.scripts.publish, self._asked))
            except (EngineUnavailable, DeadlineExceeded) as error:
                self.fail(error)
            except Exception as error:  # noqa: BLE001 - a bug; those who publish must not wait for ever
                loop.call_exception_handler({"message": "a hub could not publish", "exception": error})
                self.fail(error)
            self._sent = []

    def fail(self, error: Exception) -> None:
        """All that waits has failed, and what is on its way. Those who publish next may have more luck."""
        detail = error.detail if isinstance(error, EngineUnavailable) else str(error)
        for _, _, future in (*self._sent, *self._waiting):
            if not future.done():
                future.set_exception(EngineUnavailable(detail))
        self._waiting.clear()
        self._bytes = 0

    def _next(self) -> list[_Item]:
        batch: list[_Item] = []
        size, waiting = 0, self._waiting
        while waiting and len(batch) < _BATCH and size < _BATCH_BYTES:
            item = waiting.popleft()
            self._bytes -= len(item[1])
            if not item[2].done():  # else nobody wants it any more
                size += len(item[1])
                batch.append(item)
        return batch

    def _asked(self, life: str) -> Asked:
        names: Keys = self._store.keys
        keys = [names.meta, names.marks, names.node(life, self._node)]
        arguments: list[Any] = [life.encode(), self.batches]
        for (channel, _, _, history, key, name), data, _ in self._sent:
            last = names.last(life, channel)
            keep, values = last, last  # not used, but a script's keys are counted
            if history.size:
                if history.mode == "stream":
                    keep = names.stream(life, channel)
                else:
                    keep, values = names.order(life, channel), names.values(life, channel)
            keys += (last, keep, values, names.id(life, channel, name) if name else last)
            ttl = max(1, int(history.ttl * 1000))
            arguments += (names.channel(channel), data, history.size, ttl, history.mode, key.encode(), name.encode())
        return Asked(keys, arguments)


def _settle(batch: list[_Item], answer: bytes) -> None:
    first, *numbers = answer.decode().split(" ")
    if len(numbers) != len(batch):
        raise EngineUnavailable("Redis has answered another question")
    for (_, _, future), number in zip(batch, numbers, strict=True):
        if not future.done():
            seq = int(number)
            future.set_result(Published(Cursor(first, abs(seq)), seq < 0))
