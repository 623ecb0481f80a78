"""psycopg under SQLAlchemy: the server is told before a statement, by a statement of its own.

psycopg bounds its own clean-up since 3.3, so that is all it needs.
"""

from __future__ import annotations

from typing import Any, Final

from sojourn.clients.postgres import ASK, QUICK, SET_TRIES, Cap, word_of
from sojourn.scopes.deadline import remaining

__all__ = ["ended_by_server", "tell"]

#: Kept in the connection, so that it is forgotten with it.
_ATTRIBUTE: Final = "_sojourn_cap"
#: query_canceled, in appendix A of PostgreSQL's manual.
_CANCELED: Final = "57014"
#: libpq's PGTransactionStatusType.
_IDLE, _FAILED = 0, 3


def ended_by_server(error: BaseException | None) -> bool:
    """Whether an error is the server's word that it ended a statement before its end."""
    return getattr(error, "sqlstate", None) == _CANCELED


def tell(cursor: Any, statement: str) -> float | None:
    """Tell the server how long the next statement may take; called in a greenlet of SQLAlchemy's.

    Args:
        cursor: SQLAlchemy's, of an asynchronous connection of psycopg.
        statement: What comes next.

    Returns:
        When the server ends it with no more than so many seconds left, that is why. None: for another reason.
    """
    driver = cursor._connection
    cap: Cap | None = getattr(driver, _ATTRIBUTE, None)
    if cap is None:
        cap = Cap()
        setattr(driver, _ATTRIBUTE, cap)
    cap.boundary(statement)
    status = int(driver.info.transaction_status)
    if status == _IDLE:
        cap.boundary("COMMIT")  # or however the last one ended
    if status == _FAILED or word_of(statement) in QUICK:
        return None
    # Outside of one, psycopg begins a transaction with the first statement, also when that is a SET.
    inside = not driver.autocommit
    left = remaining()
    own = cursor._adapt_connection.cursor()
    try:
        if left is not None and cap.base is None:
            own.execute(ASK)
            cap.learn(own.fetchone()[0])
        setting = cap.setting(left, inside)
        if setting:
            _set(own, setting, inside)
    except BaseException:
        cap.unknown(inside)
        raise
    finally:
        own.close()
    return cap.judge(left, inside)


def _set(cursor: Any, setting: str, inside: bool) -> None:
    for left in reversed(range(SET_TRIES)):
        try:
            cursor.execute(setting)
            return
        except Exception as error:
            if inside or not left or not ended_by_server(error):
                raise
