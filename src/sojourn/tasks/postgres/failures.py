"""What the errors of asyncpg and PostgreSQL mean for a call: send it again, or say that the journal is away."""

from __future__ import annotations

from functools import cache
from typing import Any, Final

__all__ = ["again", "driver", "failures", "gone", "missing", "said", "unfit", "wrong"]

#: Two transactions were in each other's way, and this one was undone: it may be sent again at once.
_AGAIN: Final = frozenset({"40001", "40P01"})
#: The server is not what it was, or ends: other connections to it are of no use either. Read-only: it is a standby now.
_APART: Final = frozenset({"25006", "57P01", "57P02", "57P03", "57P05"})
#: There are no tables, or no schema.
_MISSING: Final = frozenset({"42P01", "3F000"})
#: It is there, and can't be used as it is, however often it is asked: no such user, password, database; no right.
_UNFIT: Final = frozenset({"28000", "28P01", "3D000"})


def driver() -> Any:
    """The package asyncpg.

    Raises:
        ImportError: It is missing.
    """
    import asyncpg  # type: ignore[import-untyped]

    return asyncpg


@cache
def failures() -> tuple[type[Exception], ...]:
    """What a PostgreSQL that is away or wrong is known by."""
    asyncpg = driver()
    return (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, EOFError)


def _state(error: BaseException) -> str:
    return getattr(error, "sqlstate", None) or ""


def again(error: BaseException) -> bool:
    """Whether the statement was undone, and may be sent again."""
    return _state(error) in _AGAIN


def unfit(error: BaseException) -> bool:
    """Whether it is the configuration that is wrong."""
    return _state(error) in _UNFIT


def missing(error: BaseException) -> bool:
    """Whether the tables are not there."""
    return _state(error) in _MISSING


def wrong(error: BaseException) -> bool:
    """Whether it is what was asked: a value that is none, or is longer than a key can be."""
    return isinstance(error, ValueError) or _state(error)[:2] == "22" or _state(error) == "54000"


def gone(error: BaseException) -> bool:
    """Whether the connection is lost: whether what was sent was done is not known."""
    asyncpg = driver()
    if isinstance(error, asyncpg.PostgresError):
        return _state(error).startswith("08") or _state(error) in _APART
    return isinstance(error, (asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, EOFError))


def said(error: BaseException) -> str:
    """For people: what went wrong."""
    text = " ".join(str(error).split())
    return f"PostgreSQL: {text or type(error).__name__}"
