"""SQLAlchemy's asynchronous engines: statements and waits for the pool take no longer than they may.

An engine's pool and dialect are its own, so they are where it is bounded. Under asyncpg every connection has a guard
(``asyncpg_guard.py``): the server is told, and rollbacks are bounded. For psycopg there is ``psycopg_cap.py``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine
from contextlib import nullcontext
from typing import Any, Final, TypeVar

import sqlalchemy.event
from sqlalchemy.ext.asyncio import AsyncEngine

from sojourn.clients.clamp import PoolWait, clamped
from sojourn.clients.psycopg_cap import ended_by_server, tell
from sojourn.errors import DeadlineExceeded
from sojourn.scopes.deadline import Deadline, current_limit, exceeded, remaining

__all__ = ["bounded"]

T = TypeVar("T")

_STATEMENTS: Final = ("do_execute", "do_executemany", "do_execute_no_params")


def _now(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never waits, such as entering a deadline, where there is no ``await``: in a greenlet."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    coroutine.close()
    raise RuntimeError("it waited")


class _Within:
    """A deadline for code in a greenlet of SQLAlchemy's."""

    __slots__ = ("_scope",)

    def __init__(self, scope: Deadline) -> None:
        self._scope = scope

    def __enter__(self) -> None:
        _now(self._scope.__aenter__())

    def __exit__(self, *error: Any) -> None:
        _now(self._scope.__aexit__(*error))


def bounded(engine: AsyncEngine, dependency: str = "database", *, statement_timeout: bool = True) -> AsyncEngine:
    """Bound the statements of an engine by the ambient deadline and the budget of a dependency.

    Under asyncpg and psycopg, PostgreSQL is told by ``statement_timeout``, see :func:`sojourn.clients.asyncpg.bounded`.
    Whatever was cut leaves its connection closed, not in the pool; under psycopg, with a server that says nothing,
    half a second after the deadline. Under other drivers a statement is given up at the deadline, and SQLAlchemy closes
    its connection.

    Args:
        engine: What ``create_async_engine`` has made; it is changed.
        dependency: Name in ``deadlines.budgets`` of the configuration, in errors, and of the pool. The budget is for
            each wait: for a connection, for a statement.
        statement_timeout: False: the server is not told. For poolers that share sessions between clients outside of
            transactions.

    Returns:
        The engine. What it does raises DeadlineExceeded when no time is left, and nothing is sent then, or when the
        answer was not here in time; and PoolWaitExceeded when no connection became free in time.

    Raises:
        TypeError: It is no asynchronous engine.

    Example:
        >>> import sojourn
        >>> from sqlalchemy import text
        >>> async def orders(engine):
        ...     async with sojourn.deadline(0.3, "orders"), engine.connect() as connection:
        ...         return (await connection.execute(text("select * from orders"))).all()
    """
    if not isinstance(engine, AsyncEngine):
        raise TypeError(f"{type(engine).__qualname__} is no asynchronous engine of SQLAlchemy")
    inner: Any = engine.sync_engine
    for name in _STATEMENTS:
        setattr(inner.dialect, name, _total(getattr(inner.dialect, name), dependency, cap=statement_timeout))
    inner.pool.__class__ = _bounded_pool(type(inner.pool), dependency)

    def guarded(connection: Any, record: Any, fairy: Any = None) -> None:
        driver = getattr(connection, "driver_connection", None)
        if type(driver).__module__.partition(".")[0] == "asyncpg":
            from sojourn.clients.asyncpg_guard import guard

            guard(driver, dependency, cap=statement_timeout)

    def returned(connection: Any, record: Any) -> None:
        driver = getattr(connection, "driver_connection", None)
        if getattr(getattr(driver, "_protocol", None), "cut", False):
            record.invalidate()

    def failed(context: Any) -> None:
        # SQLAlchemy closes connections after any TimeoutError. After the server's own word they are sound.
        error = context.original_exception
        if isinstance(error, DeadlineExceeded) and (ended_by_server(error.__cause__) or _is_sound(context.connection)):
            context.is_disconnect = False

    listeners: dict[str, Callable[..., None]] = {"connect": guarded, "checkout": guarded, "checkin": returned}
    for word, listener in {**listeners, "handle_error": failed}.items():
        sqlalchemy.event.listen(inner, word, listener)
    return engine


def _is_sound(connection: Any) -> bool:
    """Whether a connection has a guard, and was not cut."""
    if connection is None or connection.invalidated or connection.closed:
        return False
    driver = connection.connection.driver_connection
    return getattr(getattr(driver, "_protocol", None), "cut", True) is False


def _total(execute: Callable[..., Any], dependency: str, *, cap: bool) -> Callable[..., Any]:
    @functools.wraps(execute)
    def bounded_execute(cursor: Any, statement: str, *arguments: Any) -> Any:
        with _Within(clamped(dependency)):
            if not (cap and _driver_of(cursor) == "psycopg"):
                return execute(cursor, statement, *arguments)
            ours = None
            try:
                ours = tell(cursor, statement)
                return execute(cursor, statement, *arguments)
            except Exception as error:
                limit = current_limit()
                if limit is not None and ended_by_server(error) and (remaining() or 0.0) <= (ours or 0.0):
                    raise exceeded(limit) from error
                raise

    return bounded_execute


def _driver_of(cursor: Any) -> str:
    """The library behind a cursor."""
    return type(getattr(cursor, "_connection", None)).__module__.partition(".")[0]


def _bounded_pool(plain: Any, dependency: str) -> Any:
    class BoundedPool(plain):  # type: ignore[misc]
        """A pool whose waits end. Its ``recreate`` makes one of this class again."""

        def _do_get(self) -> Any:
            lent = None
            waiting = PoolWait(dependency) if _is_full(self) else nullcontext()
            try:
                with waiting, _Within(clamped(dependency)):
                    try:
                        lent = plain._do_get(self)
                    except Exception as error:
                        # A dialect's own questions to a new connection stand under the time that its first was given.
                        limit = current_limit()
                        if limit is not None and ended_by_server(getattr(error, "orig", error)):
                            raise exceeded(limit) from error
                        raise
            except BaseException:
                if lent is not None:  # in the very turn in which the time was over
                    self._do_return_conn(lent)
                raise
            return lent

    BoundedPool.__name__ = BoundedPool.__qualname__ = plain.__name__
    return BoundedPool


def _is_full(pool: Any) -> bool:
    """Whether a wait is for others to give a connection back."""
    checkedout, size = getattr(pool, "checkedout", None), getattr(pool, "size", None)
    if checkedout is None or size is None:
        return False
    most = getattr(pool, "_max_overflow", 0)
    return most >= 0 and bool(checkedout() >= size() + most)
