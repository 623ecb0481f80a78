"""What PostgreSQL itself is told of a deadline: ``statement_timeout``, kept a little shorter than what is left.

So it is the server that ends a slow statement, and says so: the connection stays usable, and no work is left to run.
The client's own cut, which costs the connection, is left for the case that the server or the network says nothing.
"""

from __future__ import annotations

import math
from typing import Final

from sojourn.clock import NEVER

__all__ = ["ASK", "QUICK", "SET_TRIES", "Cap", "word_of"]

#: Which ``statement_timeout`` a session has without Sojourn, in milliseconds.
ASK: Final = "select reset_val from pg_catalog.pg_settings where name = 'statement_timeout'"
#: Commands that are over at once, and not worth a SET before them.
QUICK: Final = frozenset({"BEGIN", "START", "COMMIT", "END", "SAVEPOINT", "RELEASE", "ROLLBACK", "ABORT", "SET"})

#: How often a SET outside of a transaction is sent when the server ends it: what was in force before bounds it, and may
#: have been short. In a transaction, that is lost.
SET_TRIES: Final = 3

#: Seconds for the server's word to arrive before the client's own deadline.
_GAP: Final = 0.002
#: No timeout is shorter: it bounds the SET that comes next as well, on a server that may be busy. Who has less time
#: left is bounded by the client's own deadline.
_LEAST: Final = 0.01
#: That much shorter than what is left is the timeout, so that a few quick statements later it still fits.
_SHARE: Final = 0.1
_MOST: Final = 0.5
#: A timeout is used again while it is no shorter than this share of what is left.
_ENOUGH: Final = 0.8
#: A statement that the server ended after so large a share of its timeout was ended by that, and not by an operator.
_MOSTLY: Final = 0.75


def word_of(statement: str) -> str:
    """The command of a statement, in capitals.

    Example:
        >>> word_of("rollback to savepoint a"), word_of(" select 1")
        ('ROLLBACK', 'SELECT')
    """
    return statement[:40].split(None, 1)[0].rstrip(";").upper() if statement.strip() else ""


class Cap:
    """What a session's ``statement_timeout`` is, and what it should be.

    Pure: statements come out as text, and what was done is told.

    Attributes:
        base: Seconds that the session has without Sojourn; NEVER for none, None while nobody has asked.
    """

    __slots__ = ("_local", "_session", "base")

    def __init__(self) -> None:
        self.base: float | None = None
        #: What was set for the session, and for the transaction; None: nothing, NaN: something unknown.
        self._session: float | None = None
        self._local: float | None = None

    def learn(self, milliseconds: str) -> None:
        """Take note of the answer to :data:`ASK`."""
        self.base = int(milliseconds) / 1000 or NEVER

    def in_force(self, in_transaction: bool) -> float:
        """Seconds after which the server ends a statement; NEVER when it does not, NaN when that is unknown."""
        if in_transaction and self._local is not None:
            return self._local
        if self._session is not None:
            return self._session
        return NEVER if self.base is None else self.base

    def setting(self, left: float | None, in_transaction: bool) -> str:
        """What to send before a statement.

        Args:
            left: Seconds that are left for it; None without any limit.
            in_transaction: Whether the session is in a transaction.

        Returns:
            A SET statement, noted as done; "" when what is in force will do.
        """
        base = NEVER if self.base is None else self.base
        force = self.in_force(in_transaction)
        if left is None or base <= left - _GAP:
            if force == base:
                return ""
            wanted = base
        else:
            if _ENOUGH * left <= force <= left - _GAP:
                return ""
            wanted = min(base, max(_LEAST, left - max(_GAP, min(left * _SHARE, _MOST))))
        wanted = NEVER if wanted == NEVER else max(1, int(wanted * 1000)) / 1000
        if force == wanted:
            return ""
        if in_transaction:
            self._local = wanted
        else:
            self._session = wanted
        return self.again(in_transaction)

    def again(self, in_transaction: bool) -> str:
        """The SET statement for what is in force."""
        force = self.in_force(in_transaction)
        milliseconds = 0 if force == NEVER else round(force * 1000)
        return f"SET {'LOCAL ' if in_transaction else ''}statement_timeout = {milliseconds}"

    def judge(self, left: float | None, in_transaction: bool) -> float | None:
        """When the server ends a statement that is sent now, with no more than so many seconds left, that is why.

        Args:
            left: Seconds that are left as the statement is sent.
            in_transaction: Whether the session is in a transaction.

        Returns:
            None: it would be for another reason, such as a timeout of the session's own.
        """
        if left is None or not self.is_ours(in_transaction):
            return None
        # Its clock may have started with the step before, in which the statement was prepared.
        return left - self.in_force(in_transaction) * _MOSTLY

    def is_ours(self, in_transaction: bool) -> bool:
        """Whether what is in force was set here, and is shorter than what the session has without Sojourn."""
        return self.in_force(in_transaction) < (NEVER if self.base is None else self.base)

    def unknown(self, in_transaction: bool) -> None:
        """A SET may not have arrived."""
        if in_transaction:
            self._local = math.nan
        else:
            self._session = math.nan

    def boundary(self, statement: str) -> None:
        """A transaction begins or ends, or goes back to a savepoint, with what was set in it."""
        word = word_of(statement)
        if word == "ROLLBACK" and " TO " in f" {statement.upper()} ":
            self._local = math.nan
        elif word in ("BEGIN", "START", "COMMIT", "END", "ROLLBACK", "ABORT"):
            self._local = None

    def reset(self) -> None:
        """``RESET ALL`` was sent, or something like it."""
        self._local = None
        if self._session is not None:
            self._session = math.nan
