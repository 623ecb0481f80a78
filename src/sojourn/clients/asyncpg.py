"""asyncpg: statements the server ends in time, waits for the pool that say so, connections that come back clean."""

from __future__ import annotations

from typing import Any, TypeVar

import asyncpg  # type: ignore[import-untyped]

from sojourn.clients.asyncpg_guard import CLEAN_UP, Guard, guard
from sojourn.clients.clamp import PoolWait, clamped
from sojourn.scopes.shielded import shielded

__all__ = ["bounded"]

Thing = TypeVar("Thing")


def bounded(thing: Thing, dependency: str = "postgres", *, statement_timeout: bool = True) -> Thing:
    """Bound the statements of a pool or a connection by the ambient deadline and the budget of a dependency.

    PostgreSQL is told: before a statement its ``statement_timeout`` is set a little shorter than what is left, unless
    what it is already fits. So the server ends a slow statement, and the connection stays usable. If the server says
    nothing, the statement is given up at the deadline, and its connection is closed instead of going back to the pool.
    A session's own ``statement_timeout`` (of its role, or in ``server_settings``) stays in force when it is shorter.

    Args:
        thing: An ``asyncpg.Pool`` or an ``asyncpg.Connection``, which is changed.
        dependency: Name in ``deadlines.budgets`` of the configuration, in errors, and of the pool. The budget is for
            each wait: for a connection, for a statement.
        statement_timeout: False: the server is not told. For poolers that share sessions between clients outside of
            transactions.

    Returns:
        The pool or connection. What it does raises DeadlineExceeded when no time is left, and nothing is sent then, or
        when the answer was not here in time; and PoolWaitExceeded when no connection became free in time.

    Raises:
        TypeError: It is neither.

    Example:
        >>> import asyncpg, sojourn
        >>> async def main():
        ...     async with bounded(asyncpg.create_pool("postgres://"), dependency="database") as pool:
        ...         async with sojourn.deadline(0.3, "orders"):
        ...             return await pool.fetch("select * from orders")
    """
    if isinstance(thing, asyncpg.Connection):
        guard(thing, dependency, cap=statement_timeout)
    elif isinstance(thing, asyncpg.Pool):
        _bound_pool(thing, dependency, cap=statement_timeout)
    else:
        raise TypeError(f"{type(thing).__qualname__} is neither a pool nor a connection of asyncpg")
    return thing


def _bound_pool(pool: Any, dependency: str, *, cap: bool) -> None:
    plain: Any = type(pool)

    class BoundedPool(plain):  # type: ignore[misc]
        """A pool whose waits end, and that gets everything back."""

        __slots__ = ()

        async def _get_new_connection(self) -> Any:
            """Cancel: as the pool's own."""
            connection = await plain._get_new_connection(self)
            guard(connection, dependency, cap=cap)
            return connection

        async def _acquire(self, timeout: float | None) -> Any:
            """Cancel: as the pool's own, which takes back what it was about to lend."""
            if not self._queue.empty():  # then what may take time is not the wait for others
                return await self._lend(timeout)
            with PoolWait(dependency):
                return await self._lend(timeout)

        async def _lend(self, timeout: float | None) -> Any:
            lent = None
            try:
                async with clamped(dependency):
                    lent = await plain._acquire(self, timeout)
            except BaseException:
                if lent is not None:  # in the very turn in which the time was over
                    await self.release(lent)
                raise
            return lent

        async def release(self, connection: Any, *, timeout: float | None = None) -> None:
            """Cancel: safe; the connection is back, or closed, before the cancellation is raised."""
            taken = connection._con
            protocol = None if taken is None else taken._protocol
            if not isinstance(protocol, Guard) or protocol.cut:
                if taken is not None and isinstance(protocol, Guard):
                    taken.terminate()  # the pool has its place back at once
                await plain.release(self, connection, timeout=timeout)
            else:
                await _give_back(plain.release(self, connection, timeout=timeout or CLEAN_UP), taken, protocol)

    pool.__class__ = BoundedPool
    for holder in pool._holders:
        if holder._con is not None:
            guard(holder._con, dependency, cap=cap)


async def _give_back(release: Any, connection: Any, guarding: Guard) -> None:
    guarding.giving_back = True
    try:
        await shielded(release, 2 * CLEAN_UP, "return to the pool")
        if guarding.cut:
            connection.terminate()
    except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        # It can't be put in order, so it is closed: the pool makes another one, and nobody else has to know.
        connection.terminate()
    finally:
        guarding.giving_back = False
        if guarding.cap is not None:
            guarding.cap.reset()
