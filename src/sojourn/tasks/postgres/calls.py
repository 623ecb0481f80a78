"""The way to the server: bounded, sent again where that is right, and what goes wrong in the words of the contract."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import Context
from typing import Any, Final, TypeVar

from sojourn.errors import ConfigError, DeadlineExceeded, JournalUnavailable
from sojourn.scopes.budget import BUDGETS, budget
from sojourn.tasks.postgres import failures
from sojourn.tasks.postgres.pool import Lender
from sojourn.tasks.postgres.schema import prepare

__all__ = ["BUDGET", "SECONDS", "Calls"]

T = TypeVar("T")

#: What errors and ``deadlines.budgets`` call it, and seconds for one call without a word of that.
BUDGET: Final = "tasks"
SECONDS: Final = 5.0
#: How often a statement is sent that the server has undone, because another one was in its way.
_TRIES: Final = 4


class Calls:
    """Sends statements.

    Args:
        pool: Lends connections.
        schema: Where the tables are; they are made before the first statement.

    Attributes:
        context: For what runs beside: the operator's budgets, and nothing of who happened to call first.
    """

    __slots__ = ("_pool", "_ready", "_schema", "context")

    def __init__(self, pool: Lender, schema: str) -> None:
        self._pool = pool
        self._schema = schema
        self._ready = False
        self.context = Context()

    async def open(self) -> None:
        """Connect, and see to the tables.

        Raises:
            ConfigError: It can't be used as it is.
            JournalUnavailable: It can't be reached.

        Cancel: safe.
        """
        budgets = BUDGETS.get(None)
        if budgets is not None:
            self.context.run(BUDGETS.set, budgets)
        if not self._ready:
            await self._run(_nothing, repeat=True)

    async def fetch(self, statement: str, *values: Any, repeat: bool = True) -> Any:
        """The rows that a statement gives.

        Args:
            statement: What to send.
            values: Its parameters.
            repeat: Whether it is sent once more when the connection is lost, and nobody knows if it was done.

        Raises:
            JournalUnavailable: The server can't be reached, or can't do it.
            ValueError: A parameter is none.

        Cancel: safe; it may have been done.
        """

        async def act(connection: Any) -> Any:
            return await connection.fetch(statement, *values)

        try:
            return await self._run(act, repeat)
        except ConfigError as error:
            raise JournalUnavailable(str(error)) from error

    async def _run(self, act: Callable[[Any], Awaitable[T]], repeat: bool) -> T:
        try:
            async with budget(BUDGET, default=SECONDS):
                return await self._tries(act, repeat)
        except DeadlineExceeded as error:
            if error.deadline != BUDGET:
                raise
            self._pool.discard()
            raise JournalUnavailable(f"PostgreSQL has not answered in {error.seconds:g} s") from error

    async def _tries(self, act: Callable[[Any], Awaitable[T]], repeat: bool) -> T:
        tries, lost = 0, False
        while True:
            tries += 1
            there = False
            try:
                async with self._pool.lend(fresh=lost) as connection:
                    there = True
                    if not self._ready:
                        await prepare(connection, self._schema)
                        self._ready = True
                    return await act(connection)
            except failures.failures() as error:
                if failures.wrong(error):
                    raise ValueError(f"this can't be written down: {error}") from error
                if failures.unfit(error) and not self._ready:
                    raise ConfigError(f"durable tasks in PostgreSQL: {error}") from error
                if failures.gone(error):
                    self._pool.discard()
                    if lost or not repeat or not there:  # who can't connect can't a moment later
                        raise JournalUnavailable(failures.said(error)) from error
                    lost = True
                elif failures.missing(error) and tries < _TRIES:
                    self._ready = False  # another server than before, or an empty one
                elif not failures.again(error) or tries >= _TRIES:
                    raise JournalUnavailable(failures.said(error)) from error


async def _nothing(connection: Any) -> None:
    """There is a connection, and there are tables: that was all."""
