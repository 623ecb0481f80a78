"""What is used of the package ``redis``, imported when it is needed."""

from __future__ import annotations

from typing import Any

from sojourn.errors import ConfigError

__all__ = ["connected", "cut", "failures", "unknown_script"]


def connected(redis: Any) -> tuple[Any, bool]:
    """The client for an address, or the one that was given; and whether it is ours to close.

    Raises:
        ConfigError: The URL is none, or the package ``redis`` is missing.
    """
    if not isinstance(redis, str):
        return redis, False
    try:
        from redis.asyncio import ConnectionPool, Redis
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff
    except ImportError as error:
        raise ConfigError("a hub in Redis needs the package redis: install sojourn[redis]") from error
    try:
        # Waits are bounded, tries counted and connections limited by who asks. (The pool that blocks is not taken: in
        # 5.0.1 it waits for itself when a connection can't be made.)
        pool = ConnectionPool.from_url(
            redis,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=None,
            socket_connect_timeout=None,
            protocol=2,
        )
    except ValueError as error:
        raise ConfigError(f"no URL of a Redis: {error}") from error
    return Redis.from_pool(pool), True


def failures() -> tuple[type[BaseException], ...]:
    """What a Redis that is away or wrong is known by."""
    from redis.exceptions import RedisError

    return (RedisError, OSError)


def cut() -> tuple[type[BaseException], ...]:
    """What a connection that broke is known by, or one on which no answer came in the client's own time."""
    from redis.exceptions import ConnectionError as Cut
    from redis.exceptions import TimeoutError as Late

    return (Cut, Late, OSError)


def unknown_script() -> type[BaseException]:
    """What a Redis says that does not know a script."""
    from redis.exceptions import NoScriptError

    return NoScriptError
