"""The file, as one thread uses it: transactions for calls that wait together, and what to do when one fails."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any, Final

from sojourn.clock import Clock
from sojourn.errors import SojournError
from sojourn.stores.sqlite import is_busy, when_free
from sojourn.tasks.sqlite.schema import connect, make_room, prepare, translated
from sojourn.tasks.sqlite.turn import Turn
from sojourn.tasks.sqlite.worker import Call

__all__ = ["File"]

#: Seconds to wait for other processes that write.
_BUSY: Final = 2.0
#: Bytes of the log before the file above which it is emptied by force.
_LOG: Final = 128 << 20
#: Transactions that have reached the disk after which a connection is in earnest, and gets room.
_EARNEST: Final = 10


class File:
    """One connection, which is made anew when it was lost. All is called in one thread at a time.

    Args:
        path: Of the file.
        clock: The time that is written down.
        boot: Names this boot of the machine.
        writes: Whether transactions write; those that do not see one state of the file.
        told: Called after a transaction that has written.
    """

    def __init__(
        self, path: str, clock: Clock, boot: str, writes: bool, told: Callable[[Turn], None] | None = None
    ) -> None:
        self._path = path
        self._clock = clock
        self._boot = boot
        self._writes = writes
        self._told = told
        self._connection: sqlite3.Connection | None = None
        self._place: tuple[int, int] = (0, 0)
        self._durable = True
        self._flushed = 0

    def perform(self, calls: Sequence[Call]) -> None:
        """Do calls: those that follow each other in one transaction."""
        together: list[Call] = []
        for call in calls:
            if call.durable is None:
                self._do(together)
                together = []
                self._plainly(call)
            else:
                together.append(call)
        self._do(together)

    def open(self) -> None:
        """Make the connection, if there is none.

        Raises:
            ConfigError: The file is not for this.
            JournalUnavailable: It can't be used at present.
        """
        try:
            self._opened()
        except (sqlite3.Error, OSError) as error:
            raise self._failed(error) from error

    def close(self) -> None:
        """Give the connection back."""
        if self._connection is not None:
            connection, self._connection = self._connection, None
            connection.close()

    def tidy(self) -> None:
        """Empty the log before the file, if those who read have kept it from that for too long."""
        try:
            if self._connection is not None and os.stat(f"{self._path}-wal").st_size > _LOG:
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        except (sqlite3.Error, OSError):
            return  # the next call says what is wrong

    def run(self, function: Callable[..., Any], *args: Any) -> Any:
        """Do one thing in a transaction of its own.

        Raises:
            JournalUnavailable: The file can't be used.
        """
        try:
            (result,) = self._transaction([(function, args)], durable=False)
        except (sqlite3.Error, OSError) as error:
            raise self._failed(error) from error
        return result

    def _plainly(self, call: Call) -> None:
        try:
            call.result = call.function(*call.args)
        except Exception as error:  # noqa: BLE001 - it is raised to who waits
            call.error = error

    def _do(self, calls: Sequence[Call]) -> None:
        """Do calls in one transaction; when that fails, each in its own, so that one at fault fails alone."""
        if calls and all(call.first is not None for call in calls):
            calls = self._unanswered(calls)
        if not calls:
            return
        try:
            durable = any(call.durable for call in calls)
            results = self._transaction([(call.function, call.args) for call in calls], durable)
        except Exception as error:  # noqa: BLE001 - it is raised to who waits
            raised = self._failed(error) if isinstance(error, sqlite3.Error | OSError) else error
            if len(calls) > 1 and not _of_all(error):
                for call in calls:
                    self._do((call,))
                return
            for call in calls:
                call.error = raised
        else:
            for call, result in zip(calls, results, strict=True):
                call.result = result

    def _unanswered(self, calls: Sequence[Call]) -> list[Call]:
        """Answer what can be answered by reading. Returns the rest."""
        left = []
        try:
            connection = self._opened()
            connection.execute("BEGIN")
            turn = Turn(connection, self._clock.wall(), self._clock.monotonic())
            for call in calls:
                assert call.first is not None
                call.result = call.first(turn, *call.args)
                if call.result is None:
                    left.append(call)
            connection.execute("COMMIT")
        except Exception:  # noqa: BLE001 - who writes meets it as well, and says what is wrong
            if self._connection is not None and self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            return list(calls)
        return left

    def _transaction(self, steps: Sequence[tuple[Callable[..., Any], tuple[Any, ...]]], durable: bool) -> list[Any]:
        connection = self._opened()
        if not self._writes:
            connection.execute("BEGIN")
        else:
            if durable != self._durable:
                connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
                self._durable = durable
            # IMMEDIATE: one that begins by reading could not write once another process has, and would fail.
            when_free(lambda: connection.execute("BEGIN IMMEDIATE"), _BUSY)
        try:
            turn = Turn(connection, self._clock.wall(), self._clock.monotonic())
            results = [function(turn, *args) for function, args in steps]
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        if self._told is not None:
            self._told(turn)
        if durable and self._flushed < _EARNEST:
            self._flushed += 1
            if self._flushed == _EARNEST:
                make_room(connection, self._path)
        return results

    def _opened(self) -> sqlite3.Connection:
        if self._connection is not None:
            found = os.stat(self._path)
            if (found.st_dev, found.st_ino) == self._place:
                return self._connection
            self.close()  # another file has its name: what is written to the old one would be lost
        connection = connect(self._path)
        try:
            prepare(connection, self._boot)
            connection.execute(f"PRAGMA busy_timeout = {0 if self._writes else 1000}").fetchall()
            found = os.stat(self._path)
        except BaseException:
            connection.close()
            raise
        self._place = found.st_dev, found.st_ino
        self._connection, self._durable, self._flushed = connection, True, 0
        return connection

    def _failed(self, error: sqlite3.Error | OSError) -> Exception:
        """What to raise; a connection that may be no good is given back."""
        raised, good = translated(error, self._path)
        if not good:
            try:
                self.close()
            except sqlite3.Error:
                self._connection = None
        return raised


def _of_all(error: Exception) -> bool:
    """Whether it meets each call of a batch: nobody can write, or open the file."""
    return isinstance(error, OSError | SojournError) or (isinstance(error, sqlite3.Error) and is_busy(error))
