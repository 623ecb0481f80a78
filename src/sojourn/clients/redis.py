"""redis.asyncio: each command, pipeline and wait for the pool takes no longer than it may.

The total is around the client's own retries. A command that was cut leaves its connection closed: one that is used
again would give the next command the answer of this one.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from typing import Any, Final, TypeVar

import redis.asyncio
from redis.asyncio.connection import AbstractConnection

from sojourn.clients.clamp import PoolWait, clamped
from sojourn.clock import NEVER
from sojourn.scopes.aborts import aborting
from sojourn.scopes.deadline import Deadline
from sojourn.scopes.shielded import shielded

__all__ = ["block_seconds", "bounded"]

Client = TypeVar("Client", bound="redis.asyncio.Redis")

#: Seconds beyond its own block time that a blocking command may take: for the way there and back.
_WAY: Final = 1.0
#: Seconds that a connection may take to go back to the pool.
_RETURN: Final = 1.0
#: Commands that wait for something to happen: where they say for how long, from the end or the beginning, in seconds.
_LAST: Final = frozenset({"BLPOP", "BRPOP", "BRPOPLPUSH", "BLMOVE", "BZPOPMIN", "BZPOPMAX"})
_FIRST: Final = frozenset({"BLMPOP", "BZMPOP"})
#: In milliseconds: the last argument, or the one that follows BLOCK.
_LAST_MILLISECONDS: Final = frozenset({"WAIT", "WAITAOF"})
_STREAMS: Final = frozenset({"XREAD", "XREADGROUP"})


def block_seconds(command: tuple[Any, ...]) -> float | None:
    """How long a command says that it will wait for something to happen.

    Returns:
        Seconds; NEVER when it waits for ever. None for a command that does not block.

    Example:
        >>> block_seconds(("BLPOP", "jobs", 5)), block_seconds(("GET", "a"))
        (5.0, None)
    """
    name = str(command[0]).upper() if command else ""
    try:
        if name in _LAST:
            seconds = float(command[-1])
        elif name in _FIRST:
            seconds = float(command[1])
        elif name in _LAST_MILLISECONDS:
            seconds = float(command[-1]) / 1000.0
        elif name in _STREAMS:
            words = [word.decode("latin-1") if isinstance(word, bytes) else str(word) for word in command[:8]]
            at = [word.upper() for word in words].index("BLOCK")
            seconds = float(words[at + 1]) / 1000.0
        else:
            return None
    except (ValueError, IndexError):
        return None  # it doesn't block, or Redis will say what is wrong with it
    return seconds or NEVER


def _allowed(command: tuple[Any, ...], dependency: str) -> Deadline:
    seconds = block_seconds(command)
    if seconds is None:
        return clamped(dependency)
    # The budget is for questions and answers; this one waits on purpose, and says for how long.
    return Deadline(seconds + _WAY, NEVER, f"{dependency}: {command[0]}", _allowed.__code__, 0)


def bounded(client: Client, dependency: str = "redis") -> Client:
    """Bound the commands of a client by the ambient deadline and the budget of a dependency.

    Commands that block (``BLPOP``, ``XREAD BLOCK``) may take as long as they say themselves and a second more, whatever
    the budget is; the ambient deadline bounds them, too. Subscriptions listen as long as they are asked to.

    Args:
        client: A ``redis.asyncio.Redis``, which is changed, with its connection pool.
        dependency: Name in ``deadlines.budgets`` of the configuration, in errors, and of the pool.

    Returns:
        The client. What it does raises DeadlineExceeded when no time is left, and nothing is sent then, or when the
        answer was not here in time; and PoolWaitExceeded when no connection became free in time.

    Raises:
        TypeError: It is no client of ``redis.asyncio``.

    Example:
        >>> import redis.asyncio, sojourn
        >>> cache = bounded(redis.asyncio.Redis(), dependency="cache")
        >>> async def cached(key):
        ...     async with sojourn.deadline(0.05, "cached"):
        ...         return await cache.get(key)
    """
    if not isinstance(client, redis.asyncio.Redis):
        raise TypeError(f"{type(client).__qualname__} is no client of redis.asyncio")
    _bound_pool(client.connection_pool, dependency)
    execute: Any = client.execute_command
    pipeline: Any = client.pipeline

    @functools.wraps(execute)
    async def execute_command(*command: Any, **options: Any) -> Any:
        """Cancel: as the client's own, which closes the connection."""
        async with _allowed(command, dependency):
            return await execute(*command, **options)

    @functools.wraps(pipeline)
    def bounded_pipeline(*arguments: Any, **options: Any) -> Any:
        made = pipeline(*arguments, **options)
        made.execute = _total(made.execute, dependency)
        made.immediate_execute_command = _total(made.immediate_execute_command, dependency)
        return made

    client.execute_command = execute_command  # type: ignore[method-assign]
    client.pipeline = bounded_pipeline  # type: ignore[method-assign]
    return client


def _total(call: Callable[..., Any], dependency: str) -> Callable[..., Any]:
    @functools.wraps(call)
    async def bounded_call(*arguments: Any, **options: Any) -> Any:
        """Cancel: as the client's own, which closes the connection."""
        async with clamped(dependency):
            return await call(*arguments, **options)

    return bounded_call


def _bound_pool(pool: Any, dependency: str) -> None:
    plain: Any = pool.connection_class
    pool.connection_class = bound = _bound_class(plain)
    for connection in [*pool._available_connections, *pool._in_use_connections]:
        if type(connection) is plain:
            connection.__class__ = bound
    get, release = pool.get_connection, pool.release

    @functools.wraps(get)
    async def get_connection(*arguments: Any, **options: Any) -> Any:
        """Cancel: as the pool's own, which takes back what it was about to lend."""
        if pool.can_get_connection():  # then the wait, if there is one, is for the server
            return await get(*arguments, **options)
        with PoolWait(dependency):
            return await get(*arguments, **options)

    @functools.wraps(release)
    async def release_shielded(connection: Any) -> None:
        """Cancel: safe; the connection is back before the cancellation is raised."""
        task = asyncio.current_task()
        if task is None or not task.cancelling():
            await release(connection)
        else:
            # On the way out of a wait that was cut, and the next rung of the ladder must not cut this one.
            await shielded(release(connection), _RETURN, f"return to pool {dependency}")

    pool.get_connection, pool.release = get_connection, release_shielded


def _bound_class(plain: Any) -> Any:
    class BoundedConnection(plain):  # type: ignore[misc]
        """A connection that is closed when what was asked on it is given up."""

        async def send_packed_command(self, *arguments: Any, **options: Any) -> None:
            """Cancel: closes the connection; a cancellation that the client's own wait loses is found again."""
            task = asyncio.current_task()
            before = 0 if task is None else task.cancelling()
            await super().send_packed_command(*arguments, **options)
            # Before Python 3.12 asyncio.wait_for, by which it writes, loses a cancellation that comes in the same turn
            # as the result (python/cpython#86296). The command is out: nobody may read its answer as another's.
            if task is not None and task.cancelling() > before:
                await self.disconnect(nowait=True)
                raise asyncio.CancelledError

        async def read_response(self, *arguments: Any, **options: Any) -> Any:
            """Cancel: closes the connection."""
            with aborting(self._abort):
                return await super().read_response(*arguments, **options)

        def _abort(self) -> None:
            if self._writer is not None:
                self._writer.transport.abort()

    assert issubclass(plain, AbstractConnection)
    BoundedConnection.__name__ = plain.__name__
    return BoundedConnection
