"""Connections to PostgreSQL: few, each with one statement at a time, closed when nobody knows how that ended."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

from sojourn.errors import DeadlineExceeded
from sojourn.scopes.aborts import aborting
from sojourn.scopes.deadline import deadline
from sojourn.scopes.shielded import shielded
from sojourn.tasks.postgres.failures import failures

__all__ = ["Borrowed", "Lender", "Pool"]

#: Seconds for a goodbye; then the socket is closed.
_GOODBYE: Final = 1.0


class Pool:
    """A few connections, made when they are needed; the one that was used last is lent first.

    asyncpg's own pool asks the server to forget what a connection was used for, each time that it comes back, and waits
    for the answer. Here nothing is left to forget: a statement is a transaction.

    Args:
        connect: Makes a connection.
        most: As many at most; who finds none waits, within the deadline around.
    """

    __slots__ = ("_connect", "_idle", "_most", "_out", "_waiters", "closed", "generation")

    def __init__(self, connect: Callable[[], Awaitable[Any]], most: int) -> None:
        self._connect = connect
        self._most = most
        #: Those of which the generation is not the present one are closed instead of being lent again.
        self._idle: list[Any] = []
        self._out: dict[Any, int] = {}
        self._waiters: deque[asyncio.Future[None]] = deque()
        self.generation = 0
        self.closed = False

    @property
    def open(self) -> int:
        """Connections that are open, and those that are being made."""
        return len(self._idle) + len(self._out)

    @asynccontextmanager
    async def lend(self, fresh: bool = False) -> AsyncIterator[Any]:
        """A connection, for one statement or one transaction.

        Args:
            fresh: One that has just been made.

        Raises:
            OSError: The pool is closed; or what connecting raises.

        Cancel: safe; a connection on which a statement is under way is closed.
        """
        slot = object()
        while len(self._out) >= self._most:
            await self._turn()
        if self.closed:
            raise ConnectionError("it is closed")
        self._out[slot] = generation = self.generation
        connection = None
        whole = False
        try:
            connection = None if fresh else self._take()
            if connection is None:
                connection = await self._connect()
            with aborting(connection.terminate):
                yield connection
            whole = True
        except Exception as error:
            # The server has said that it will not, and is ready for the next: the connection is as good as before.
            whole = hasattr(error, "sqlstate") and connection is not None and not connection.is_closed()
            raise
        finally:
            del self._out[slot]
            if connection is not None:
                if whole and generation == self.generation and not connection.is_closed() and not self.closed:
                    self._idle.append(connection)
                else:
                    connection.terminate()
            self._next()

    def _take(self) -> Any:
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_closed():
                return connection
        return None

    async def _turn(self) -> None:
        """Wait until a place may be free. Cancel: safe; the next in the line is told instead."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self._next()
            raise
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    def _next(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def discard(self) -> None:
        """Lend none of those again that are open now: the server behind them is gone, or another one."""
        self.generation += 1
        idle, self._idle = self._idle, []
        for connection in idle:
            connection.terminate()

    async def aclose(self) -> None:
        """Close all, also what is lent. Cancel: safe; they are closed without a goodbye."""
        self.closed = True
        idle, self._idle = self._idle, []
        while self._waiters:
            self._next()
        try:
            async with deadline(_GOODBYE, "goodbye"):
                for connection in idle:
                    await connection.close()
        except DeadlineExceeded:
            pass  # closed below, without a word
        except failures():
            pass  # closed below, without a word
        finally:
            for connection in idle:
                connection.terminate()


class Borrowed:
    """As :class:`Pool`, with the connections of an application's own pool.

    Args:
        pool: An ``asyncpg.Pool``, which stays the application's.
    """

    __slots__ = ("_pool", "closed")

    def __init__(self, pool: Any) -> None:
        self._pool = pool
        self.closed = False

    @asynccontextmanager
    async def lend(self, fresh: bool = False) -> AsyncIterator[Any]:
        """See Pool. ``fresh`` is what the pool thinks is good.

        Cancel: safe; a connection on which a statement is under way is closed.
        """
        if self.closed:
            raise ConnectionError("it is closed")
        connection = await self._pool.acquire()
        whole = False
        try:
            with aborting(connection.terminate):
                yield connection
            whole = True
        except Exception as error:
            whole = hasattr(error, "sqlstate")
            raise
        finally:
            if not whole:
                connection.terminate()
            await shielded(self._pool.release(connection), _GOODBYE, "return to the pool")

    async def keep(self) -> Any:
        """A connection for good: it is terminated by who has it, and the pool makes another one."""
        return await self._pool.acquire()

    def discard(self) -> None:
        """Nothing: they are not ours."""

    async def aclose(self) -> None:
        """Borrow no more."""
        self.closed = True


Lender = Pool | Borrowed
