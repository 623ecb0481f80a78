"""Scripts, run in Redis: with a bound, with one more try where that is safe, and known to each new Redis."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple

from sojourn.errors import DeadlineExceeded, EngineUnavailable
from sojourn.hub.redis.keys import Keys
from sojourn.hub.redis.scripts import Script, Scripts
from sojourn.scopes.budget import budget
from sojourn.stores.redis import cut, failures, unknown_script
from sojourn.wire.hub.cursor import Cursor

__all__ = ["BUDGET", "Asked", "Store"]

#: What errors and ``deadlines.budgets`` call it.
BUDGET: Final = "hub"
#: Commands at once, and so connections for them; who comes then waits within the budget.
_COMMANDS: Final = 16
#: Redis since which commands and scripts do what is asked of them here.
_OLDEST: Final = 7
#: Times that a script is begun: not known, another life, a lost connection, and once more.
_TRIES: Final = 4


class Asked(NamedTuple):
    """What a script is given.

    Attributes:
        keys: Its keys.
        arguments: Its arguments, the first is the life of the store.
    """

    keys: list[bytes]
    arguments: list[Any]


class Store:
    """The data of one hub in Redis.

    Args:
        client: A ``redis.asyncio.Redis``.
        keys: Their names.
        timeout: Seconds for an answer, if ``deadlines.budgets`` has none for ``hub``.

    Attributes:
        keys: As given.
        scripts: What is done in one step.
        life: Which data, by their names.
        on_failure: Called when Redis did not answer.
        on_life: Called when all data are others than before.
    """

    def __init__(self, client: Any, keys: Keys, timeout: float) -> None:
        self._client = client
        self._timeout = timeout
        self._slots = asyncio.Semaphore(_COMMANDS)
        self.keys = keys
        self.scripts = Scripts(keys.prefix)
        self.life = ""
        self.on_failure: Callable[[], None] = _nothing
        self.on_life: Callable[[], None] = _nothing

    async def greet(self) -> Cursor:
        """Find out what Redis holds, begin anew where it holds nothing, and let it know the scripts.

        Returns:
            The present place.

        Raises:
            EngineUnavailable: It does not answer, or is too old.
        """
        position: Cursor = await self.bounded(self._greet)
        return position

    async def run(self, script: Script, build: Callable[[str], Asked], timeout: float | None = None) -> Any:
        """Run a script, again where it had to be told to Redis or where the connection broke: each does no harm twice.

        Args:
            script: Which.
            build: Its keys and arguments, by the life of the store.
            timeout: Seconds; None: as all.

        Raises:
            EngineUnavailable: It does not answer, or refuses; what was asked may have been done.
            DeadlineExceeded: The caller's own deadline has passed.

        Cancel: safe; what was asked may have been done.
        """
        return await self.bounded(lambda: self._run(script, build), timeout)

    async def say(self, where: bytes, message: bytes) -> None:
        """Publish something that is not kept.

        Raises:
            EngineUnavailable: It does not answer; it may have been said.

        Cancel: safe.
        """
        await self.bounded(lambda: self._raw("PUBLISH", where, message))

    async def bounded(self, ask: Callable[[], Awaitable[Any]], timeout: float | None = None) -> Any:
        """What Redis answers, within the budget, its errors translated."""
        try:
            async with budget(BUDGET, default=timeout or self._timeout):
                return await ask()
        except DeadlineExceeded as error:
            if error.deadline != BUDGET:
                raise
            self.on_failure()
            raise EngineUnavailable(f"Redis has not answered within {error.seconds:g} s") from error
        except failures() as error:
            self.on_failure()
            raise EngineUnavailable(f"{type(error).__name__}: {error}") from error

    async def _run(self, script: Script, build: Callable[[str], Asked]) -> Any:
        for left in reversed(range(_TRIES)):
            keys, arguments = build(self.life)
            try:
                reply = await self._raw("EVALSHA", script.sha, len(keys), *keys, *arguments)
            except unknown_script():
                await self._greet()
            except cut():
                if not left:
                    raise
                await self._greet()  # whoever answers next may be another
            else:
                if reply != 0:
                    return reply
                await self._greet()
        raise EngineUnavailable("Redis forgets what it has been told, time and again")

    async def _greet(self) -> Cursor:
        keys = self.keys
        life, epoch, seq, version = await self._raw(
            "EVAL", self.scripts.greet.text, 2, keys.meta, keys.marks, secrets.token_hex(4)
        )
        if int(version.partition(b".")[0]) < _OLDEST:
            raise EngineUnavailable(f"Redis {version.decode()} is too old: it takes {_OLDEST}, or Valkey", 60.0)
        scripts = self.scripts.known
        there = await self._raw("SCRIPT EXISTS", *(script.sha for script in scripts))
        for script, known in zip(scripts, there, strict=True):
            if not known:
                await self._raw("SCRIPT LOAD", script.text)
        before, self.life = self.life, life.decode()
        if before and before != self.life:
            self.on_life()
        return Cursor(epoch.decode(), int(seq))

    async def _raw(self, command: str, *arguments: Any) -> Any:
        """A command whose answer stays bytes, whatever the client decodes else."""
        async with self._slots:
            try:
                return await self._client.execute_command(command, *arguments, NEVER_DECODE=True)
            except RuntimeError as error:
                # What uvloop says of a connection that was reset while nobody used it; the client passes it on.
                raise ConnectionError(str(error)) from error


def _nothing() -> None:
    """Nobody wants to know."""
