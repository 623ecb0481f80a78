"""Sessions in Redis or Valkey, for all workers of all hosts."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Collection, Sequence
from typing import Any, Final

import msgspec

from sojourn.errors import DeadlineExceeded, SessionStoreUnavailable
from sojourn.scopes.budget import budget
from sojourn.sessions import scripts
from sojourn.sessions.store import Watcher
from sojourn.sessions.stored import GRACE, Draft, Revocation, Saved, Stored
from sojourn.stores.redis import Scripts, connected, failures

__all__ = ["RedisSessions"]

#: What errors and ``deadlines.budgets`` call it, and seconds for one call without a word of that.
BUDGET: Final = "sessions"
SECONDS: Final = 0.5
#: Connections; who finds none free waits for one within the budget.
_CONNECTIONS: Final = 16
#: Seconds of quiet after which a subscription asks whether Redis is there, and seconds for the answer.
_QUIET: Final = 5.0
_PONG: Final = 2.0
#: Seconds before it is tried again, at most.
_AGAIN: Final = 1.0


class RedisSessions:
    """Sessions in Redis or Valkey (the extra ``redis``): they outlive the process, and all nodes share them.

    Each call is one script, by the clock of Redis, and has half a second, or what ``deadlines.budgets`` says for
    ``sessions``. Nothing is sent twice. Revocations are published; a subscription that is quiet is asked for a sign of
    life, and after each loss all that is open is looked up again. Nothing evicts sessions but their expiry: give Redis
    the policy ``noeviction``, and persistence if logins are to outlive its restart.

    Args:
        redis: A ``redis.asyncio.Redis``, which stays yours, or a URL such as ``redis://localhost:6379/0``.
        prefix: Begins all keys. The braces put them in one slot of a Redis Cluster, as a script needs it.

    Raises:
        ConfigError: The URL is none, or the package ``redis`` is missing.

    Example:
        >>> async def app(scope, receive, send): ...
        >>> app = Sessions(app, RedisSessions("redis://localhost:6379/0"))
    """

    def __init__(self, redis: Any, *, prefix: str = "{sojourn:session}:") -> None:
        self._url = redis if isinstance(redis, str) else ""
        self._prefix = prefix
        self._connect(redis)

    async def load(self, key: str) -> Stored | None:
        """See SessionStore."""
        found = await self._run(scripts.LOAD, key)
        return _stored(found) if found else None

    async def create(self, key: str, draft: Draft) -> Stored:
        """See SessionStore."""
        user, data, idle, absolute = draft
        return _stored(await self._run(scripts.CREATE, key, user, data, repr(idle), repr(absolute)))

    async def save(self, key: str, version: int, data: bytes) -> Saved:
        """See SessionStore."""
        return _saved(await self._run(scripts.SAVE, key, version, data))

    async def rotate(self, key: str, version: int, new: str, draft: Draft) -> Saved:
        """See SessionStore."""
        told = [msgspec.json.encode(Revocation(what, key)) for what in ("rotated", "session")]
        user, data, idle, absolute = draft
        values = (user, data, repr(idle), repr(absolute), repr(GRACE), *told)
        return _saved(await self._run(scripts.ROTATE, key, version, new, *values))

    async def touch(self, keys: Collection[str]) -> set[str]:
        """See SessionStore."""
        return {key.decode() for key in await self._run(scripts.TOUCH, *keys)}

    async def revoke(self, revocation: Revocation) -> None:
        """See SessionStore."""
        await self._run(scripts.REVOKE, *revocation, msgspec.json.encode(revocation))

    async def of(self, user: str) -> Sequence[Stored]:
        """See SessionStore."""
        found = map(_stored, await self._run(scripts.OF, user)) if user else ()
        return sorted(found, key=lambda stored: stored.created)

    async def watch(self, watcher: Watcher) -> None:
        """See SessionStore."""
        while True:
            pubsub = self._client.pubsub()
            try:
                await self._listen(pubsub, watcher)
            except DeadlineExceeded:
                watcher.away()
            except failures():
                watcher.away()
            finally:
                await pubsub.aclose()
            waiter = asyncio.get_running_loop().create_future()
            await asyncio.wait((waiter,), timeout=random.uniform(0.1, _AGAIN))

    async def aclose(self) -> None:
        """See SessionStore. Closes only connections that it opened itself."""
        if self._url:
            client = self._client
            self._connect(self._url)
            await client.aclose()

    def _connect(self, redis: Any) -> None:
        self._client, _ = connected(redis, "sessions in Redis need", _CONNECTIONS)
        self._scripts = Scripts(self._client)

    async def _listen(self, pubsub: Any, watcher: Watcher) -> None:
        """Until something is wrong with the subscription."""
        async with budget(BUDGET, default=SECONDS):
            await pubsub.subscribe(self._prefix + "revoked")
        asked = False
        while True:
            message = await pubsub.get_message(timeout=_PONG if asked else _QUIET)
            if message is None:
                if asked:
                    raise ConnectionError("Redis does not answer a ping")
                asked = True
                async with budget(BUDGET, default=SECONDS):
                    await pubsub.ping()
                continue
            asked = False
            if message["type"] == "subscribe":  # the first time, or because the client has connected anew by itself
                watcher.missed()
            elif message["type"] == "message" and (revocation := _revocation(message["data"])) is not None:
                watcher.revoked(revocation)

    async def _run(self, script: str, *values: Any) -> Any:
        try:
            async with budget(BUDGET, default=SECONDS):
                # This key names the slot; others of a session are made from the prefix, so they are in the same.
                return await self._scripts.run(script, (self._prefix + "epoch",), self._prefix, *values)
        except DeadlineExceeded as error:
            if error.deadline != BUDGET:
                raise
            raise SessionStoreUnavailable(f"Redis has not answered in {error.seconds:g} s") from error
        except failures() as error:
            raise SessionStoreUnavailable(f"{type(error).__name__}: {error}") from error


def _revocation(data: Any) -> Revocation | None:
    """What a message says; None when it is not ours."""
    try:
        return msgspec.json.decode(data, type=Revocation)
    except msgspec.DecodeError:
        return None


def _stored(row: Any) -> Stored:
    key, user, data, version, created, left, read_only = row
    return Stored(key.decode(), user.decode(), data, int(version), float(created), float(left), read_only == b"1")


def _saved(answer: Any) -> Saved:
    return Saved(bool(answer[0]), _stored(answer[1])) if answer else Saved(False, None)
