"""What counts the leases of a pool that its users don't count themselves: :func:`watch` knows which adapter fits."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, Final

__all__ = ["watch"]

#: Top-level package of the pool's class, or of one of its bases -> adapter.
_ADAPTERS: Final = {
    "sqlalchemy": "sojourn.observe.leaks.adapters.sqlalchemy",
    "asyncpg": "sojourn.observe.leaks.adapters.asyncpg",
    "redis": "sojourn.observe.leaks.adapters.redis",
    "httpx": "sojourn.observe.leaks.adapters.httpx",
}


def watch(pool: Any, name: str = "", *, patience: float | None = 0.0) -> Callable[[], None]:
    """Count what is taken from a pool, so that a report names who does not give it back.

    Call it where the pool is made. Only what requests, and tasks and threads in their context, take while a Sojourn
    server serves is counted.

    Args:
        pool: A SQLAlchemy ``Engine``, ``AsyncEngine`` or ``Pool``; an asyncpg ``Pool``; a ``redis.asyncio`` client or
            connection pool; an ``httpx.AsyncClient`` or ``Client``, of which an answer that is not closed is a lease.
        name: Name of the pool in reports and metrics; the library's name when empty.
        patience: Seconds after which a lease is overdue; 0 takes ``diagnostics.lease_held``, None never.

    Returns:
        A function that ends the watching; calling it twice does nothing.

    Raises:
        TypeError: It is none of these. Use :func:`sojourn.lease` for pools of other kinds.

    Example:
        >>> import httpx
        >>> client = httpx.AsyncClient()
        >>> forget = watch(client, name="upstream")
        >>> forget()
    """
    for base in type(pool).__mro__:
        library = base.__module__.partition(".")[0]
        if library in _ADAPTERS:
            adapter = importlib.import_module(_ADAPTERS[library])
            forget: Callable[[], None] = adapter.watch(pool, name or library, patience)
            return forget
    raise TypeError(f"{type(pool).__qualname__} is no pool that can be watched; use sojourn.lease")
