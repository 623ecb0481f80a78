"""The connection by which Redis tells what was published: watched, and made anew when it is lost.

A peer that has vanished sends no end, so a PING must be answered within a deadline; any byte counts. Each time that the
connection is made again, something may have been published meanwhile, and the hub is told so when everything is
subscribed again.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Iterable
from typing import Any, Final, Protocol

from sojourn.errors import DeadlineExceeded, EngineUnavailable
from sojourn.policy.retry import Backoff
from sojourn.scopes.deadline import deadline
from sojourn.stores.redis import failures
from sojourn.stores.replies import Replies, Wrong, command

__all__ = ["Link", "Linked"]

_READ: Final = 262_144
#: Channels in one command.
_CHUNK: Final = 512
#: Seconds between tries to connect, with full jitter.
_AGAIN: Final = Backoff(0.1, 5.0)


class Linked(Protocol):
    """Who listens."""

    async def connecting(self) -> Any:
        """Look at what Redis is, and make a connection of the client ``redis``, which is not connected yet."""

    def up(self, again: bool) -> None:
        """Everything is subscribed. ``again``: it had been before."""

    def down(self, error: Exception) -> None:
        """The connection is lost, or could not be made."""

    def heard(self, name: bytes, message: bytes) -> None:
        """Something was published where it is subscribed."""


class Link:
    """One connection for all subscriptions of a node.

    Args:
        linked: Who listens.
        names: Where it listens from the beginning.
        every: Seconds between two PINGs.
        within: Seconds for any byte to come after one.
        timeout: Seconds to connect.

    Attributes:
        available: Whether everything is subscribed.
        settled: Done when the first try to connect has ended, well or not.
    """

    def __init__(self, linked: Linked, names: Iterable[bytes], every: float, within: float, timeout: float) -> None:
        self._linked = linked
        self._every, self._within, self._timeout = every, within, timeout
        self.available = False
        self.settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._loop = asyncio.get_running_loop()
        self._names = set(names)
        #: Who waits for the confirmations of a name, those of one command together, in the order of commands.
        self._awaited: dict[bytes, deque[asyncio.Future[None]]] = {}
        #: Names to subscribe with the next command, all of this turn together, and who waits for it.
        self._next: set[bytes] = set()
        self._transport: Any = None
        self._timer: asyncio.TimerHandle | None = None
        self._chunks = 0
        self._pinged = False
        self._again = False
        self._tries = 0

    # -- Subscriptions

    async def subscribe(self, name: bytes) -> None:
        """Hear what is published somewhere, from now on.

        Raises:
            EngineUnavailable: The connection is lost; it is not subscribed then.

        Cancel: safe; it may be subscribed.
        """
        if not self.available:
            raise EngineUnavailable("there is no connection to Redis")
        awaited = self._awaited.get(name)
        if name in self._names and not awaited:
            return
        if name not in self._next:
            self._names.add(name)
            self._awaited.setdefault(name, deque()).append(self._loop.create_future())
            if not self._next:
                self._loop.call_soon(self._flush)
            self._next.add(name)
        # One future for all who ask: that one of them is cancelled is nothing to the others.
        await asyncio.shield(self._awaited[name][-1])

    def unsubscribe(self, name: bytes) -> None:
        """Hear it no more."""
        if name in self._names:
            self._names.discard(name)
            if name in self._next:
                self._flush()
            self._write(command(b"UNSUBSCRIBE", name))

    def check(self) -> None:
        """Something is wrong: ask for a sign of life now."""
        if self.available and not self._pinged:
            self._ping()

    def _flush(self) -> None:
        names, self._next = list(self._next), set()
        self._write_names(names)

    def _write_names(self, names: Iterable[bytes]) -> None:
        some = list(names)
        for at in range(0, len(some), _CHUNK):
            self._write(command(b"SUBSCRIBE", *some[at : at + _CHUNK]))

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():  # else the reader is about to see its end
            self._transport.write(data)

    # -- The connection

    async def run(self) -> None:
        """Connect, and again, until cancelled."""
        while True:
            error = await self._live()
            self._tries += 1
            self._linked.down(error)
            self._settle()
            await asyncio.wait((self._loop.create_future(),), timeout=_AGAIN.delay(self._tries, random.random()))

    async def _live(self) -> Exception:
        """One life of the connection; what has ended it."""
        connection: Any = None
        try:
            async with deadline(self._timeout, "hub connect"):
                connection = await self._linked.connecting()
                await connection.connect()
            return await self._listen(connection)
        except (DeadlineExceeded, EngineUnavailable, ValueError) as error:
            return error
        except failures() as error:
            return ConnectionError(f"{type(error).__name__}: {error}")
        except Exception as error:  # noqa: BLE001 - a bug, here or in who listens, and the next life begins afresh
            self._loop.call_exception_handler({"message": "the hub's connection to Redis failed", "exception": error})
            return error
        finally:
            self._lost()
            if connection is not None:
                await _drop(connection)

    async def _listen(self, connection: Any) -> Exception:
        reader, self._transport = connection._reader, connection._writer.transport
        replies = Replies()
        # The answer to this comes after the confirmations of all that is subscribed before it.
        self._write_names(self._names)
        self._ping()
        while data := await reader.read(_READ):
            self._chunks += 1
            for reply in replies.feed(data):
                self._take(reply)
        return ConnectionError("the connection to Redis was closed")

    def _take(self, reply: Any) -> None:
        if not isinstance(reply, list) or not reply:
            if isinstance(reply, Wrong):
                raise ConnectionError(f"Redis: {reply}")
            if reply == b"PONG":
                self._alive()
        elif reply[0] == b"message":
            if reply[1] in self._names:
                self._linked.heard(reply[1], reply[2])
        elif reply[0] == b"subscribe":
            awaited = self._awaited.get(reply[1])
            if awaited:
                future = awaited.popleft()
                if not awaited:
                    del self._awaited[reply[1]]
                if not future.done():
                    future.set_result(None)
        elif reply[0] == b"pong":
            self._alive()

    def _alive(self) -> None:
        if not self.available:
            self.available = True
            self._tries = 0
            again, self._again = self._again, True
            self._linked.up(again)
            self._settle()
        self._pinged = False
        self._wait(self._every, self._ping)

    def _ping(self) -> None:
        self._pinged = True
        self._write(command(b"PING"))
        self._wait(self._within, self._silent, self._chunks, 0)

    def _silent(self, chunks: int, grace: int) -> None:
        """No answer has come. Something else may have, or have waited for a loop that was busy itself."""
        if self._chunks != chunks:
            self._wait(self._within, self._silent, self._chunks, 0)
        elif not grace:
            self._wait(self._within / 8, self._silent, chunks, 1)
        elif self._transport is not None:
            self._transport.abort()

    def _wait(self, seconds: float, then: Any, *arguments: Any) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(seconds, then, *arguments)

    def _lost(self) -> None:
        self.available = self._pinged = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._transport is not None:
            self._transport.abort()
            self._transport = None
        awaited, self._awaited, self._next = self._awaited, {}, set()
        for name, futures in awaited.items():
            self._names.discard(name)
            for future in futures:
                if not future.done():
                    future.set_exception(EngineUnavailable("the connection to Redis was lost"))
                    future.exception()  # read: perhaps nobody waits any more

    def _settle(self) -> None:
        if not self.settled.done():
            self.settled.set_result(None)


async def _drop(connection: Any) -> None:
    """Have the client see that its connection is closed, which it is."""
    try:
        await connection.disconnect(nowait=True)
    except failures():
        pass  # the transport was aborted before
