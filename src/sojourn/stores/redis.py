"""What is used of the package ``redis``, imported when it is needed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from sojourn.errors import ConfigError

__all__ = ["Scripts", "asked", "connected", "cut", "failures", "forbidden", "read_only", "refusal", "unknown_script"]


def connected(redis: Any, what: str, connections: int | None = None) -> tuple[Any, bool]:
    """The client for an address, or the one that was given; and whether it is ours to close.

    It waits without a limit and sends nothing twice: waits are bounded, and tries counted, by who asks.

    Args:
        redis: A ``redis.asyncio.Redis``, or a URL.
        what: Who needs it, and "needs" or "need", for the error.
        connections: At most so many, and who finds none free waits for one; None for as many as are asked for.

    Raises:
        ConfigError: The URL is none, or the package ``redis`` is missing.
    """
    if not isinstance(redis, str):
        return redis, False
    try:
        from redis.asyncio import BlockingConnectionPool, ConnectionPool, Redis
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff
    except ImportError as error:
        raise ConfigError(f"{what} the package redis: install sojourn[redis]") from error
    options: dict[str, Any] = {"retry": Retry(NoBackoff(), 0), "socket_timeout": None, "socket_connect_timeout": None}
    pool: Any
    try:
        if connections is None:
            # Not the pool that blocks: in 5.0.1 it waits for itself when a connection can't be made.
            pool = ConnectionPool.from_url(redis, protocol=2, **options)
        else:
            pool = BlockingConnectionPool.from_url(redis, max_connections=connections, timeout=None, **options)
    except ValueError as error:
        raise ConfigError(f"no URL of a Redis: {error}") from error
    return Redis.from_pool(pool), True


def failures() -> tuple[type[Exception], ...]:
    """What a Redis that is away or wrong is known by."""
    from redis.exceptions import RedisError

    return (RedisError, OSError)


def cut() -> tuple[type[Exception], ...]:
    """What a connection that broke is known by, or one on which no answer came in the client's own time."""
    from redis.exceptions import ConnectionError as Cut
    from redis.exceptions import TimeoutError as Late

    return (Cut, Late, OSError)


def unknown_script() -> type[Exception]:
    """What a Redis says that does not know a script."""
    from redis.exceptions import NoScriptError

    return NoScriptError


def forbidden() -> tuple[type[Exception], ...]:
    """What a Redis says to whom it does not know, or who may not do what was asked."""
    from redis.exceptions import AuthenticationError, NoPermissionError

    return (AuthenticationError, NoPermissionError)


def read_only() -> type[Exception]:
    """What a replica says to who would change something."""
    from redis.exceptions import ReadOnlyError

    return ReadOnlyError


def refusal(text: str) -> Exception:
    """What the client would raise for an error that Redis has answered: one of :func:`failures`."""
    from redis import exceptions

    code, _, rest = text.partition(" ")
    known: dict[str, type[Exception]] = {
        "LOADING": exceptions.BusyLoadingError,
        "MASTERDOWN": exceptions.MasterDownError,
        "NOAUTH": exceptions.AuthenticationError,
        "NOPERM": exceptions.NoPermissionError,
        "NOSCRIPT": exceptions.NoScriptError,
        "OOM": exceptions.OutOfMemoryError,
        "READONLY": exceptions.ReadOnlyError,
    }
    return known[code](rest) if code in known else exceptions.ResponseError(text)


async def asked(client: Any, command: str, *arguments: Any) -> Any:
    """What Redis answers to a command, as bytes, whatever the client decodes else.

    Raises:
        Exception: One of :func:`failures`.

    Cancel: safe; it may have been done.
    """
    try:
        return await client.execute_command(command, *arguments, NEVER_DECODE=True)
    except RuntimeError as error:
        # What uvloop says of a connection that was reset while nobody used it; the client passes it on.
        raise ConnectionError(str(error)) from error


class Scripts:
    """Runs scripts by their hash; a Redis that does not know one is sent the whole.

    Args:
        client: A ``redis.asyncio.Redis``.
    """

    __slots__ = ("_client", "_known")

    def __init__(self, client: Any) -> None:
        self._client = client
        #: Hashes by text, of those that this client has sent.
        self._known: dict[str, str] = {}

    async def run(self, script: str, keys: Sequence[Any], *values: Any) -> Any:
        """Run a script.

        Args:
            script: Its text.
            keys: Its keys.
            values: Its arguments.

        Raises:
            Exception: One of :func:`failures`.

        Cancel: safe; it may have been run.
        """
        if (sha := self._known.get(script)) is not None:
            try:
                return await asked(self._client, "EVALSHA", sha, len(keys), *keys, *values)
            except unknown_script():
                pass  # Redis was restarted, or is another one now: the whole script brings it back
        answer = await asked(self._client, "EVAL", script, len(keys), *keys, *values)
        self._known[script] = hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
        return answer

    async def replicated(
        self, script: str, keys: Sequence[Any], *values: Any, replicas: int, within: float
    ) -> tuple[Any, int]:
        """Run a script that writes, and wait for replicas: in one round trip, as ``WAIT`` is about one connection.

        Args:
            script: Its text.
            keys: Its keys.
            values: Its arguments.
            replicas: How many of them are to have it.
            within: Seconds to wait for that.

        Returns:
            What it answers, and how many replicas have it by now.

        Raises:
            Exception: One of :func:`failures`.

        Cancel: safe; it may have been run.
        """
        sha = self._known.get(script)
        while True:
            command, text = ("EVAL", script) if sha is None else ("EVALSHA", sha)
            async with self._client.pipeline(transaction=False) as pipe:
                pipe.execute_command(command, text, len(keys), *keys, *values, NEVER_DECODE=True)
                pipe.execute_command("WAIT", replicas, max(1, round(within * 1000)))
                try:
                    answer, there = await pipe.execute(raise_on_error=False)
                except RuntimeError as error:
                    raise ConnectionError(str(error)) from error
            if sha is not None and isinstance(answer, unknown_script()):
                sha = None
                continue
            for each in (answer, there):
                if isinstance(each, Exception):
                    raise each
            self._known[script] = sha or hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
            return answer, int(there)
