"""Making a connection of our own."""

from __future__ import annotations

import math
from typing import Any, Final

from sojourn.errors import ConfigError
from sojourn.scopes.budget import budget
from sojourn.tasks.postgres.failures import driver
from sojourn.tasks.postgres.statements import SETTINGS

__all__ = ["Connector"]

#: What PostgreSQL shows in ``pg_stat_activity``.
_NAME: Final = "sojourn tasks"


class Connector:
    """Connects when it is called, within the deadline around.

    Args:
        dsn: Where.
        seconds: For one call without a word of the configuration. The server is told to end what takes twice as long:
            nobody waits for it any more, and it may hold locks.
        prepared: Whether a session is ours alone: statements are prepared once, and settings are made.

    Raises:
        ConfigError: The package is missing; when it is called: the address is none.
    """

    __slots__ = ("_driver", "_dsn", "_prepared", "_seconds")

    def __init__(self, dsn: str, *, seconds: float, prepared: bool = True) -> None:
        try:
            self._driver = driver()
        except ImportError as error:
            raise ConfigError("tasks in PostgreSQL need the package asyncpg: install sojourn[asyncpg]") from error
        self._dsn = dsn
        self._seconds = seconds
        self._prepared = prepared

    async def __call__(self) -> Any:
        """Cancel: safe; what was opened is closed."""
        settings = {"application_name": _NAME}
        options: dict[str, Any] = {"statement_cache_size": 0}
        if self._prepared:
            seconds = min(budget("tasks", default=self._seconds).seconds, 3600.0)
            limit = str(math.ceil(2000 * seconds))
            # The first does not end who waits for a client that takes no answer, such as a process that is frozen: its
            # transaction stays open, with the locks of what it has claimed. The second does.
            settings |= {**SETTINGS, "statement_timeout": limit, "tcp_user_timeout": limit}
            options = {"max_cached_statement_lifetime": 0}
        try:
            return await self._driver.connect(self._dsn, timeout=3600.0, server_settings=settings, **options)
        except ValueError as error:
            raise ConfigError(f"no address of a PostgreSQL: {error}") from error
