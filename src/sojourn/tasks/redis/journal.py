"""The journal in Redis or Valkey, for nodes on any number of hosts."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any, Final

import msgspec

from sojourn.errors import ConfigError, DeadlineExceeded, JournalUnavailable
from sojourn.scopes.budget import budget
from sojourn.scopes.pausing import within
from sojourn.stores.line import Line
from sojourn.stores.redis import Scripts, connected, failures, forbidden, read_only, unknown_script
from sojourn.tasks.journal import Beat, Claimed, Counts, Listener, Query, Want
from sojourn.tasks.record import Progress, Reading, Settlement, Submitted, Task
from sojourn.tasks.redis import claims, looks, quick, records, steps
from sojourn.tasks.redis.ears import Ears
from sojourn.tasks.redis.server import BUDGET, LAYOUT, SECONDS, usable
from sojourn.tasks.redis.shared import STATES

__all__ = ["RedisJournal"]

#: Commands at once; who comes then waits within the budget.
_COMMANDS: Final = 16
#: Records that one script looks at for a list.
_STEPS: Final = 500

_LETTERS: Final = {state: letter for letter, state in STATES.items()}
_beats: Final = msgspec.msgpack.Decoder(tuple[list[str], list[str]])
_numbers: Final = msgspec.msgpack.Decoder(list[int])
_truths: Final = msgspec.msgpack.Decoder(list[bool])
_number: Final = msgspec.msgpack.Decoder(int)


class RedisJournal:
    """Tasks in Redis 6.2 or Valkey (the extra ``redis``), for nodes on any number of hosts.

    Each call is one script and one round trip, by the clock of Redis, and has two seconds, or what
    ``deadlines.budgets`` says for ``tasks``. What it has acknowledged is as durable as Redis is: give it
    ``appendonly yes``, with ``appendfsync always`` where the last second counts, too, and the policy ``noeviction``;
    with replicas, say how many must have it.

    Args:
        redis: A URL such as ``redis://localhost:6379/0``, or a ``redis.asyncio.Redis``, which stays yours.
        prefix: Begins all keys. The braces put them in one slot of a Redis Cluster, as scripts need it.
        replicas: So many replicas have what is submitted and settled before it is acknowledged (``WAIT``).

    Attributes:
        name: ``redis``.

    Raises:
        ConfigError: The URL is none, or the package ``redis`` is missing.

    Example:
        >>> journal = RedisJournal("redis://localhost:6379/0", prefix="{shop:tasks}:")
        >>> journal.name
        'redis'
    """

    def __init__(self, redis: Any, *, prefix: str = "{sojourn:tasks}:", replicas: int = 0) -> None:
        if replicas < 0:
            raise ConfigError(f"RedisJournal: replicas is 0 or more, not {replicas}")
        self._redis = redis
        self._prefix = prefix
        self._replicas = replicas
        self._slots = asyncio.Semaphore(_COMMANDS)
        self._checked = False
        #: Those who listen, and how many follow each task.
        self._ears: set[Ears] = set()
        self._followed: Counter[str] = Counter()
        self._keys = (prefix.encode() + b"meta", prefix.encode())
        self._connect()

    def _connect(self) -> None:
        self._client, self._own = connected(self._redis, "tasks in Redis need")
        self._line = Line(self._client, SECONDS)
        self._scripts = Scripts(self._client)

    @property
    def name(self) -> str:
        """``redis``."""
        return "redis"

    # -- Life

    async def open(self, node: str) -> None:
        """See Journal."""
        if not self._checked:
            try:
                usable(*await self._bounded(looks.GREET, LAYOUT.encode()))
            except JournalUnavailable as error:
                if isinstance(error.__cause__, forbidden()):
                    raise ConfigError(f"tasks in Redis: {error.__cause__}") from error
                raise
            self._checked = True

    async def listen(self, listener: Listener) -> None:
        """See Journal."""
        ears = Ears(self._client, self._prefix, listener, self._followed)
        self._ears.add(ears)
        try:
            await ears.hear()
        finally:
            self._ears.discard(ears)

    async def follow(self, id: str) -> None:
        """See Journal."""
        self._followed[id] += 1
        try:
            for ears in tuple(self._ears):
                await ears.follow(id)
        except BaseException:
            self.unfollow(id)
            raise

    def unfollow(self, id: str) -> None:
        """See Journal."""
        self._followed[id] -= 1
        if self._followed[id] <= 0:
            del self._followed[id]
            for ears in self._ears:
                ears.unfollow(id)

    async def aclose(self) -> None:
        """See Journal. Closes only connections that it opened itself."""
        self._line.drop()
        if self._own:
            client = self._client
            self._connect()
            try:
                async with budget(BUDGET, default=SECONDS):
                    await client.aclose()
            except DeadlineExceeded as error:
                if error.deadline != BUDGET:
                    raise  # else the peer takes no goodbye, and the connections end without

    # -- What changes tasks

    async def submit(self, tasks: Sequence[Any]) -> Sequence[Submitted]:
        """See Journal."""
        if len(tasks) == 1 and not self._replicas and quick.is_plain(tasks[0]):
            task = tasks[0]
            if await self._quick(quick.SUBMIT, *quick.values(task)):
                return [Submitted(task.id, True, task.fingerprint, "pending")]
        return records.submitted(await self._change(steps.SUBMIT, [records.new(task) for task in tasks]))

    async def claim(self, node: str, wants: Sequence[Want], lease: float) -> Claimed:
        """See Journal."""
        wanted = [(want.n, want.kinds) for want in wants if want.n > 0]
        return records.claimed(await self._run(claims.CLAIM, (node, records.micros(lease), wanted)))

    async def beat(self, node: str, held: Sequence[tuple[str, int]], lease: float) -> Beat:
        """See Journal."""
        lost, cancelled = _beats.decode(await self._run(claims.BEAT, (node, records.micros(lease), held)))
        return Beat(frozenset(lost), frozenset(cancelled))

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[bool]:
        """See Journal."""
        said = [records.said(settlement) for settlement in settlements]
        return _truths.decode(await self._change(steps.SETTLE, said))

    async def append(self, progress: Sequence[Progress]) -> Sequence[int]:
        """See Journal."""
        said = [
            (each.id, each.epoch, each.data.decode(), False if each.checkpoint is None else each.checkpoint.decode())
            for each in progress
        ]
        return _numbers.decode(await self._run(steps.APPEND, said))

    async def cancel(self, id: str) -> Task | None:
        """See Journal."""
        return records.task(await self._change(steps.CANCEL, id))

    async def retry(self, id: str) -> Task | None:
        """See Journal."""
        return records.task(await self._change(steps.RETRY, id))

    async def sweep(self, limit: int = 1000) -> int:
        """See Journal."""
        return _number.decode(await self._run(steps.SWEEP, limit))

    # -- What is asked

    async def get(self, id: str) -> Task | None:
        """See Journal."""
        return records.task(await self._run(looks.GET, id))

    async def read(self, id: str, after: int, limit: int = 1000) -> Reading | None:
        """See Journal."""
        return records.read(await self._run(looks.READ, (id, after, limit)))

    async def list(self, query: Query) -> Sequence[Task]:
        """See Journal."""
        states = "".join(_LETTERS[state] for state in dict.fromkeys(query.states))
        owner = False if query.owner is None else query.owner
        found: list[Task] = []
        place = ""
        while len(found) < query.limit:
            asks = (states, query.kind, owner, query.before, place, query.limit - len(found), _STEPS)
            place, some = records.pages(await self._run(looks.LIST, asks))
            found += some
            if not place:
                break
        return found

    async def counts(self, kinds: Collection[str] = ()) -> Counts:
        """See Journal."""
        return records.counted(await self._run(looks.COUNTS, list(kinds)))

    # -- Scripts

    async def _run(self, script: str, ask: Any) -> Any:
        return await self._bounded(script, records.encoded(ask))

    async def _change(self, script: str, ask: Any) -> Any:
        """As ``_run``, and wait for replicas, if there are to be any."""
        return await self._bounded(script, records.encoded(ask), replicas=self._replicas)

    async def _bounded(self, script: str, *values: bytes, replicas: int = 0) -> Any:
        heard = self._line.heard
        try:
            async with budget(BUDGET, default=SECONDS), self._slots:
                heard = self._line.heard
                return await self._ask(script, values, replicas)
        except DeadlineExceeded as error:
            if error.deadline != BUDGET:
                raise
            self._line.doubt(heard)
            raise JournalUnavailable(f"Redis has not answered in {error.seconds:g} s") from error
        except failures() as error:
            raise JournalUnavailable(f"{type(error).__name__}: {error}") from error

    async def _quick(self, script: str, *values: bytes) -> Any:
        """As ``_bounded``, by ``within`` where that is enough: a deadline costs a tenth of the call."""
        heard, seconds = self._line.heard, budget(BUDGET, default=SECONDS).seconds
        answer = self._line.at_once(script, *self._keys, *values)
        if answer is None:
            return await self._bounded(script, *values)
        try:
            return await within(seconds, answer)
        except TimeoutError as error:
            self._line.doubt(heard)
            raise JournalUnavailable(f"Redis has not answered in {seconds:g} s") from error
        except (unknown_script(), read_only()):
            return await self._bounded(script, *values)
        except failures() as error:
            raise JournalUnavailable(f"{type(error).__name__}: {error}") from error

    async def _ask(self, script: str, values: Sequence[bytes], replicas: int) -> Any:
        key, prefix = self._keys
        try:
            if not replicas:
                return await self._line.run(script, key, prefix, *values)
            answer, there = await self._scripts.replicated(
                script, (key,), prefix, *values, b"1", replicas=replicas, within=SECONDS / 2
            )
        except read_only():
            # Another one is the primary by now: whoever has this address next is asked on a new connection.
            self._line.drop()
            if self._own:
                await self._client.connection_pool.disconnect(inuse_connections=False)
            raise
        if there < replicas:
            raise JournalUnavailable(f"{there} replicas have it, and {replicas} should")
        return answer
