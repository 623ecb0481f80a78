"""The connection by which PostgreSQL tells what was notified: watched, and made anew when it is lost."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any, Final

from sojourn.errors import ConfigError, DeadlineExceeded
from sojourn.policy.retry import Backoff
from sojourn.scopes.deadline import deadline
from sojourn.tasks.journal import Listener
from sojourn.tasks.postgres.failures import failures
from sojourn.tasks.postgres.hints import Hints

__all__ = ["hear"]

#: Seconds to connect and subscribe.
_CONNECT: Final = 5.0
#: Seconds of quiet after which it asks whether PostgreSQL is there, and seconds for the answer.
_QUIET: Final = 5.0
_ANSWER: Final = 2.0
#: Between tries.
_AGAIN: Final = Backoff(0.1, 3.0)


async def hear(connect: Callable[[], Awaitable[Any]], channel: str, hints: Hints, listener: Listener) -> None:
    """Pass on what is notified, until cancelled.

    Args:
        connect: Makes a connection of asyncpg.
        channel: Where.
        hints: Reads notifications, and knows who listens.
        listener: Who is told.
    """
    tries = 0
    while True:
        connection: Any = None
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        life = _Life(hints, listener, ended)
        try:
            async with deadline(_CONNECT, "tasks listen"):
                connection = await connect()
                connection.add_termination_listener(life.end)
                await connection.add_listener(channel, life.heard)
            tries = 0
            hints.listeners.append(listener)
            listener.missed()
            await life.watch(connection)
        except (DeadlineExceeded, ConfigError):
            pass  # said below: away
        except failures():
            pass  # said below: away
        finally:
            life.over = True
            if listener in hints.listeners:
                hints.listeners.remove(listener)
            if connection is not None:
                connection.terminate()
        listener.away()
        tries += 1
        pause = max(0.05, _AGAIN.delay(tries, random.random()))
        await asyncio.wait((asyncio.get_running_loop().create_future(),), timeout=pause)


class _Life:
    """One life of the connection.

    Attributes:
        over: What comes now is too late.
    """

    def __init__(self, hints: Hints, listener: Listener, ended: asyncio.Future[None]) -> None:
        self._hints = hints
        self._listener = listener
        self._ended = ended
        self._said = False
        self.over = False

    def heard(self, connection: Any, pid: int, channel: str, payload: Any) -> None:
        """Called by asyncpg."""
        self._said = True
        if not self.over:
            self._hints.heard(payload, self._listener)

    def end(self, connection: Any) -> None:
        """Called by asyncpg: the connection is lost."""
        if not self._ended.done():
            self._ended.set_result(None)

    async def watch(self, connection: Any) -> None:
        """Until it is lost. A peer that has vanished sends no end, so one that is quiet is asked for an answer."""
        while not self._ended.done():
            self._said = False
            await asyncio.wait((self._ended,), timeout=_QUIET)
            if not self._ended.done() and not self._said:
                async with deadline(_ANSWER, "tasks listen"):
                    await connection.fetchval("SELECT 1")
