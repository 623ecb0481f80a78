"""What stands in a connection of asyncpg in place of its protocol: every statement passes here."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Awaitable, Callable
from typing import Any, Final

import asyncpg  # type: ignore[import-untyped]

from sojourn.clients.clamp import clamped
from sojourn.clients.postgres import ASK, QUICK, SET_TRIES, Cap, word_of
from sojourn.errors import DeadlineExceeded
from sojourn.scopes.aborts import aborting
from sojourn.scopes.deadline import current_limit, exceeded, passed, remaining

__all__ = ["CLEAN_UP", "Guard", "guard"]

#: Seconds that a rollback, a return to the pool or a goodbye may take, whatever is left; then the socket is closed.
CLEAN_UP: Final = 1.0
#: Commands that end what was begun: sent when no time is left, too.
_ENDING: Final = frozenset({"ROLLBACK", "ABORT"})
#: Methods of a connection that take several steps: all of them within one budget.
_TOTALS: Final = (
    "executemany fetch fetchval fetchrow fetchmany copy_from_query copy_from_table copy_to_table copy_records_to_table"
).split()


class Guard:
    """Stands where a connection keeps its protocol: what is asked of the server goes through here.

    Args:
        connection: Whose.
        dependency: Name in ``deadlines.budgets`` and in errors.
        cap: Whether the server is told, by ``statement_timeout``.

    Attributes:
        cut: A statement was given up without the server's word: the connection is of no further use.
        giving_back: What is sent now puts the session in order for the next user.
    """

    def __init__(self, connection: Any, dependency: str, *, cap: bool) -> None:
        self._protocol = connection._protocol
        self._connection = weakref.ref(connection)
        self._dependency = dependency
        self.cap = Cap() if cap else None
        self.cut = False
        self.giving_back = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._protocol, name)

    def terminate(self) -> None:
        """Close the socket, and give the pool its place back."""
        connection = self._connection()
        if connection is not None:
            connection.terminate()

    # What asks the server. Arguments are those of asyncpg's own.

    async def query(self, query: str, timeout: float | None) -> Any:
        """Cancel: the connection is cut, when no time is left."""
        if self.giving_back or word_of(query) in _ENDING:
            return await self._ending(query)
        try:
            return await self._ask(self._protocol.query, query, query, timeout)
        except DeadlineExceeded:
            connection = self._connection()
            if connection is not None and word_of(query) == "BEGIN" and not self._protocol.is_in_transaction():
                # asyncpg takes note of a transaction before it begins, and would make the next one a savepoint in it.
                connection._top_xact = None
            raise

    async def prepare(self, stmt_name: str, query: str, timeout: Any, **options: Any) -> Any:
        """Cancel: the connection is cut, when no time is left."""
        # Not told which statement it is: none is run yet.
        return await self._ask(self._parse, "", stmt_name, query, timeout, **options)

    async def bind_execute(self, state: Any, *arguments: Any, **options: Any) -> Any:
        """Cancel: the connection is cut, when no time is left."""
        return await self._ask(self._protocol.bind_execute, state, state, *arguments, **options)

    async def bind_execute_many(self, state: Any, *arguments: Any, **options: Any) -> Any:
        """Cancel: the connection is cut, when no time is left."""
        return await self._ask(self._protocol.bind_execute_many, state, state, *arguments, **options)

    async def bind(self, state: Any, *arguments: Any, **options: Any) -> Any:
        """Cancel: the connection is cut, when no time is left."""
        return await self._ask(self._protocol.bind, state, state, *arguments, **options)

    async def execute(self, state: Any, *arguments: Any, **options: Any) -> Any:
        """Cancel: the connection is cut, when no time is left."""
        return await self._ask(self._protocol.execute, state, state, *arguments, **options)

    async def copy_in(self, copy_stmt: str, *arguments: Any, **options: Any) -> Any:
        """Cancel: the connection is cut, when no time is left."""
        return await self._ask(self._protocol.copy_in, copy_stmt, copy_stmt, *arguments, **options)

    async def copy_out(self, copy_stmt: str, *arguments: Any, **options: Any) -> Any:
        """Cancel: the connection is cut, when no time is left."""
        return await self._ask(self._protocol.copy_out, copy_stmt, copy_stmt, *arguments, **options)

    async def close(self, timeout: float | None) -> None:
        """Cancel: safe; the socket is closed."""
        if self.cut:
            self._protocol.abort()
        else:
            await self._protocol.close(CLEAN_UP if timeout is None else timeout)

    async def _ask(self, verb: Callable[..., Awaitable[Any]], what: Any, *arguments: Any, **options: Any) -> Any:
        """Ask the server, for as long as there is time. ``what`` is a statement's text, or one that was prepared."""
        if self.cut:
            raise asyncpg.InterfaceError("this connection was cut when a deadline passed; take another one")
        statement = what if isinstance(what, str) else what.query
        word = word_of(statement)
        async with clamped(self._dependency):  # raises when no time is left
            with aborting(self.terminate):
                ours = None
                try:
                    if self.cap is not None and word not in QUICK:
                        ours = await self._tell(self.cap, what)
                    answer = await verb(*arguments, **options)
                except asyncio.CancelledError:
                    if passed(current_limit()):
                        # The server had its time and the way back to say that it ended the statement.
                        self.cut = True
                    raise
                except asyncpg.QueryCanceledError as error:
                    limit = current_limit()
                    left = remaining()
                    if limit is not None and left is not None and left <= (ours or 0.0):
                        raise exceeded(limit) from error
                    raise
                finally:
                    if self.cap is not None:
                        self.cap.boundary(statement)
                return answer

    async def _tell(self, cap: Cap, what: Any) -> float | None:
        """Tell the server how long the next statement may take.

        Returns:
            When it ends the statement with no more than so many seconds left, that is why. None: for another reason.
        """
        left = remaining()
        inside = self._protocol.is_in_transaction()
        if left is not None and cap.base is None:
            self._crowd_out(what)
            state = await self._protocol.prepare("", ASK, None, record_class=asyncpg.Record)
            state._init_codecs()
            rows = await self._protocol.bind_execute(state, (), "", 1, False, None)
            cap.learn(rows[0][0])
        setting = cap.setting(left, inside)
        if setting:
            self._crowd_out(what)
            await self._set(cap, setting, inside)
        return cap.judge(left, inside)

    async def _set(self, cap: Cap, setting: str, inside: bool) -> None:
        for left in reversed(range(SET_TRIES)):
            try:
                await self._protocol.query(setting, None)
                return
            except BaseException as error:
                if isinstance(error, asyncpg.QueryCanceledError) and left and not inside:
                    continue
                cap.unknown(inside)
                raise

    async def _parse(self, stmt_name: str, query: str, timeout: Any, **options: Any) -> Any:
        state = await self._protocol.prepare(stmt_name, query, timeout, **options)
        cap, inside = self.cap, self._protocol.is_in_transaction()
        if stmt_name and cap is not None and cap.is_ours(inside):
            # asyncpg leaves the server waiting for what comes next, with its clock running, and whoever has prepared a
            # statement may use it much later. After a SET the clock stands.
            await self._set(cap, cap.again(inside), inside)
        return state

    @staticmethod
    def _crowd_out(what: Any) -> None:
        """The server has room for one statement without a name, and another takes it: this one is sent again."""
        if not isinstance(what, str) and not what.name:
            what.mark_unprepared()

    async def _ending(self, query: str) -> Any:
        """Put in order what was begun. Without the server's word in time the connection is cut, which does it, too."""
        if self.cut:
            return word_of(query)
        try:
            answer = await self._protocol.query(query, CLEAN_UP)
        except (TimeoutError, asyncpg.QueryCanceledError):
            self.cut = True
            return word_of(query)
        except asyncio.CancelledError:
            self.cut = True
            raise
        if self.cap is not None:
            self.cap.boundary(query)
        return answer


def guard(connection: Any, dependency: str, *, cap: bool = True) -> Guard:
    """Put a guard into a connection; one that has one keeps it."""
    protocol = connection._protocol
    if isinstance(protocol, Guard):
        return protocol
    guarding = connection._protocol = Guard(connection, dependency, cap=cap)
    connection.__class__ = _bounded_connection(type(connection), dependency)
    return guarding


def _bounded_connection(plain: Any, dependency: str) -> Any:
    def total(name: str) -> Callable[..., Awaitable[Any]]:
        method = getattr(plain, name)

        async def call(self: Any, *arguments: Any, **options: Any) -> Any:
            """Cancel: as the connection's own."""
            async with clamped(dependency):
                return await method(self, *arguments, **options)

        call.__name__, call.__doc__ = name, method.__doc__
        return call

    # A layout like that of the plain one: without it the class of an object can't be changed.
    body = {"__slots__": (), **{name: total(name) for name in _TOTALS}}
    return type(plain)(plain.__name__, (plain,), body)
